"""U-Net segmentation with multi-class classification on one network (paper 000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras

from keras_skin.layers.aspp import atrous_spatial_pyramid
from keras_skin.layers.classifier import classifier as dense_head
from keras_skin.layers.conv_block import conv_block, convolution
from keras_skin.models import register
from keras_skin.models.backbones import Features, build_backbone
from keras_skin.models.unet import image_input
from keras_skin.registry import UserError, did_you_mean

TASKS = ("both", "segmentation", "classification")
CLASSIFIERS = ("shared", "efficientnet_b0", "efficientnet_b3")
ENCODER = "resnet34"
# Features of the decoder's levels, finest first, as in the library that the paper names (segmentation_models_pytorch).
FILTERS = (16, 32, 64, 128, 256)
FUSED = 512
HIDDEN = 256
DROPOUT = 0.3


@register(
    "dual_task",
    paper="Fiaz et al., Frontiers in Medicine 2025, 12, 1681542",
    tiny={"image_size": (64, 64)},
)
def dual_task(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 7,
    classifier: Literal["shared", "efficientnet_b0", "efficientnet_b3"] = "efficientnet_b0",
    tasks: Literal["both", "segmentation", "classification"] = "both",
    dilated_bottleneck: bool = False,
    weights: str | Mapping[str, str | None] | None = None,
) -> keras.Model:
    """A U-Net that outlines a lesion and, from its encoder's features and those of a second backbone, names its class.

    Source: Fiaz et al., Frontiers in Medicine 2025, 12, 1681542, section 3 and table 4. A ResNet34 encoder and a U-Net decoder
    give the mask. For the class, the 7x7x1280 features of an EfficientNet-B0 (at 224x224) are concatenated with ResNet34's
    7x7x512, projected to 512 by a 1x1 convolution with batch normalisation and ReLU, averaged, and put through a dense layer of
    256 units with ReLU, dropout, and the classes. 29.58 M parameters.

    Args:
        image_size: height and width, multiples of 32.
        classes: number of classes, at least 2.
        classifier: `"efficientnet_b0"` or `"efficientnet_b3"` as above; `"shared"` classifies ResNet34's features alone.
        tasks: `"both"`, or the task that is left in the single-task ablations: `"segmentation"` is ResNet34 and the decoder
            (`classifier` is without effect), `"classification"` is the network without the decoder.
        dilated_bottleneck: give the decoder dilated convolutions of the encoder's deepest features in place of them.
        weights: of the backbones; `None` to start from random numbers, `"imagenet"`, or `{backbone: None, "imagenet" or path}` as
            in `build_backbone`, where a backbone that is not named starts from random numbers.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask": (B, H, W, 1), "label": (B, classes)}, float32 logits, or
        one of the two. Feature layers: ResNet34's `encoder_1` (stride 2) to `encoder_5` (stride 32), the second backbone's
        `classifier_encoder_1` and so on, `decoder_5` (stride 16) to `decoder_1` (stride 1), and `cam_features`: what the
        classifier averages, after the projection where there is one; without classification an alias of `encoder_5`.

    Raises:
        UserError: if an argument is out of range (all of them are listed), or if weights cannot be had.

    Example:

    >>> dual_task(image_size=(64, 64), tasks="segmentation").output_shape
    {'mask': (None, 64, 64, 1)}

    **Deviations from the paper**:

    - Its parts disagree on the classifier: the abstract and table 4 say EfficientNet-B0, section 3 also describes one on
      ResNet34's features alone, and the conclusion says EfficientNet-B3. The first is the default, the others are arguments. How
      the two backbones meet is not said; the concatenation and its projection are a reading of it.
    - EfficientNet's features "enriching the encoder representations that drive the segmentation module" (section 3) would
      contradict "the segmentation branch is constructed on a U-Net architecture with a ResNet34 encoder": the mask is computed
      from ResNet34 alone. The tasks meet in the encoder, which both losses train.
    - Number and width of the dense layers and the dropout rate are not printed.
    - The ResNet34 is KerasHub's variant "vd", for the sake of its ImageNet weights: 0.04 M more parameters.
    - Section 1.2 speaks of a "multi-scale dilated U-Net" without describing it: `dilated_bottleneck`, off by default, is
      `atrous_spatial_pyramid` with 256 features, whose dilations 1, 2 and 3 fit a 7x7 map.
    """
    _check(classes, classifier, tasks, weights)
    # The encoder's end and five levels of decoder: both sides are halved five times.
    image = image_input(image_size, (*FILTERS, FUSED))
    chosen = _weights(weights, classifier)
    encoder = build_backbone(ENCODER, image, chosen[ENCODER])
    if tasks == "segmentation":
        explained = keras.layers.Identity(name="cam_features")(encoder.deepest)
        return keras.Model({"image": image}, {"mask": _mask(encoder, explained, dilated_bottleneck)}, name="dual_task")
    outputs = {"mask": _mask(encoder, encoder.deepest, dilated_bottleneck)} if tasks == "both" else {}
    features = encoder.deepest
    if classifier != "shared":
        second = build_backbone(classifier, image, chosen[classifier], prefix="classifier_").deepest
        features = keras.layers.Concatenate(name="both_encoders")([second, features])
        features = conv_block(features, convolution(FUSED, kernel_size=1, name="fused_conv"), "fused")
    features = keras.layers.Identity(name="cam_features")(features)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    outputs["label"], _ = dense_head(pooled, classes, widths=(HIDDEN,), dropout=DROPOUT)
    return keras.Model({"image": image}, outputs, name="dual_task")


def _mask(encoder: Features, deepest: Any, dilated: bool) -> Any:
    """The decoder: each level doubles the size (nearest neighbour), joins the encoder's features and has two 3x3 convolutions."""
    x = atrous_spatial_pyramid(deepest, FILTERS[-1], name="bottleneck") if dilated else deepest
    for level in range(len(FILTERS), 0, -1):
        name, stride = f"decoder_{level}", 2 ** (level - 1)
        x = keras.layers.UpSampling2D(2, name=f"{name}_upsample")(x)
        if stride > 1:  # at the image's own size the encoder has no features
            x = keras.layers.Concatenate(name=f"{name}_skip")([x, encoder.levels[stride]])
        x = conv_block(x, convolution(FILTERS[level - 1], name=f"{name}_conv_1"), f"{name}_1")
        x = conv_block(x, convolution(FILTERS[level - 1], name=f"{name}_conv_2"), name)
    logits = keras.layers.Conv2D(1, 3, padding="same", dtype="float32", name="mask_head")(x)
    return keras.layers.Identity(name="mask", dtype="float32")(logits)


def _weights(weights: str | Mapping[str, str | None] | None, classifier: str) -> dict[str, str | None]:
    """The weights of each backbone."""
    if isinstance(weights, Mapping):
        return {name: weights.get(name) for name in (ENCODER, classifier)}
    return dict.fromkeys((ENCODER, classifier), weights)


def _check(classes: int, classifier: str, tasks: str, weights: str | Mapping[str, str | None] | None) -> None:
    problems = []
    if classes < 2:
        problems.append(f"classes is {classes}, expected 2 or more")
    for argument, value, known in (("classifier", classifier, CLASSIFIERS), ("tasks", tasks, TASKS)):
        if value not in known:
            problems.append(f"{argument} is {value!r}, expected one of {', '.join(known)}")
    backbones = [ENCODER] if classifier == "shared" else [ENCODER, classifier]
    if isinstance(weights, Mapping):
        problems += [
            f"weights names '{name}', which this network does not have.{did_you_mean(name, backbones)} "
            f"Its backbones: {', '.join(backbones)}"
            for name in weights
            if name not in backbones
        ]
    elif weights not in (None, "imagenet"):
        example = ", ".join(f'"{name}": "..."' for name in backbones)
        problems.append(f"weights is {weights!r}, expected null, 'imagenet', or one entry per backbone: {{{example}}}")
    if problems:
        raise UserError("The dual_task model cannot be built: " + "; ".join(problems) + ".")

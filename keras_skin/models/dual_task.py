"""U-Net segmentation and multi-class classification in one network (paper 000)."""

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
from keras_skin.models.unet_backbone import check_pyramid
from keras_skin.registry import UserError, did_you_mean

TASKS = ("both", "segmentation", "classification")
FUSIONS = ("label", "both")
CLASSIFIERS = ("shared", "efficientnet_b0", "efficientnet_b3", "efficientnet_lite0")
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
def DualTask(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 7,
    classifier: Literal["shared", "efficientnet_b0", "efficientnet_b3", "efficientnet_lite0"] = "efficientnet_b0",
    tasks: Literal["both", "segmentation", "classification"] = "both",
    dilated_bottleneck: bool = False,
    weights: str | Mapping[str, str | None] | None = None,
    encoder: str = "resnet34",
    fused: Literal["label", "both"] = "label",
) -> keras.Model:
    """A U-Net that segments a lesion, and classifies it from the features of its encoder and of a second backbone.

    Source: Fiaz et al., Frontiers in Medicine 2025, 12, 1681542, section 3 and table 4. A ResNet34 encoder and a U-Net decoder
    give the mask. For the class, the 7x7x1280 features of an EfficientNet-B0 (at 224x224) are concatenated with ResNet34's
    7x7x512, projected to 512 by a 1x1 convolution with batch normalisation and ReLU, and averaged. A dense layer of 256 units
    with ReLU, dropout, and the classes follow. 29.58 M parameters.

    Args:
        image_size: height and width, multiples of 32.
        classes: number of classes, at least 2.
        classifier: `"efficientnet_b0"` or `"efficientnet_b3"` as above, or `"efficientnet_lite0"`; `"shared"` classifies the
            encoder's features alone.
        tasks: `"both"`, or the task of a single-task ablation: `"segmentation"` is the network without the classifier (a
            `classifier` that the decoder does not take has no effect), `"classification"` the network without the decoder.
        dilated_bottleneck: whether the decoder starts from dilated convolutions of the encoder's deepest features.
        weights: weights of the backbones: `None` to start from random numbers, `"imagenet"`, or `{backbone: None, "imagenet" or
            path}` as in `build_backbone`; backbones that are not listed start from random numbers.
        encoder: the U-Net's encoder, a name of `BACKBONES` with features at strides 2 to 32; the paper's is resnet34.
        fused: what takes the 512 fused features of both backbones: `"label"` is the classifier alone, `"both"` the classifier
            and the decoder, which starts from them instead of the encoder's deepest features. `"both"` needs a second backbone.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask": (B, H, W, 1), "label": (B, classes)}, float32 logits, or
        one of the two. Feature layers: the encoder's `encoder_1` (stride 2) to `encoder_5` (stride 32), the second backbone's
        `classifier_encoder_1` and so on, `decoder_5` (stride 16) to `decoder_1` (stride 1), and `cam_features`: the
        input of the classifier's average, after the projection; without classification the decoder's input.

    Raises:
        UserError: listing all arguments that are out of range, or if the weights are not available.

    Example:

    >>> DualTask(image_size=(64, 64), tasks="segmentation").output_shape
    {'mask': (None, 64, 64, 1)}

    **Deviations from the paper**:

    - The paper contradicts itself on the classifier: EfficientNet-B0 in the abstract and table 4, also one on ResNet34's features
      alone in section 3, EfficientNet-B3 in the conclusion. The first is the default, the others are arguments. The paper does
      not print how the two backbones are joined; the concatenation and its projection are an interpretation.
    - EfficientNet's features are "enriching the encoder representations that drive the segmentation module", but "the
      segmentation branch is constructed on a U-Net architecture with a ResNet34 encoder" (section 3). By default the mask comes
      from ResNet34 alone, and both losses train that encoder. `fused="both"` fits both sentences: the fused features have as
      many channels as ResNet34's deepest ones and take their place in the decoder.
    - The paper does not print the number and width of the dense layers and the dropout rate.
    - The conclusion's "U-Net architecture with an EfficientNet-B3 backbone" is `encoder="efficientnet_b3"` with
      `classifier="shared"`. As in the library that the paper names, the decoder starts from the last block (384 channels); the
      classifier takes the 1536 channels of EfficientNet's own top convolution, where the library would take those 384.
    - `encoder` other than resnet34, and `classifier` efficientnet_lite0, have ImageNet weights that need no download.
    - The ResNet34 is KerasHub's variant "vd", which has ImageNet weights: 0.04 M more parameters.
    - Section 1.2 speaks of a "multi-scale dilated U-Net" without describing it: `dilated_bottleneck`, off by default, is
      `atrous_spatial_pyramid` with 256 features, whose dilations 1, 2 and 3 fit a 7x7 map.
    """
    _check(classes, classifier, tasks, weights, encoder, fused)
    # Five halvings, one for each level of the decoder.
    image = image_input(image_size, (*FILTERS, FUSED))
    backbone_weights = _weights(weights, encoder, classifier)
    encoded = build_backbone(encoder, image, backbone_weights[encoder])
    bottom = encoded.levels[2 ** len(FILTERS)]
    features = encoded.deepest
    if classifier != "shared" and (tasks != "segmentation" or fused == "both"):
        second = build_backbone(classifier, image, backbone_weights[classifier], prefix="classifier_").deepest
        features = keras.layers.Concatenate(name="both_encoders")([second, features])
        features = conv_block(features, convolution(FUSED, kernel_size=1, name="fused_conv"), "fused")
    elif tasks == "segmentation":
        features = bottom
    features = keras.layers.Identity(name="cam_features")(features)
    outputs = {}
    if tasks != "classification":
        decoded = features if tasks == "segmentation" or fused == "both" else bottom
        outputs["mask"] = _mask(encoded, decoded, dilated_bottleneck)
    if tasks != "segmentation":
        pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
        outputs["label"], _ = dense_head(pooled, classes, widths=(HIDDEN,), dropout=DROPOUT)
    return keras.Model({"image": image}, outputs, name="dual_task")


def _mask(encoder: Features, bottom: Any, dilated: bool) -> Any:
    """Returns the mask, decoded from `bottom` (stride 32). Each decoder level doubles the size, concatenates the encoder's
    features and has two convolutions."""
    x = atrous_spatial_pyramid(bottom, FILTERS[-1], name="bottleneck") if dilated else bottom
    for level in range(len(FILTERS), 0, -1):
        name, stride = f"decoder_{level}", 2 ** (level - 1)
        x = keras.layers.UpSampling2D(2, name=f"{name}_upsample")(x)
        if stride > 1:  # the encoder has no features at the image's size
            x = keras.layers.Concatenate(name=f"{name}_skip")([x, encoder.levels[stride]])
        x = conv_block(x, convolution(FILTERS[level - 1], name=f"{name}_conv_1"), f"{name}_1")
        x = conv_block(x, convolution(FILTERS[level - 1], name=f"{name}_conv_2"), name)
    logits = keras.layers.Conv2D(1, 3, padding="same", dtype="float32", name="mask_head")(x)
    return keras.layers.Identity(name="mask", dtype="float32")(logits)


def _weights(weights: str | Mapping[str, str | None] | None, encoder: str, classifier: str) -> dict[str, str | None]:
    """Returns the weights of each backbone."""
    if isinstance(weights, Mapping):
        return {name: weights.get(name) for name in (encoder, classifier)}
    return dict.fromkeys((encoder, classifier), weights)


def _check(
    classes: int, classifier: str, tasks: str, weights: str | Mapping[str, str | None] | None, encoder: str, fused: str
) -> None:
    problems = []
    if classes < 2:
        problems.append(f"classes is {classes}, expected 2 or more")
    for argument, value, choices in (("classifier", classifier, CLASSIFIERS), ("tasks", tasks, TASKS), ("fused", fused, FUSIONS)):
        if value not in choices:
            problems.append(f"{argument} is {value!r}, expected one of {', '.join(choices)}")
    if fused == "both" and classifier == "shared":
        problems.append("fused is 'both', but classifier 'shared' has no second backbone to fuse; name one, or leave fused out")
    backbones = [encoder] if classifier == "shared" else [encoder, classifier]
    if isinstance(weights, Mapping):
        problems += [
            f"weights has an entry '{name}', which is no backbone of this network.{did_you_mean(name, backbones)} "
            f"Its backbones: {', '.join(backbones)}"
            for name in weights
            if name not in backbones
        ]
    elif weights not in (None, "imagenet"):
        example = ", ".join(f'"{name}": "..."' for name in backbones)
        problems.append(f"weights is {weights!r}, expected null, 'imagenet', or one entry per backbone: {{{example}}}")
    if problems:
        raise UserError("The dual_task model cannot be built: " + "; ".join(problems) + ".")
    check_pyramid(encoder, FILTERS)

"""DualRefNet: image and metadata with super-resolution and class-frequency regularisation (paper 004)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_skin.layers.class_frequency import HIDDEN_COEFFICIENTS, ClassFrequencyClassifier
from keras_skin.layers.enlargement import INTERPOLATIONS, Enlargement, LearnedEnlargement
from keras_skin.layers.metablock import MetaBlock
from keras_skin.layers.metadata_cross_attention import metadata_cross_attention
from keras_skin.layers.metadata_networks import METADATA_NETWORKS
from keras_skin.layers.metanet import MetaNet
from keras_skin.layers.super_resolution import super_resolution_decoder
from keras_skin.layers.visual_attention import visual_attention
from keras_skin.models import register
from keras_skin.models.backbones import Features, build_backbone
from keras_skin.registry import UserError

FUSIONS = ("none", "concatenate", "metanet", "metablock", "visual_attention", "cross_attention")
ENCODED = ("concatenate", "cross_attention")
"""Fusions that take the metadata network's 512 features; the others have their own network for the columns."""
ENLARGEMENTS = ("none", *INTERPOLATIONS, "learned")
ATTENDED_STRIDES = (4, 8, 16)
HIDDEN_UNITS = 256


@register(
    "dualrefnet",
    paper="Khurshid et al., Scientific Reports, 2025",
    tiny={"image_size": (32, 32), "metadata_width": 5, "regularisation": 0.3, "class_counts": (300, 700)},
)
def DualRefNet(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 6,
    backbone: str = "vgg13",
    weights: str | None = None,
    metadata_width: int = 0,
    fusion: Literal["none", "concatenate", "metanet", "metablock", "visual_attention", "cross_attention"] = "concatenate",
    metadata_encoder: Literal["dense", "weighted", "transformer"] = "dense",
    super_resolution: Literal["none", "bilinear", "bicubic", "lanczos3", "learned"] = "bicubic",
    gamma: float = 1.0,
    regularisation: float = 0.0,
    hidden_coefficient: Literal["outgoing", "uniform"] = "outgoing",
    class_counts: Sequence[int] | None = None,
) -> keras.Model:
    """Classifies an image with its clinical metadata; in training its features also reconstruct the image at twice its size.

    Source: Khurshid et al., "Multimodal dual-stage feature refinement for robust skin lesion classification", Scientific Reports,
    2025. The backbone's features are averaged and fused with the metadata (equation 3); two dense layers, the first of 256
    units, give the classes. The total loss (equation 7) is alpha L_class + beta L_aux + gamma R:

    - L_class, the weighted cross-entropy, is the loss of the output `label`: `losses.label` with weight alpha = 0.5, and
      `balancing.class_weights`.
    - L_aux, the mean squared error of the super-resolved image (equation 6), is the loss of the output `super_resolution`:
      `losses.super_resolution` with weight beta = 1.
    - gamma R, the class-frequency regularisation (equation 4), is added by the model itself, in training and in validation:
      `regularisation` is its lambda, 0.3 for PAD-UFES-20 and 0.2 for ISIC 2019. It has no own entry in the logs; it is the total
      without the logged losses.

    `gamma` 0 (or `regularisation` 0) gives AuxNet of the same authors; without super-resolution as well it is plain fusion.

    Args:
        image_size: height and width; for super-resolution multiples of the deepest features' stride, 32 for most backbones.
        classes: number of classes, at least 2.
        backbone: a key of `keras_skin.models.backbones.BACKBONES`; the paper has vgg13, resnet50, mobilenet_v2, efficientnet_b4
            and densenet121 (and, for comparison, the transformers swin_base, vit_base and convit_base).
        weights: weights of the backbone: None to start from random numbers, `"imagenet"` as in the paper, or a path.
        metadata_width: columns of the encoded metadata; 0 for a model without metadata.
        fusion: how metadata join the image's features. `"concatenate"` (the paper's), `"none"`, or one of its comparisons:
            `"metanet"`, `"metablock"`, `"visual_attention"` (each with its own network for the metadata), `"cross_attention"`.
        metadata_encoder: the network before `"concatenate"` and `"cross_attention"`: `"dense"` (the paper's), or its ablations
            `"weighted"` and `"transformer"`.
        super_resolution: how the input is enlarged to the target of the auxiliary task; `"none"` is without that task.
        gamma: weight of the regularisation, 0 or more.
        regularisation: lambda of equation 4, 0 or more.
        hidden_coefficient: coefficient of the 256 hidden units in equation 4, see `ClassFrequencyClassifier`.
        class_counts: training images of each class, in the order of the classes; required where gamma and regularisation are
            positive, as in training.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255; "metadata": (B, M) float32, if `metadata_width`} to {"label": (B,
        classes) float32 logits; "super_resolution": (B, 2, 2 H, 2 W, 3) float32 in [0, 1], the predicted image and its target}.
        The second is only for training: it needs no target from the data, and an exported model does not have it. Feature
        layers: the backbone's `encoder_1` and so on, `cam_features` (the input of the average), `fused` (the input of the dense
        layers).

    Raises:
        UserError: listing all arguments that are out of range or exclude each other; or from `build_backbone`.

    Example:

    >>> DualRefNet(image_size=(64, 64), metadata_width=81).output["super_resolution"].shape
    (None, 2, 128, 128, 3)

    **Deviations from the paper**:

    - Those of the layers: `super_resolution_decoder`, `LearnedEnlargement`, `ClassFrequencyClassifier`, `visual_attention`.
    - Features are averaged over positions before the dense layers, also those of VGG13, whose classifier is omitted; the paper
      does not describe this step. The comparisons also end in the paper's two dense layers instead of their own heads.
    - With `fusion="cross_attention"` the dense layers take the attention's result alone.
    """
    counts = None if class_counts is None else [int(count) for count in class_counts]
    _check(locals())
    image = keras.Input((*image_size, 3), name="image")
    inputs = {"image": image}
    metadata = None
    if metadata_width:
        metadata = inputs["metadata"] = keras.Input((metadata_width,), name="metadata")
    features = build_backbone(backbone, image, weights)
    deepest = keras.layers.Identity(name="cam_features")(features.deepest)

    fused = _fuse(fusion, Features(features.levels, deepest), metadata, metadata_encoder)
    label = ClassFrequencyClassifier(
        classes,
        HIDDEN_UNITS,
        strength=gamma * regularisation,
        class_counts=counts,
        hidden_coefficient=hidden_coefficient,
        dtype="float32",
        name="label",
    )(keras.layers.Identity(name="fused", dtype="float32")(fused))
    outputs = {"label": label}
    if super_resolution != "none":
        outputs["super_resolution"] = _super_resolved(image, deepest, image_size, super_resolution)
    return keras.Model(inputs, outputs, name="dualrefnet")


def _fuse(fusion: str, features: Features, metadata: Any, encoder: str) -> Any:
    """Returns image features and metadata (B, M) or None, joined to one vector (B, D)."""
    x = features.deepest
    if metadata is None or fusion == "none":
        return _pool(x)
    if fusion == "concatenate":
        return keras.layers.Concatenate(name="concatenated")([_pool(x), METADATA_NETWORKS[encoder](metadata)])
    if fusion == "cross_attention":
        return metadata_cross_attention(x, METADATA_NETWORKS[encoder](metadata))
    if fusion == "metanet":
        return _pool(MetaNet(name="metanet")([x, metadata]))
    if fusion == "metablock":
        return _pool(MetaBlock(name="metablock")([x, metadata]))
    finer = [features.levels[stride] for stride in ATTENDED_STRIDES if stride in features.levels]
    return visual_attention(finer, _pool(x), metadata)


def _pool(features: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D(name="pooled")(features)


def _super_resolved(image: Any, features: Any, image_size: tuple[int, int], method: str) -> Any:
    """Returns the image decoded from the features, and its target, the enlarged input."""
    arguments: dict[str, Any] = {"dtype": "float32", "name": "super_resolution_target"}
    enlargement = LearnedEnlargement(**arguments) if method == "learned" else Enlargement(method, **arguments)
    try:
        decoded = super_resolution_decoder(features, image_size)
    except ValueError as error:
        raise UserError(f"The dualrefnet model cannot be built: {error} Or set super_resolution to 'none'.") from error
    pair = [
        keras.layers.Reshape((1, *tensor.shape[1:]), dtype="float32", name=f"super_resolution_{name}")(tensor)
        for name, tensor in (("predicted", decoded), ("expected", enlargement(image)))
    ]
    return keras.layers.Concatenate(axis=1, dtype="float32", name="super_resolution")(pair)


def _check(arguments: dict[str, Any]) -> None:
    choices = {
        "fusion": FUSIONS,
        "metadata_encoder": tuple(METADATA_NETWORKS),
        "super_resolution": ENLARGEMENTS,
        "hidden_coefficient": HIDDEN_COEFFICIENTS,
    }
    problems = [
        f"{name} is {arguments[name]!r}, expected one of {', '.join(valid)}"
        for name, valid in choices.items()
        if arguments[name] not in valid
    ]
    minima = {"classes": 2, "metadata_width": 0, "gamma": 0, "regularisation": 0}
    problems += [
        f"{name} is {arguments[name]}, expected {minimum} or more"
        for name, minimum in minima.items()
        if arguments[name] < minimum
    ]
    fusion, encoder, counts = arguments["fusion"], arguments["metadata_encoder"], arguments["counts"]
    if fusion == "none" and arguments["metadata_width"]:
        problems.append("fusion is 'none', but there are metadata: remove the experiment's block 'metadata'")
    if fusion in FUSIONS[2:] and not arguments["metadata_width"]:
        problems.append(f"fusion is {fusion!r}, but there are no metadata: add a block 'metadata' to the experiment")
    if encoder != "dense" and fusion not in ENCODED:
        problems.append(f"metadata_encoder is {encoder!r}, but fusion {fusion!r} does not use it: it is for {', '.join(ENCODED)}")
    if arguments["gamma"] * arguments["regularisation"] > 0 and (
        counts is None or len(counts) != arguments["classes"] or min(counts) < 0 or not any(counts)
    ):
        problems.append(
            f"class_counts is {counts}, expected {arguments['classes']} numbers, not all 0: the training images of each class. "
            "The class-frequency regularisation needs them; without it, set regularisation to 0"
        )
    if problems:
        raise UserError("The dualrefnet model cannot be built: " + "; ".join(problems) + ".")

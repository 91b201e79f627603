"""The Transformer Dual-Branch Network: image, segmented image and clinical metadata (paper 002)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_skin.layers.availability import AvailabilityMask, KnownFields
from keras_skin.layers.cross_attention import cross_attention
from keras_skin.layers.dense_block import dense_block
from keras_skin.layers.feed_forward import feed_forward as feed_forward_step
from keras_skin.layers.metadata_encoder import dense_metadata, transformer_metadata
from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.registry import UserError

BRANCHES = ("both", "image", "segmented")
ENCODERS = ("dense", "transformer")
METADATA_UNITS = 128
CLASSIFIER_UNITS = (512, 128)


@register(
    "tdbn",
    paper="Atiq and Fattah, Towards Explainable Skin Cancer Classification (paper 002), section 5",
    tiny={
        "image_size": (64, 64),
        "backbone": "resnet18",
        "metadata_width": 9,
        "metadata_fields": (1, 2, 3),
        "feed_forward": 32,
        "dropout": 0.0,
    },
)
def TDBN(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 7,
    backbone: str = "densenet201",
    weights: str | None = None,
    branches: Literal["both", "image", "segmented"] = "both",
    shared_encoder: bool = False,
    metadata_width: int = 0,
    metadata_fields: Sequence[int] = (),
    metadata_encoder: Literal["dense", "transformer"] = "dense",
    heads: int = 8,
    feed_forward: int = 2048,
    attention_residual: bool = False,
    dropout: float = 0.3,
) -> keras.Model:
    """Classifies an image, its segmented lesion and its metadata, with an encoder per image and cross-attention between them.

    Source: Atiq and Fattah, Towards Explainable Skin Cancer Classification: A Dual-Network Attention Model with Lesion
    Segmentation and Clinical Metadata Fusion, section 5 and figure 5. C is 1920 for DenseNet201:

    - Each encoder gives 49 tokens of C features (at 224x224). In the cross-attention query and value are of the image, keys of
      the segmented image (equation 5); then LayerNorm(Z + FFN(Z)) (equation 6) and the mean over the tokens.
    - Metadata: two dense layers of 128 units with ReLU and batch normalisation (equation 7), times alpha (equation 8).
    - Both are projected to C (dense layer, batch normalisation, ReLU, dropout); F = F_vision + alpha F_tabular (equation 9).
    - Classifier: 512 and 128 units with batch normalisation, ReLU and dropout, then the classes.

    64 M parameters with two DenseNet201.

    Args:
        image_size: height and width, 32 or more.
        classes: number of classes, at least 2.
        backbone: backbone of both encoders, a name of `BACKBONES`.
        weights: weights of the backbones: None, `"imagenet"` as in the paper, or a path, see `build_backbone`.
        branches: `"both"`, or the single branch of an ablation, whose features are averaged without attention. (Table 3's
            single images have the plain network of `classifier`.)
        shared_encoder: use one encoder for both images.
        metadata_width: number of metadata columns; 0 is the network without metadata.
        metadata_fields: number of columns of each metadata field. The last columns then tell for each field whether it is known
            (`missing="mask"` in `keras_skin.data.metadata`). Without it all rows count as known: alpha is 1.
        metadata_encoder: `"dense"` as in equation 7, or `"transformer"`, with one token for each field.
        heads: heads of the cross-attention, a divisor of C; each is C / heads wide.
        feed_forward: hidden units of the FFN.
        attention_residual: add the image's tokens to the output of the cross-attention, before equation 6.
        dropout: dropout of projections and classifier, in [0, 1).

    Returns:
        Model from {"image", "segmented_image": (B, H, W, 3) float32, 0..255; "metadata": (B, metadata_width) float32}, without
        unused inputs, to {"label": (B, classes) float32 logits}. Feature layers: `encoder_1` and so on of the image,
        `segmented_encoder_1` and so on of the segmented image; for Grad-CAM `cam_features` and `cam_features_segmented`. A single
        branch and a shared encoder have `encoder_1` and so on; a single branch has `cam_features`. The second output of the layer
        `cross_attention` is its weights, (B, heads, N, N): row i holds the weights of the segmented image's tokens for token i of
        the image, in the row order of the encoder's map.

    Raises:
        UserError: listing all arguments that are out of range, or if the weights are not available.

    Example:

    >>> sorted(TDBN(image_size=(64, 64), backbone="resnet18", metadata_width=5).input)
    ['image', 'metadata', 'segmented_image']

    **Deviations from the paper**:

    - The paper does not print the heads (8 of 240), the widths of the FFN (2048) and of the metadata network (128), and
      the dropout (0.3).
    - The text has "residual connections", equation 6 has one, around the FFN. The default follows the equation;
      `attention_residual` adds one around the attention. The tokens have no position embedding, because the paper mentions none.
    - Equation 8 comes before the projection, which turns zeros into a constant; equation 9 multiplies by alpha again. This model
      does both. A single unknown field is zeros and a flag.
    - Title, abstract and figure have a "transformer", equation 7 has two dense layers: the equation is the default.
    - A shared encoder (not in the paper) takes both images in one batch, so that its batch normalisation has the same statistics
      in training and inference.
    """
    _check(classes, branches, shared_encoder, metadata_width, metadata_fields, metadata_encoder, attention_residual, dropout)
    names = {"both": ("image", "segmented_image"), "image": ("image",), "segmented": ("segmented_image",)}[branches]
    inputs = {name: keras.Input((*image_size, 3), name=name) for name in names}
    features = _encode(list(inputs.values()), backbone, weights, shared_encoder)
    features = [
        keras.layers.Identity(name=name)(x) for name, x in zip(("cam_features", "cam_features_segmented"), features, strict=False)
    ]
    width = features[0].shape[-1]
    if branches == "both":
        if heads < 1 or width % heads:
            raise UserError(
                f"The tdbn model cannot be built: heads is {heads}, which does not divide the {width} of '{backbone}'."
            )
        vision = _attend(features[0], features[1], heads, feed_forward, attention_residual)
    else:
        vision = keras.layers.GlobalAveragePooling2D(name="pooled")(features[0])
    x = dense_block(vision, width, dropout, "vision_projection")
    if metadata_width:
        inputs["metadata"] = keras.Input((metadata_width,), name="metadata")
        tabular = _tabular(inputs["metadata"], metadata_fields, metadata_encoder, width, dropout)
        x = keras.layers.Add(name="fused")([x, tabular])
    for number, units in enumerate(CLASSIFIER_UNITS, start=1):
        x = dense_block(x, units, dropout, f"classifier_{number}")
    return keras.Model(inputs, {"label": keras.layers.Dense(classes, dtype="float32", name="label")(x)}, name="tdbn")


def _encode(images: list[Any], backbone: str, weights: str | None, shared: bool) -> list[Any]:
    """Returns the features (B, h, w, C) of each image."""
    if shared:
        both = build_backbone(backbone, ops.concatenate(images, axis=0), weights).deepest
        return list(ops.split(both, len(images), axis=0))
    prefixes = ("", "segmented_")
    return [build_backbone(backbone, image, weights, prefix).deepest for image, prefix in zip(images, prefixes, strict=False)]


def _attend(image: Any, segmented: Any, heads: int, hidden: int, residual: bool) -> Any:
    """Returns (B, C) from two maps (B, h, w, C): equations 5 and 6 and the mean over the tokens."""
    _, rows, columns, width = image.shape
    image = keras.layers.Reshape((rows * columns, width), name="image_tokens")(image)
    segmented = keras.layers.Reshape((rows * columns, width), name="segmented_tokens")(segmented)
    x = cross_attention(image, segmented, image, heads, "cross_attention")
    if residual:
        x = keras.layers.Add(name="attention_residual")([image, x])
    return keras.layers.GlobalAveragePooling1D(name="pooled")(feed_forward_step(x, hidden, "feed_forward"))


def _tabular(metadata: Any, fields: Sequence[int], encoder: str, width: int, dropout: float) -> Any:
    """Returns the metadata features (B, width): equations 7 and 8 and the right side of equation 9."""

    def masked(features: Any, name: str) -> Any:
        return AvailabilityMask(len(fields), name=name)([features, metadata]) if fields else features

    x = KnownFields(fields, dtype="float32", name="metadata_known")(metadata) if fields else metadata
    x = transformer_metadata(x, fields, METADATA_UNITS) if encoder == "transformer" else dense_metadata(x, METADATA_UNITS)
    x = dense_block(masked(x, "metadata_available"), width, dropout, "tabular_projection")
    return masked(x, "tabular_available")


def _check(
    classes: int,
    branches: str,
    shared_encoder: bool,
    metadata_width: int,
    metadata_fields: Sequence[int],
    metadata_encoder: str,
    attention_residual: bool,
    dropout: float,
) -> None:
    problems = []
    if classes < 2:
        problems.append(f"classes is {classes}, expected 2 or more")
    for argument, value, choices in (("branches", branches, BRANCHES), ("metadata_encoder", metadata_encoder, ENCODERS)):
        if value not in choices:
            problems.append(f"{argument} is {value!r}, expected one of {', '.join(choices)}")
    if shared_encoder and branches != "both":
        problems.append(f"shared_encoder is true, but branches {branches!r} has only one encoder")
    if attention_residual and branches != "both":
        problems.append(f"attention_residual is true, but branches {branches!r} has no attention")
    expected = sum(metadata_fields) + len(metadata_fields)
    if metadata_fields and (min(metadata_fields) < 1 or metadata_width != expected):
        problems.append(
            f"metadata_width is {metadata_width}, but metadata_fields {list(metadata_fields)} make {expected}: the columns of "
            "each field, 1 or more, and one more for each, which tells whether it is known"
        )
    if metadata_encoder == "transformer" and metadata_width and not metadata_fields:
        problems.append(
            "metadata_encoder is 'transformer', which needs the columns of each field: set the metadata's missing to 'mask'"
        )
    if not 0 <= dropout < 1:
        problems.append(f"dropout is {dropout}, expected 0 or more and less than 1")
    if problems:
        raise UserError("The tdbn model cannot be built: " + "; ".join(problems) + ".")

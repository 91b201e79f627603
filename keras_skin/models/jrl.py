"""Joint multi-task learning with joint reverse optimisation (paper 001)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_skin.layers.cbam import CBAM
from keras_skin.layers.classifier import classifier
from keras_skin.layers.conv_block import conv_block, convolution
from keras_skin.layers.reverse_joint_gate import GATES
from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.models.unet import FILTERS, SCALINGS, DecoderLevel, encoder, image_input, mask_head
from keras_skin.models.unet_backbone import FILTERS as BACKBONE_FILTERS
from keras_skin.models.unet_backbone import STRIDES, check_pyramid
from keras_skin.registry import UserError

VARIANTS = ("mtl0", "mtl1", "mtl2", "mtl3")
CBAM_UNITS = 32
ENCODER_5_WIDTH = 128


@register(
    "jrl",
    paper="Al-masni et al., Bioengineering 2024, 11, 1173",
    tiny={"image_size": (32, 32), "filters": (4, 4, 8, 8)},
    published_params=(
        ({"variant": "mtl0"}, 10.76e6),
        ({"variant": "mtl1"}, 10.80e6),
        ({"variant": "mtl2"}, 10.86e6),
        ({"variant": "mtl3"}, 10.90e6),
    ),
    params_tolerance=0.005,
)
def JRL(
    image_size: tuple[int, int] = (192, 256),
    classes: int = 2,
    variant: Literal["mtl0", "mtl1", "mtl2", "mtl3"] = "mtl3",
    gate: Literal["relu", "sigmoid"] = "relu",
    initial_mask: bool = False,
    filters: Sequence[int] | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    scaling: Literal["255", "min_max"] = "255",
) -> keras.Model:
    """A network that segments and classifies a lesion, with connections from each task to the other.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, section 3.4, figure 3 and table 3. The body is that of `unet`. Each
    row of the ablation adds to the previous one:

    - `mtl0`: the deepest encoder level, averaged, feeds dense layers of 128, 64 and 32 units (ReLU) and the classes.
    - `mtl1`: decoder levels 2 and 1, weighted by the predicted mask, are further inputs of the classifier.
    - `mtl2`: encoder level 5 is a further input, and joint reverse learning (equation 2): a second pass through decoder levels 2
      and 1 with the same kernels, in which the classifier's 64 and 32 units weight the inputs of the second convolutions. The
      model returns the mask of the second pass.
    - `mtl3`: CBAM on encoder levels 5 and 6, only for the classifier. (The paper's MTL4 is this model with more data.)

    Args:
        image_size: height and width, multiples of 32 for six levels.
        classes: number of classes, at least 2.
        variant: `"mtl0"` to `"mtl3"`.
        gate: `"relu"` as in the paper, or `"sigmoid"`, which never sets a feature to zero; for mtl2 and mtl3.
        initial_mask: also return the mask of the first pass as output `mask_aux_1`, for a separate loss; for mtl2 and mtl3.
        filters: features of the levels, finest first: at least three for the paper's encoder, by default 32 to 320; five decoder
            levels for a backbone, by default 16 to 256.
        backbone: None is the paper's encoder; else a name of `BACKBONES` with features at strides 2 to 32, which takes the place
            of encoder levels 2 to 6. Decoder level 1 then has no skip connection.
        weights: weights of the backbone: None, `"imagenet"` or a path, see `build_backbone`.
        scaling: of the paper's encoder, see `unet`; a backbone scales the image as its weights expect.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask": (B, H, W, 1), "label": (B, classes)}, float32 logits, and
        with `initial_mask` also `mask_aux_1`, like `mask`. Feature layers: `encoder_1` (finest) to `encoder_6`, `decoder_5` to
        `decoder_1` (in mtl2 and mtl3 the second pass; the first is `initial_decoder_2` and `initial_decoder_1`), `cam_features`
        (the classifier's input from the deepest level, in mtl3 after CBAM). Those of a backbone are `encoder_1` (stride 2) and so
        on, see `build_backbone`.

    Raises:
        UserError: listing all arguments that are out of range.

    Example:

    >>> JRL(image_size=(64, 64), filters=(4, 8, 8), variant="mtl2").output_shape
    {'mask': (None, 64, 64, 1), 'label': (None, 2)}

    **Deviations from the paper**:

    - Those of `unet`.
    - With `backbone`, the encoder is not the paper's, decoder level 1 has no skip connection, and `encoder_1` has stride 2.
    - Classes have softmax logits; for two classes, cross-entropy of the softmax is binary cross-entropy of their difference.
    - Each pass has its own batch normalisation, because shared moving statistics would mix two distributions. The first
      convolution of decoder level 2 has the same input in both passes and is computed once.
    - The paper does not print the widths of the branches into the classifier (32 and 32 from the decoder, 128 from encoder 5) and
      CBAM's 32 hidden units; these meet the five published parameter counts (10.71, 10.76, 10.80, 10.86, 10.90 M).
    - The paper does not report whether the first mask is supervised. By default it is not: the Dice loss reaches it only through
      the classifier and the shared kernels.
    """
    filters = filters or (BACKBONE_FILTERS if backbone else FILTERS)
    _check(classes, variant, gate, initial_mask, filters, backbone, weights, scaling)
    stage = VARIANTS.index(variant)
    image, skips = _encoder(image_size, filters, backbone, weights, scaling)
    levels = {level: DecoderLevel(level, filters[level - 1]) for level in range(len(skips) - 1, 0, -1)}
    head = mask_head()

    # Decoder, first pass. In mtl2 and mtl3 the second pass below has the plain names of levels 2 and 1.
    x = skips[-1]
    for level in range(len(skips) - 1, 2, -1):
        x = levels[level](x, skips[level - 1])
    half = levels[2].first(x, skips[1])
    prefix = "initial_" if stage >= 2 else ""
    decoder_2 = levels[2].second(half, prefix)
    decoder_1 = levels[1](decoder_2, skips[0], prefix)
    mask = head(decoder_1)
    outputs = {}
    if initial_mask:
        outputs["mask_aux_1"] = keras.layers.Identity(name="mask_aux_1", dtype="float32")(mask)

    # Classifier, on pooled features of the encoder's end and of the lesion in the first mask.
    deepest = CBAM(CBAM_UNITS, name="cbam_6")(skips[-1]) if stage >= 3 else skips[-1]
    branches = [_pool(keras.layers.Identity(name="cam_features")(deepest), "cam_features")]
    if stage >= 1:
        lesion = keras.layers.Activation("sigmoid", name="lesion_1")(mask)
        branches.append(_lesion_branch(decoder_1, lesion, filters[0], 1))
        lesion = keras.layers.AveragePooling2D(2, name="lesion_2")(lesion)
        branches.append(_lesion_branch(decoder_2, lesion, filters[0], 2))
    if stage >= 2:
        branches.append(_encoder_5_branch(skips[-2], attention=stage >= 3))
    pooled = keras.layers.Concatenate(name="pooled")(branches) if len(branches) > 1 else branches[0]
    label, units = classifier(pooled, classes, widths=(128, filters[1], filters[0]))

    # Decoder, second pass: joint reverse learning.
    if stage >= 2:
        decoder_2 = levels[2].second(half, units=units[1], gate=gate)
        x = levels[1].first(decoder_2, skips[0])
        mask = head(levels[1].second(x, units=units[2], gate=gate))
    outputs["mask"] = keras.layers.Identity(name="mask", dtype="float32")(mask)
    outputs["label"] = label
    return keras.Model({"image": image}, outputs, name="jrl")


def _encoder(
    image_size: tuple[int, int], filters: Sequence[int], backbone: str | None, weights: str | None, scaling: str
) -> tuple[Any, list[Any]]:
    """Returns the symbolic image and the features of every level, finest first; a backbone has none at the image's size."""
    if backbone is None:
        image = image_input(image_size, filters)
        return image, encoder(image, filters, scaling)
    image = image_input(image_size, STRIDES)
    features = build_backbone(backbone, image, weights)
    return image, [features.levels.get(stride) for stride in STRIDES[:-1]] + [features.deepest]


def _lesion_branch(features: Any, lesion: Any, width: int, level: int) -> Any:
    """Returns the features (B, width) of a decoder level (B, H, W, C) within the lesion (B, H, W, 1)."""
    name = f"lesion_{level}_features"
    x = keras.layers.Multiply(name=f"{name}_masked")([features, lesion])
    return _pool(conv_block(x, convolution(width, name=f"{name}_conv"), name), name)


def _encoder_5_branch(features: Any, attention: bool) -> Any:
    """Returns the features (B, 128) of encoder level 5 (B, H, W, C)."""
    if attention:
        features = CBAM(CBAM_UNITS, name="cbam_5")(features)
    name = "encoder_5_features"
    return _pool(conv_block(features, convolution(ENCODER_5_WIDTH, kernel_size=1, name=f"{name}_conv"), name), name)


def _pool(features: Any, name: str) -> Any:
    return keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")(features)


def _check(
    classes: int,
    variant: str,
    gate: str,
    initial_mask: bool,
    filters: Sequence[int],
    backbone: str | None,
    weights: str | None,
    scaling: str,
) -> None:
    problems = []
    if classes < 2:
        problems.append(f"classes is {classes}, expected 2 or more")
    if variant not in VARIANTS:
        problems.append(f"variant is {variant!r}, expected one of {', '.join(VARIANTS)}")
    if gate not in GATES:
        problems.append(f"gate is {gate!r}, expected one of {', '.join(GATES)}")
    if gate != "relu" and variant in VARIANTS[:2]:
        problems.append(f"gate is {gate!r}, but {variant} has no gate: it is for mtl2 and mtl3")
    if initial_mask and variant in VARIANTS[:2]:
        problems.append(f"initial_mask is true, but {variant} has only one mask: it is for mtl2 and mtl3")
    if backbone is None and len(filters) < 3:
        problems.append(f"filters has {len(filters)} levels, expected at least 3")
    if backbone is None and weights is not None:
        problems.append(f"weights is {weights!r}, but the paper's encoder has no pretrained weights: name a backbone")
    if scaling not in SCALINGS:
        problems.append(f"scaling is {scaling!r}, expected one of {', '.join(SCALINGS)}")
    if backbone is not None and scaling != "255":
        problems.append(f"scaling is {scaling!r}, but the backbone '{backbone}' scales the image itself: remove one of them")
    if problems:
        raise UserError("The jrl model cannot be built: " + "; ".join(problems) + ".")
    if backbone is not None:
        check_pyramid(backbone, filters)

"""The U-Net on any backbone with a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_skin.models import register
from keras_skin.models.backbones import build_backbone, get_backbone
from keras_skin.models.unet import DecoderLevel, image_input, mask_head
from keras_skin.registry import UserError

STRIDES = (1, 2, 4, 8, 16, 32)
FILTERS = (16, 32, 64, 128, 256)


@register(
    "unet_backbone",
    paper="U-Net with an EfficientNet-B3 encoder, peer of Deep-UNet (table 1)",
    tiny={"image_size": (64, 64), "backbone": "resnet18", "filters": (4, 4, 8, 8, 8)},
)
def UNetBackbone(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 2,
    backbone: str = "efficientnet_b3",
    weights: str | None = None,
    filters: Sequence[int] = FILTERS,
) -> keras.Model:
    """U-Net with a backbone as encoder: a mask as the only output.

    Source: Ronneberger et al., MICCAI 2015, with an EfficientNet-B3 encoder as the U-Net of table 1 of the Deep-UNet and TDBN
    paper. Each decoder level doubles the size by a 2x2 transposed convolution, concatenates the encoder's features of that size
    (except at the image's size) and applies two 3x3 convolutions. 12.73 M parameters with EfficientNet-B3.

    Args:
        image_size: height and width, multiples of 32.
        classes: accepted for uniformity with the other builders; a mask has no classes.
        backbone: a name of `BACKBONES` with features at strides 2 to 32.
        weights: weights of the backbone: None, `"imagenet"` or a path, see `build_backbone`.
        filters: features of the five decoder levels, finest first.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask": (B, H, W, 1) float32 logits}. Feature layers: `encoder_1`
        (stride 2) to `encoder_5` (stride 32), `cam_features`, an alias of it, and `decoder_5` (stride 16) to `decoder_1`.

    Raises:
        UserError: if an argument is out of range, or the weights are not available.

    Example:

    >>> UNetBackbone(image_size=(64, 64), backbone="mobilenet_v2").output_shape
    (None, 64, 64, 1)

    **Deviations from the paper**: the paper names only the encoder. The decoder's widths, 256 to 16, are those of the common
    implementation; the learnt upsampling is that of this package's U-Net. The paper's table prints a size of 200.44 (MB, probably
    weights and activations of one image), which does not determine the number of parameters.
    """
    check_pyramid(backbone, filters)
    image = image_input(image_size, STRIDES)
    levels = build_backbone(backbone, image, weights).levels
    x = keras.layers.Identity(name="cam_features")(levels[32])
    for level in range(len(filters), 0, -1):
        x = DecoderLevel(level, filters[level - 1])(x, levels.get(STRIDES[level - 1]))
    return mask_model(image, mask_head()(x), "unet_backbone")


def check_pyramid(backbone: str, filters: Sequence[int]) -> None:
    """Raises a UserError if the backbone lacks a level, or a decoder level its width."""
    problems = []
    missing = [str(stride) for stride in STRIDES[1:] if stride not in get_backbone(backbone).strides]
    if missing:
        problems.append(f"backbone '{backbone}' has no features at strides {', '.join(missing)}")
    if len(filters) != len(FILTERS):
        problems.append(f"filters has {len(filters)} numbers, expected {len(FILTERS)}, one for each decoder level")
    if problems:
        raise UserError("The model cannot be built: " + "; ".join(problems) + ".")


def mask_model(image: Any, logits: Any, name: str) -> keras.Model:
    """Returns the model from an image to mask logits (B, H, W, 1)."""
    return keras.Model({"image": image}, {"mask": keras.layers.Identity(name="mask", dtype="float32")(logits)}, name=name)

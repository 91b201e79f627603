"""U-Net++ on any backbone with a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.models.unet import DecoderLevel, image_input, mask_head
from keras_skin.models.unet_backbone import FILTERS, STRIDES, check_pyramid, mask_model


@register(
    "unetpp",
    paper="U-Net++ with an EfficientNet-B3 encoder, peer of Deep-UNet (table 1)",
    tiny={"image_size": (64, 64), "backbone": "resnet18", "filters": (4, 4, 8, 8, 8)},
)
def UNetPP(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 2,
    backbone: str = "efficientnet_b3",
    weights: str | None = None,
    filters: Sequence[int] = FILTERS,
) -> keras.Model:
    """U-Net with nested, dense skip connections: a mask as the only output.

    Source: Zhou et al., DLMIA 2018, figure 1 and equation 1, with an EfficientNet-B3 encoder as the U-Net++ of table 1 of the
    Deep-UNet and TDBN paper. Node (i, j) takes all nodes (i, 0) to (i, j - 1) of its level and the upsampled node (i + 1, j - 1);
    node (i, 0) is the encoder's. 13.81 M parameters with EfficientNet-B3.

    Args:
        image_size: height and width, multiples of 32.
        classes: accepted for uniformity with the other builders; a mask has no classes.
        backbone: a name of `BACKBONES` with features at strides 2 to 32.
        weights: weights of the backbone: None, `"imagenet"` or a path, see `build_backbone`.
        filters: features of the five decoder levels, finest first, the same for all nodes of a level.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask": (B, H, W, 1) float32 logits}. Feature layers: `encoder_1`
        (stride 2) to `encoder_5` (stride 32), `cam_features`, an alias of it, and `decoder_5` (stride 16) to `decoder_1`, the
        last nodes of their levels.

    Raises:
        UserError: if an argument is out of range, or the weights are not available.

    Example:

    >>> UNetPP(image_size=(64, 64), backbone="mobilenet_v2").output_shape
    (None, 64, 64, 1)

    **Deviations from the paper**: the backbone has no features at the image's size, so the nested levels have strides 2 to 32.
    One plain level upsamples their result. No deep supervision, as in table 1; widths as in `unet_backbone`.
    """
    check_pyramid(backbone, filters)
    image = image_input(image_size, STRIDES)
    levels = build_backbone(backbone, image, weights).levels
    deepest = keras.layers.Identity(name="cam_features")(levels[32])
    # Nodes (i, 0), (i, 1) and so on; level i has stride 2 ** (i - 1), and is decoder level i.
    nodes: dict[int, list[Any]] = {level: [levels[STRIDES[level - 1]]] for level in range(2, 6)} | {6: [deepest]}
    for column in range(1, 5):
        for level in range(2, 7 - column):
            last = column == 6 - level
            decoder = DecoderLevel(level if last else f"{level}_node_{column}", filters[level - 1])
            nodes[level].append(decoder(nodes[level + 1][column - 1], _joined(nodes[level], decoder.name)))
    x = DecoderLevel(1, filters[0])(nodes[2][-1], None)
    return mask_model(image, mask_head()(x), "unetpp")


def _joined(tensors: list[Any], name: str) -> Any:
    return keras.layers.Concatenate(name=f"{name}_dense")(tensors) if len(tensors) > 1 else tensors[0]

"""Auxiliary super-resolution: the decoder from an encoder's features to an image of twice the input's size."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_skin.layers.conv_block import conv_block

WIDTHS = (256, 128, 64, 32, 16)
LAYERS = len(WIDTHS) + 1


def super_resolution_decoder(features: Any, image_size: tuple[int, int], name: str = "super_resolution") -> Any:
    """Decodes features of stride 32 to an image of twice the input's size by six transposed convolutions: 7 . 2^6 = 448.

    Source: Khurshid et al., Sci. Rep. 2025 (DualRefNet), "Auxiliary task: super-resolution". For finer features (stride 16 of a
    vision transformer), the first layers have stride 1.

    Args:
        features: symbolic tensor (B, h, w, C).
        image_size: height and width of the model's input, 2^5 h and 2^5 w or less, by the same power of two.
        name: prefix of the layers.

    Returns:
        Symbolic tensor (B, 2 H, 2 W, 3), float32 in [0, 1] (sigmoid).

    Raises:
        ValueError: if no power of two leads from the features to twice the image.

    **Deviations from the paper**: the paper prints neither widths nor kernels. These are five layers of 256 to 16 channels with
    batch normalisation and ReLU, and 4x4 kernels, a multiple of the stride, which covers all pixels equally (no checkerboard).
    """
    doublings = _doublings(tuple(features.shape[1:3]), image_size)
    x = features
    for number, width in enumerate(WIDTHS, start=1):
        strides = 2 if number > LAYERS - doublings else 1
        layer = keras.layers.Conv2DTranspose(
            width,
            4 if strides == 2 else 3,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_{number}_conv",
        )
        x = conv_block(x, layer, f"{name}_{number}")
    return keras.layers.Conv2DTranspose(
        3, 4, strides=2, padding="same", activation="sigmoid", dtype="float32", name=f"{name}_{LAYERS}"
    )(x)


def _doublings(size: tuple[int, int], image_size: tuple[int, int]) -> int:
    doublings = round(math.log2(2 * image_size[0] / size[0]))
    if not 1 <= doublings <= LAYERS or any(
        small * 2**doublings != 2 * large for small, large in zip(size, image_size, strict=True)
    ):
        raise ValueError(
            f"image_size is {image_size[0]}x{image_size[1]} and the backbone's features have {size[0]}x{size[1]} positions. No "
            f"power of two leads from these to {2 * image_size[0]}x{2 * image_size[1]}. Use multiples of 32, such as 224x224."
        )
    return doublings

"""Multi-scale feature aggregation: one feature map averaged at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_skin.layers.conv_block import conv_block, convolution

SCALES = (4, 8, 16)
POOLINGS = ("window", "grid")
BOTTLENECK = 128


def multi_scale_aggregation(
    inputs: Any,
    scales: Sequence[int] = SCALES,
    bottleneck: int = BOTTLENECK,
    pooling: Literal["window", "grid"] = "window",
    name: str = "multi_scale",
) -> Any:
    """Averages a feature map at each scale, concatenates the results and projects them to the map's channels.

    Source: paper 003 (multi-scale ResNet18 on HAM10000), section III-C, equation 1 and figure 2:
    F_MSFA = W_1x1 * Concat(AvgPool_k(F)) for k in 4, 8, 16.

    With `pooling` `"window"` a scale is the side of a window, as in equation 1. The windows move by one position and are clipped
    at the border of the map, not filled with zeros. So on ResNet18's 7x7 map of a 224x224 image, the window of 16 is the mean of
    the whole map.

    With `"grid"` a scale is the side of a grid: the map is averaged to 4x4, 8x8 and 16x16 cells (adaptive pooling), which are
    resized to the size of the map. So 4 is coarse and 16 fine, the order of figure 2. Cells of a grid that is finer than the map
    overlap, so 16x16 hardly changes a 7x7 map.

    The projection is a bottleneck, C * len(scales) -> `bottleneck` -> C. A single 1x1 convolution from 1536 to 512 channels
    would have 0.79 M parameters; the paper prints "< 0.3 M" for the module and about 11.5 M for the whole network, and its
    figure 2 calls the convolution a bottleneck. 1536 -> 128 -> 512 has 0.26 M and meets both numbers.

    Args:
        inputs: symbolic tensor (B, H, W, C).
        scales: sides of the square windows, in positions of the map, or of the grids, in cells.
        bottleneck: channels between the two 1x1 convolutions.
        pooling: what a scale is.
        name: prefix of the layers, and name of the last one.

    Returns:
        Symbolic tensor (B, H, W, C), not negative.

    Raises:
        ValueError: if there is no scale, a scale or the bottleneck is not positive, or the pooling is unknown.

    **Deviations from the paper**:

    - Stride 1 and clipped windows: equation 1 omits stride and padding. With the usual stride of k, the three maps would differ
      in size, and most libraries refuse a window that is larger than the map. Figure 2 calls 4, 8 and 16 coarse, intermediate
      and fine, which fits grids and not windows.
    - Batch normalisation and ReLU after each 1x1 convolution: equation 1 is linear, and a linear module before the global average
      pooling would only reweight the map's positions.
    """
    if not scales or min(scales) < 1 or bottleneck < 1:
        raise ValueError(f"scales and bottleneck must be positive; they are {list(scales)} and {bottleneck}.")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}.")
    average = _window if pooling == "window" else _grid
    x = keras.layers.Concatenate(name=f"{name}_scales")([average(inputs, scale, f"{name}_{pooling}_{scale}") for scale in scales])
    x = conv_block(x, convolution(bottleneck, kernel_size=1, name=f"{name}_reduce_conv"), f"{name}_reduce")
    return conv_block(x, convolution(inputs.shape[-1], kernel_size=1, name=f"{name}_conv"), name)


def _window(inputs: Any, side: int, name: str) -> Any:
    # With padding "same", Keras' average is over the positions inside the map on every backend.
    return keras.layers.AveragePooling2D(side, strides=1, padding="same", name=name)(inputs)


def _grid(inputs: Any, side: int, name: str) -> Any:
    _, height, width, _ = inputs.shape
    cells = keras.layers.AdaptiveAveragePooling2D(side, name=f"{name}_cells")(inputs)
    return keras.layers.Resizing(height, width, interpolation="bilinear", name=name)(cells)

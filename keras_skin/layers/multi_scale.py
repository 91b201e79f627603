"""Multi-scale feature aggregation: one feature map averaged over windows of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_skin.layers.conv_block import conv_block, convolution

WINDOWS = (4, 8, 16)
BOTTLENECK = 128


def multi_scale_aggregation(
    inputs: Any, windows: Sequence[int] = WINDOWS, bottleneck: int = BOTTLENECK, name: str = "multi_scale"
) -> Any:
    """Averages a feature map over each window size, concatenates the results and projects them to the map's channels.

    Source: paper 003 (multi-scale ResNet18 on HAM10000), section III-C, equation 1 and figure 2:
    F_MSFA = W_1x1 * Concat(AvgPool_k(F)) for k in 4, 8, 16.

    The windows move by one position and are clipped at the border of the map, not filled with zeros. So on ResNet18's 7x7 map of
    a 224x224 image, the window of 16 is the mean of the whole map.

    The projection is a bottleneck, C * len(windows) -> `bottleneck` -> C. A single 1x1 convolution from 1536 to 512 channels
    would have 0.79 M parameters; the paper prints "< 0.3 M" for the module and about 11.5 M for the whole network, and its
    figure 2 calls the convolution a bottleneck. 1536 -> 128 -> 512 has 0.26 M and meets both numbers.

    Args:
        inputs: symbolic tensor (B, H, W, C).
        windows: sides of the square windows, in positions of the map.
        bottleneck: channels between the two 1x1 convolutions.
        name: prefix of the layers, and name of the last one.

    Returns:
        Symbolic tensor (B, H, W, C), not negative.

    Raises:
        ValueError: if there is no window, or a window or the bottleneck is not positive.

    **Deviations from the paper**:

    - Stride 1 and clipped windows: equation 1 omits stride and padding. With the usual stride of k, the three maps would differ
      in size, and most libraries refuse a window that is larger than the map.
    - Batch normalisation and ReLU after each 1x1 convolution: equation 1 is linear, and a linear module before the global average
      pooling would only reweight the map's positions.
    """
    if not windows or min(windows) < 1 or bottleneck < 1:
        raise ValueError(f"windows and bottleneck must be positive; they are {list(windows)} and {bottleneck}.")
    # With padding "same", Keras' average is over the positions inside the map on every backend.
    scales = [
        keras.layers.AveragePooling2D(window, strides=1, padding="same", name=f"{name}_window_{window}")(inputs)
        for window in windows
    ]
    x = keras.layers.Concatenate(name=f"{name}_windows")(scales)
    x = conv_block(x, convolution(bottleneck, kernel_size=1, name=f"{name}_reduce_conv"), f"{name}_reduce")
    return conv_block(x, convolution(inputs.shape[-1], kernel_size=1, name=f"{name}_conv"), name)

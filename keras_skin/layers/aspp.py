"""Atrous spatial pyramid pooling: convolutions of one feature map with several dilations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_skin.layers.conv_block import conv_block, convolution

DILATIONS = (1, 2, 3)


def atrous_spatial_pyramid(inputs: Any, features: int, dilations: Sequence[int] = DILATIONS, name: str = "aspp") -> Any:
    """Applies a 1x1 and dilated 3x3 convolutions to the same features, concatenates the results and fuses them by a 1x1 one.

    Source: Chen et al., DeepLab, 2017, figure 7, with the dilations of Atiq and Fattah (paper 002), section 4.1.1. Every
    convolution is followed by batch normalisation and ReLU. With dilations 1, 2 and 3 the windows are 3, 5 and 7 positions wide,
    up to the width of the 7x7 map. As in that paper there is no pooled branch, unlike in keras-cv's SpatialPyramidPooling.

    Args:
        inputs: symbolic tensor (B, H, W, C).
        features: channels of each branch and of the result.
        dilations: distances of the kernels' taps, in positions of the map; distinct.
        name: prefix of the layers, and name of the last one.

    Returns:
        Symbolic tensor (B, H, W, features), not negative.

    Raises:
        ValueError: if there is no dilation, or the dilations are not positive and distinct.
    """
    if not dilations or min(dilations) < 1 or len(set(dilations)) < len(dilations):
        raise ValueError(f"dilations must be positive and distinct; they are {list(dilations)}.")
    branches = [conv_block(inputs, convolution(features, kernel_size=1, name=f"{name}_point_conv"), f"{name}_point")]
    for rate in dilations:
        branch = f"{name}_dilation_{rate}"
        branches.append(conv_block(inputs, convolution(features, dilation=rate, name=f"{branch}_conv"), branch))
    x = keras.layers.Concatenate(name=f"{name}_branches")(branches)
    return conv_block(x, convolution(features, kernel_size=1, name=f"{name}_conv"), name)

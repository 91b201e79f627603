"""Atrous spatial pyramid pooling: one feature map seen at several distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_skin.layers.conv_block import conv_block, convolution

DILATIONS = (1, 2, 3)


def atrous_spatial_pyramid(inputs: Any, features: int, dilations: Sequence[int] = DILATIONS, name: str = "aspp") -> Any:
    """A 1x1 convolution and dilated 3x3 convolutions of the same features, concatenated and fused by a 1x1 convolution.

    Source: Chen et al., DeepLab, 2017, figure 7, with the dilations of Atiq and Fattah (paper 002), section 4.1.1. Every
    convolution is followed by batch normalisation and ReLU. With dilations 1, 2 and 3 the windows are 3, 5 and 7 positions wide:
    as wide as the 7x7 map that they are for. That paper names no pooled branch and there is none here, which is why it is not
    keras-cv's SpatialPyramidPooling.

    Args:
        inputs: symbolic tensor (B, H, W, C).
        features: channels of each branch and of the result.
        dilations: distances of the kernels' taps, in positions of the map; distinct.
        name: prefix of the layers, and name of the last one.

    Returns:
        Symbolic tensor (B, H, W, features), not negative.

    Raises:
        ValueError: if there is no dilation, or if one is not positive or is given twice.
    """
    if not dilations or min(dilations) < 1 or len(set(dilations)) < len(dilations):
        raise ValueError(f"dilations must be positive and distinct; they are {list(dilations)}.")
    branches = [conv_block(inputs, convolution(features, kernel_size=1, name=f"{name}_point_conv"), f"{name}_point")]
    for rate in dilations:
        branch = f"{name}_dilation_{rate}"
        branches.append(conv_block(inputs, convolution(features, dilation=rate, name=f"{branch}_conv"), branch))
    x = keras.layers.Concatenate(name=f"{name}_branches")(branches)
    return conv_block(x, convolution(features, kernel_size=1, name=f"{name}_conv"), name)

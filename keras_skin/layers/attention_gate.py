"""The depthwise attention gate of a skip connection."""

from __future__ import annotations

from typing import Any

import keras

from keras_skin.layers.conv_block import conv_block, convolution
from keras_skin.layers.depthwise_separable import separable_convolution

REDUCTION = 4


def depthwise_attention_gate(skip: Any, name: str) -> Any:
    """Refines an encoder's features and weights them by a mask computed from them.

    Source: Atiq and Fattah (paper 002), section 4.1.1, "Depthwise Attention Gated (DAG) blocks": a depthwise separable 3x3
    convolution with batch normalisation and ReLU; a small convolutional network with sigmoid computes the mask from the result;
    their product goes to the decoder.

    Args:
        skip: symbolic tensor (B, H, W, C), features of the encoder.
        name: prefix of the layers, and name of the last one; `<name>_mask` is the mask (B, H, W, 1) in 0..1.

    Returns:
        Symbolic tensor (B, H, W, C), not negative.

    **Deviations from the paper**: the paper prints no sizes. The small network is a 3x3 convolution to a quarter of the channels,
    batch normalisation, ReLU, and a 1x1 convolution. One mask serves all channels, because it separates lesion and background. As
    in the paper's text, and unlike in Attention U-Net, the mask depends on the encoder's features alone.
    """
    channels = skip.shape[-1]
    features = conv_block(skip, separable_convolution(channels, name=f"{name}_features_conv"), f"{name}_features")
    hidden = convolution(max(1, channels // REDUCTION), name=f"{name}_hidden_conv")
    logits = keras.layers.Conv2D(1, 1, name=f"{name}_logits")(conv_block(features, hidden, f"{name}_hidden"))
    mask = keras.layers.Activation("sigmoid", name=f"{name}_mask")(logits)
    return keras.layers.Multiply(name=name)([features, mask])

"""Convolution, batch normalisation and ReLU: the block of encoders, decoders and classifier branches."""

from __future__ import annotations

from typing import Any

import keras

from keras_skin.layers.batch_normalization import BatchNormalization

# Shorter than the default of Keras (0.99), so that validation after a few hundred steps has no statistics of the initial weights.
MOMENTUM = 0.9


def convolution(
    features: int, kernel_size: int = 3, strides: int = 1, name: str | None = None, dilation: int = 1
) -> keras.layers.Conv2D:
    """Returns a "same" convolution without bias, for use before a batch normalisation.

    Args:
        features: number of output channels.
        kernel_size: side of the square kernel.
        strides: 1, or 2 to halve height and width.
        name: name of the layer.
        dilation: distance of the kernel's taps, in positions.
    """
    return keras.layers.Conv2D(
        features,
        kernel_size,
        strides=strides,
        padding="same",
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


def conv_block(inputs: Any, convolution: keras.layers.Conv2D, name: str) -> Any:
    """Applies a convolution, a new batch normalisation and ReLU.

    The convolution is a layer, so that two passes can share a kernel and have separate statistics.

    Args:
        inputs: symbolic tensor (B, H, W, C).
        convolution: the layer from `convolution`.
        name: name of the last layer, whose output is the returned tensor; the normalisation is called `<name>_norm`.

    Returns:
        Symbolic tensor (B, H / strides, W / strides, features), not negative.
    """
    x = convolution(inputs)
    x = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=name)(x)

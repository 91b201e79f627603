"""The depthwise separable convolution, for use before a batch normalisation."""

from __future__ import annotations

import keras


def separable_convolution(features: int, kernel_size: int = 3, name: str | None = None) -> keras.layers.SeparableConv2D:
    """Returns a "same" convolution of each channel, followed by a 1x1 convolution over the channels; without bias.

    Source: Howard et al., MobileNets, 2017, section 3.1, without the normalisation between the two steps. C input channels have
    `kernel_size` ** 2 * C + C * `features` weights; a full convolution has `kernel_size` ** 2 * C * `features`.

    Args:
        features: number of output channels.
        kernel_size: side of the square kernel.
        name: name of the layer.
    """
    # he_normal would be far too small: Keras counts all channels as inputs of the depthwise kernel, but each output has one.
    # There is no ReLU between the two steps, so 1 / kernel_size preserves the variance.
    return keras.layers.SeparableConv2D(
        features,
        kernel_size,
        padding="same",
        use_bias=False,
        depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / kernel_size),
        pointwise_initializer="he_normal",
        name=name,
    )

"""The depthwise separable convolution, for use in front of a batch normalisation."""

from __future__ import annotations

import keras


def separable_convolution(features: int, kernel_size: int = 3, name: str | None = None) -> keras.layers.SeparableConv2D:
    """A "same" convolution of every channel by itself, then a 1x1 convolution that mixes them; without bias.

    Source: Howard et al., MobileNets, 2017, section 3.1, without the normalisation between the two steps. C input channels take
    `kernel_size` ** 2 * C + C * `features` weights, where a full convolution takes `kernel_size` ** 2 * C * `features`.

    Args:
        features: number of output channels.
        kernel_size: side of the square kernel.
        name: name of the layer.
    """
    # Keras counts all channels as the depthwise kernel's inputs, though each output sees one: he_normal would be far too small.
    # Nothing is cut off between the two steps, so that 1 / kernel_size keeps the variance.
    return keras.layers.SeparableConv2D(
        features,
        kernel_size,
        padding="same",
        use_bias=False,
        depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / kernel_size),
        pointwise_initializer="he_normal",
        name=name,
    )

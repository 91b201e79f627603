"""Self-attention within windows of a feature map, plain or shifted, as in Swin."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_BLOCKED = -100.0
"""Added to the attention logits of two positions of one window that are not neighbours in the image."""


@keras.saving.register_keras_serializable(package="keras_skin")
class WindowAttention(keras.layers.Layer):
    """Lets the positions of every window of a feature map attend to one another, with a learnt bias per relative position.

    Source: Liu et al., "Swin Transformer", ICCV 2021, section 3.2 and equation 4. With a shift, windows are moved by `shift`
    positions; parts of a moved window that lie at opposite borders do not see each other. A map whose size is not a multiple
    of the window is padded, and nothing attends to the padding. A map that fits into one window is not shifted.

    Args:
        heads: number of attention heads; divides the number of channels.
        window: height and width of a window.
        shift: how far windows are moved down and to the right, 0 for none.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: features (B, H, W, C), H and W fixed.

    Returns:
        Features (B, H, W, C).

    Example:

    >>> WindowAttention(heads=2, window=4, shift=2)(keras.ops.ones((1, 8, 8, 6))).shape
    TensorShape([1, 8, 8, 6])
    """

    def __init__(self, heads: int, window: int = 7, shift: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.window, self.shift = heads, window, shift

    def build(self, input_shape: Any) -> None:
        """Creates the projections and the biases; raises a ValueError if the heads do not divide the channels."""
        _, height, width, channels = input_shape
        if channels % self.heads:
            raise ValueError(f"{channels} channels cannot be divided among {self.heads} heads.")
        window = self.window
        self.padding = (-height % window, -width % window)
        self.rows, self.columns = ((size + pad) // window for size, pad in zip((height, width), self.padding, strict=True))
        self.moved = self.shift if min(height, width) > window else 0
        self.positions, self.barrier = _relative_positions(window), self._barrier(height, width)
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        self.bias = self.add_weight(((2 * window - 1) ** 2, self.heads), initializer=normal, name="bias")
        self.qkv = keras.layers.Dense(3 * channels, dtype=self.dtype_policy, name="qkv")
        self.qkv.build((None, channels))
        self.projection = keras.layers.Dense(channels, dtype=self.dtype_policy, name="projection")
        self.projection.build((None, channels))

    def call(self, inputs: Any) -> Any:
        """Returns features (B, H, W, C)."""
        _, height, width, channels = inputs.shape
        window, area, depth = self.window, self.window**2, channels // self.heads
        x = ops.pad(inputs, ((0, 0), (0, self.padding[0]), (0, self.padding[1]), (0, 0))) if any(self.padding) else inputs
        x = ops.roll(x, (-self.moved, -self.moved), axis=(1, 2)) if self.moved else x
        x = ops.transpose(ops.reshape(x, (-1, self.rows, window, self.columns, window, channels)), (0, 1, 3, 2, 4, 5))
        qkv = ops.reshape(self.qkv(x), (-1, self.rows * self.columns, area, 3, self.heads, depth))
        query, key, value = ops.unstack(ops.transpose(qkv, (3, 0, 1, 4, 2, 5)), axis=0)
        logits = ops.matmul(query * depth**-0.5, ops.swapaxes(key, -1, -2))
        bias = ops.transpose(ops.take(self.bias, self.positions, axis=0), (2, 0, 1))
        logits = ops.cast(logits, "float32") + ops.cast(bias, "float32")
        if self.barrier is not None:
            logits += self.barrier[:, None]
        x = ops.matmul(ops.cast(ops.softmax(logits), value.dtype), value)
        x = self.projection(ops.reshape(ops.swapaxes(x, 2, 3), (-1, self.rows, self.columns, window, window, channels)))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, self.rows * window, self.columns * window, channels))
        x = ops.roll(x, (self.moved, self.moved), axis=(1, 2)) if self.moved else x
        return x[:, :height, :width] if any(self.padding) else x

    def _barrier(self, height: int, width: int) -> np.ndarray | None:
        """What is added to the logits (windows, area, area); None if all positions of every window see each other."""
        rows, columns = (
            _regions(size, pad, self.window, self.moved) for size, pad in zip((height, width), self.padding, strict=True)
        )
        regions = rows[:, None] * 10 + columns
        regions = regions.reshape(self.rows, self.window, self.columns, self.window).transpose(0, 2, 1, 3)
        regions = regions.reshape(self.rows * self.columns, -1)
        blocked = regions[:, :, None] != regions[:, None]
        return np.where(blocked, _BLOCKED, 0).astype("float32") if blocked.any() else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "heads": self.heads, "window": self.window, "shift": self.shift}


def _regions(size: int, padding: int, window: int, moved: int) -> np.ndarray:
    """The number of the region of each position along one axis after the move; only positions of one region see each other."""
    regions = np.zeros(size + padding, int)
    regions[size:] = 3
    regions = np.roll(regions, -moved)
    if moved:
        regions[-window:-moved] += 1
        regions[-moved:] += 2
    return regions


def _relative_positions(window: int) -> np.ndarray:
    """(area, area): row of the bias table for every pair of positions of a window."""
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    distances = places[:, :, None] - places[:, None] + window - 1
    return distances[0] * (2 * window - 1) + distances[1]

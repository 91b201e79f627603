"""Contrast-limited adaptive histogram equalisation, in pure TensorFlow and with OpenCV's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_skin.data.images.preprocess import register
from keras_skin.data.images.preprocess.lab import lab_to_rgb, rgb_to_lab
from keras_skin.registry import UserError

_LEVELS = 256


@register("clahe")
@dataclass(frozen=True)
class Clahe:
    """Contrast-limited adaptive histogram equalisation of the lightness; colours keep their hue.

    Rounds the image to 8 bits, takes it to CIE L*a*b* (sRGB, D65), equalises L and goes back: as OpenCV's `createCLAHE` does on
    the first channel of `COLOR_RGB2LAB`, with the same integer arithmetic, so that its result is OpenCV's to the level (one level
    of L may differ where the interpolation falls on a half).

    Reference: Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994, section VIII.5.

    **Deviations from the paper:** those of OpenCV. What is clipped off a histogram is handed out once, the remainder to every
    n-th level, and not until no level exceeds the limit; where the tiles do not divide the image, it is continued by reflection.

    Args:
        clip_limit: bound on the slope of the grey-level mapping before the clipped counts are handed out, above 0; 1 hardly
            changes an image, large values equalise fully.
        tiles: (down, across) number of tiles, at least 1 each.

    Call arguments: an image (H, W, 3) float32 in 0..255, each side longer than the number of tiles along it. Returns the same
    shape and range.
    """

    clip_limit: float = 2.0
    tiles: tuple[int, int] = (8, 8)

    def __post_init__(self) -> None:
        problems = []
        if isinstance(self.clip_limit, bool) or not isinstance(self.clip_limit, int | float) or not self.clip_limit > 0:
            problems.append(f"preprocessing 'clahe': clip_limit is {self.clip_limit!r}, expected a number above 0.")
        whole = isinstance(self.tiles, tuple | list) and all(type(number) is int and number > 0 for number in self.tiles)
        if not whole or len(self.tiles) != 2:
            problems.append(
                f"preprocessing 'clahe': tiles is {self.tiles!r}, expected two whole numbers from 1 on: [down, across]."
            )
        if problems:
            raise UserError("\n".join(problems))
        object.__setattr__(self, "tiles", tuple(self.tiles))

    def __call__(self, image: tf.Tensor) -> tf.Tensor:
        lightness, a, b = rgb_to_lab(image)
        return lab_to_rgb(self.equalise(lightness), a, b)

    def equalise(self, grey: tf.Tensor) -> tf.Tensor:
        """Equalises one channel, (H, W) int32 in 0..255; returns the same."""
        shape = tf.shape(grey)
        padding = -shape % self.tiles
        # OpenCV pads both ways if it pads at all
        padding = tf.where(tf.reduce_any(padding > 0), tf.where(padding > 0, padding, self.tiles), 0)
        padded = tf.pad(grey, tf.stack([tf.zeros(2, tf.int32), padding], axis=-1), "REFLECT")
        tile = (shape + padding) // self.tiles  # (height, width)
        mappings = self._mappings(_histograms(padded, tile, self.tiles), tile[0] * tile[1])
        return _interpolate(grey, mappings, tile, self.tiles)

    def _mappings(self, histograms: tf.Tensor, area: tf.Tensor) -> tf.Tensor:
        """(tiles, 256) float32: the level that each tile maps each level to."""
        whole = tf.cast(area, tf.float64)
        limit = tf.maximum(tf.cast(tf.minimum(self.clip_limit * whole / _LEVELS, whole), tf.int32), 1)
        clipped = tf.reduce_sum(tf.maximum(histograms - limit, 0), axis=-1, keepdims=True)
        rest = clipped % _LEVELS
        step = tf.maximum(_LEVELS // tf.maximum(rest, 1), 1)
        level = tf.range(_LEVELS)
        one_more = (level % step == 0) & (level // step < rest)
        counts = tf.minimum(histograms, limit) + clipped // _LEVELS + tf.cast(one_more, tf.int32)
        scale = tf.cast(_LEVELS - 1, tf.float32) / tf.cast(area, tf.float32)
        return tf.minimum(tf.round(tf.cast(tf.cumsum(counts, axis=-1), tf.float32) * scale), _LEVELS - 1.0)


def _histograms(grey: tf.Tensor, tile: tf.Tensor, tiles: tuple[int, int]) -> tf.Tensor:
    """(tiles, 256) int32 of a channel whose sides are multiples of the tiles'."""
    down, across = tiles
    parts = tf.reshape(grey, (down, tile[0], across, tile[1]))
    number = tf.reshape(tf.range(down * across), (down, 1, across, 1))
    bins = tf.reshape(number * _LEVELS + parts, [-1])
    counts = tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, down * across * _LEVELS)  # LiteRT has no bincount
    return tf.reshape(counts, (down * across, _LEVELS))


def _interpolate(grey: tf.Tensor, mappings: tf.Tensor, tile: tf.Tensor, tiles: tuple[int, int]) -> tf.Tensor:
    """Maps each pixel by the four tiles whose centres lie around it, weighted bilinearly."""

    def around(axis: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        place = tf.range(tf.shape(grey)[axis], dtype=tf.float32) * (1.0 / tf.cast(tile[axis], tf.float32)) - 0.5
        before = tf.floor(place)
        first = tf.cast(before, tf.int32)
        return tf.maximum(first, 0), tf.minimum(first + 1, tiles[axis] - 1), place - before

    (above, below, down), (left, right, across) = around(0), around(1)
    table = tf.reshape(mappings, [-1])

    def mapped(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather(table, (row[:, tf.newaxis] * tiles[1] + column) * _LEVELS + grey)

    upper = mapped(above, left) * (1.0 - across) + mapped(above, right) * across
    lower = mapped(below, left) * (1.0 - across) + mapped(below, right) * across
    down = down[:, tf.newaxis]
    return tf.cast(tf.clip_by_value(tf.round(upper * (1.0 - down) + lower * down), 0.0, _LEVELS - 1.0), tf.int32)

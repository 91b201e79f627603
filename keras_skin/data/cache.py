"""Decoded images, kept so that a file is decoded once and not once per epoch."""

from __future__ import annotations

import threading

import numpy as np
import tensorflow as tf

from keras_skin.data.numpy_calls import numpy_call
from keras_skin.data.samples import Samples, fit_mask, numpy_pair

MEMORY_CACHE_BYTES = 4 * 2**30
"""The memory cache stops taking in images when it holds this much."""


class MemoryCache:
    """Decoded images of a table in memory, taken in as they are first asked for, until there is no room left.

    Args:
        samples: where they come from.
        fit: keep masks at the size of their images; False where they are to reach the model's size in one step.
    """

    def __init__(self, samples: Samples, fit: bool) -> None:
        self._samples = samples
        self._fit = fit
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def decode(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Samples.decode`."""
        kept = tf.ensure_shape(numpy_call(lambda number: int(number) in self._kept, [row], tf.bool, stateful=True), ())
        return tf.cond(
            kept,
            lambda: numpy_pair(lambda number: self._kept[int(number)], row),
            lambda: numpy_pair(self._keep, *self._samples.decode(row), row),
        )

    def _keep(self, image: np.ndarray, mask: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._fit:
            image, mask = fit_mask(image, mask)
        with self._lock:
            if int(row) not in self._kept and self._bytes + image.nbytes + mask.nbytes <= MEMORY_CACHE_BYTES:
                self._kept[int(row)] = (image.copy(), mask.copy())
                self._bytes += image.nbytes + mask.nbytes
        return image, mask

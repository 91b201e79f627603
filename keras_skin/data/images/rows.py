"""Images of a table's rows inside tf.data: from the image store, or decoded each time where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_skin.data.images.load import Preprocessing, load_image, load_mask
from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.data.images.store import ImageStore

Change = Callable[..., tuple[np.ndarray, np.ndarray]]
"""From images (B, H, W, 3), masks (B, H, W), both uint8, and further arrays to images and masks of the same shapes."""


class ImageRows(Protocol):
    """Images and masks of the rows of a table, at the model's size."""

    def batch(
        self, rows: tf.Tensor, change: Change | None = None, arguments: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and masks of some rows, changed by a NumPy function in one call for the whole batch.

        Args:
            rows: (B,) int64, rows of the table.
            change: see `Change`; None leaves the images as they are.
            arguments: (B, ...) tensors that are passed on to `change`.

        Returns:
            images: (B, H, W, 3) uint8.
            masks: (B, H, W) uint8 of 0 and 1; (B, 0, 0) where no masks are asked for.
        """

    def touch(self) -> None:
        """Records that the images are in use."""


def image_rows(
    store: ImageStore | None,
    images: Sequence[str],
    masks: Sequence[str] | None,
    size: tuple[int, int],
    preprocessing: Sequence[Preprocessing],
) -> ImageRows:
    """The images of a table's rows: from the store where it holds all of them.

    Args:
        store: the image store, opened for this size and preprocessing; None decodes.
        images: image file of each row.
        masks: mask file of each row; None where no masks are needed.
        size: (height, width) of the model's image.
        preprocessing: operations between resizing and the model.
    """
    places = store.places(images, masks) if store is not None else None
    if store is None or places is None:
        return DecodedRows(images, masks, size, preprocessing)
    return StoredRows(store, places, size, masks is not None)


class StoredRows:
    """Rows of an image store. One Python call gathers a batch and changes it."""

    def __init__(self, store: ImageStore, places: np.ndarray, size: tuple[int, int], masks: bool) -> None:
        self._store = store
        self._places = places
        self._size = size
        self._masks = masks

    def batch(
        self, rows: tf.Tensor, change: Change | None = None, arguments: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `ImageRows.batch`."""

        def read(numbers: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            images, masks = self._store.read(self._places[numbers], self._masks)
            return (images, masks) if change is None else change(images, masks, *values)

        return _shaped(numpy_call(read, [rows, *arguments], (tf.uint8, tf.uint8)), self._size, self._masks)

    def touch(self) -> None:
        """See `ImageRows.touch`."""
        self._store.touch()


class DecodedRows:
    """Rows that are decoded each time, by the functions that write the store."""

    def __init__(
        self, images: Sequence[str], masks: Sequence[str] | None, size: tuple[int, int], preprocessing: Sequence[Preprocessing]
    ) -> None:
        self._images = tf.constant(list(images), tf.string)
        self._masks = None if masks is None else tf.constant(list(masks), tf.string)
        self._size = size
        self._preprocessing = tuple(preprocessing)

    def batch(
        self, rows: tf.Tensor, change: Change | None = None, arguments: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `ImageRows.batch`."""
        mask_shape = (0, 0) if self._masks is None else self._size
        specs = (tf.TensorSpec((*self._size, 3), tf.uint8), tf.TensorSpec(mask_shape, tf.uint8))
        images, masks = tf.map_fn(self._decode, rows, fn_output_signature=specs, parallel_iterations=8)
        if change is None:
            return images, masks
        return _shaped(numpy_call(change, [images, masks, *arguments], (tf.uint8, tf.uint8)), self._size, self._masks is not None)

    def touch(self) -> None:
        """See `ImageRows.touch`."""

    def _decode(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.cast(load_image(self._images[row], self._size, self._preprocessing), tf.uint8)
        if self._masks is None:
            return image, tf.zeros((0, 0), tf.uint8)
        return image, tf.cast(tf.reshape(load_mask(self._masks[row], self._size), self._size), tf.uint8)


def _shaped(values: Any, size: tuple[int, int], has_masks: bool) -> tuple[tf.Tensor, tf.Tensor]:
    images, masks = values
    return tf.ensure_shape(images, (None, *size, 3)), tf.ensure_shape(masks, (None, *(size if has_masks else (0, 0))))

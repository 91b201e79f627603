"""Prefetches and augments batches on the device that uses them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.data.pipeline.batch_augment import BatchAugmentation
from keras_skin.data.pipeline.samples import Batch


def prefetched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetches batches, onto the GPU where there is exactly one."""
    if _one_gpu():
        return batches.prefetch(tf.data.AUTOTUNE).apply(tf.data.experimental.prefetch_to_device("/GPU:0", buffer_size=2))
    return batches.prefetch(tf.data.AUTOTUNE)


def augmented(
    augmentation: BatchAugmentation, draw: Callable[[int, int, int], np.ndarray]
) -> Callable[[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor, tf.Tensor], Batch]:
    """Returns a function for `tf.data.Dataset.map` that changes batches on the GPU where there is exactly one, else on the CPU.

    A GPU takes the batch, changes it and returns it to the pipeline, which prefetches it. These two additional transfers are made
    while the training is busy with earlier batches. (tf.data has no public way to map data that are on a device.)

    Args:
        augmentation: the augmentation.
        draw: draws the random numbers of a batch, from its epoch, the index of its first sample in that epoch, and its size.

    Returns:
        A function of inputs, targets, and each sample's epoch and index (B,); it returns inputs and targets.
    """
    device = "/GPU:0" if _one_gpu() else "/CPU:0"

    def change(inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor], epoch: tf.Tensor, index: tf.Tensor) -> Batch:
        numbers = tf.ensure_shape(numpy_call(draw, [epoch[0], index[0], tf.size(index)], tf.float32), (None, None))
        with tf.device(device):
            return augmentation(inputs, targets, numbers)

    return change


def _one_gpu() -> bool:
    return len(tf.config.list_logical_devices("GPU")) == 1

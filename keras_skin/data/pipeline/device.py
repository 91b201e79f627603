"""From samples to batches: in parallel, in order, and ahead of their use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.data.pipeline.batch_augment import BatchAugmentation
from keras_skin.data.pipeline.samples import Batch


def parallel_map(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """The function's results, computed in parallel, in the order of the data set."""
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def batched(samples: tf.data.Dataset, batch_size: int, change: Callable[..., Batch] | None = None) -> tf.data.Dataset:
    """Batches, the last one perhaps partial, changed, fetched ahead, and onto the GPU where there is exactly one."""
    batches = samples.batch(batch_size)
    if change is not None:
        batches = parallel_map(batches, change)
    if _one_gpu():
        return batches.prefetch(tf.data.AUTOTUNE).apply(tf.data.experimental.prefetch_to_device("/GPU:0", buffer_size=2))
    return batches.prefetch(tf.data.AUTOTUNE)


def augmented(
    augmentation: BatchAugmentation, draw: Callable[[int, int, int], np.ndarray]
) -> Callable[[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor, tf.Tensor], Batch]:
    """A function for `tf.data.Dataset.map` that changes batches on the GPU where there is exactly one, else on the CPU.

    A GPU takes the batch, works on it and gives it back to the pipeline, which fetches it ahead: two transfers more than the
    training needs, made while it is busy with the batches before. (tf.data has no public way to map what lies on a device.)

    Args:
        augmentation: the augmentation.
        draw: gives what is random of a batch, from its epoch, the index of its first sample in that epoch, and its size.

    Returns:
        A function of inputs, targets, and each sample's epoch and index (B,); it returns inputs and targets.
    """
    device = "/GPU:0" if _one_gpu() else "/CPU:0"

    def change(inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor], epoch: tf.Tensor, index: tf.Tensor) -> Batch:
        drawn = tf.ensure_shape(numpy_call(draw, [epoch[0], index[0], tf.size(index)], tf.float32), (None, None))
        with tf.device(device):
            return augmentation(inputs, targets, drawn)

    return change


def _one_gpu() -> bool:
    return len(tf.config.list_logical_devices("GPU")) == 1

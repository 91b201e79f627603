"""Batches for training and evaluation.

Order and randomness are pure functions of (seed, epoch, index), without state between samples, so a training can resume at any
step and any sample can be shown again. Images come from the image store at the model's size; one Python call gathers a
batch and augments it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.load import Preprocessing
from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.data.images.store import ImageStore
from keras_skin.data.pipeline.augment import NoAugmentation, Policy
from keras_skin.data.pipeline.balance import Draw, Sampler
from keras_skin.data.pipeline.batch_augment import BatchAugmentation
from keras_skin.data.pipeline.device import augmented, prefetched
from keras_skin.data.pipeline.order import BATCH, PARTNER, SAMPLE, EpochOrder
from keras_skin.data.pipeline.samples import Batch, Samples
from keras_skin.registry import UserError

PARALLEL_BATCHES = max(1, min(os.cpu_count() or 1, 8))
"""Batches that are made at the same time. OpenCV works outside Python's interpreter lock."""


class TrainingData:
    """Batches of training epochs, each a pure function of the seed, the epoch and the step.

    The epoch does not advance by itself: every iteration starts where `start` was last called for.

    Attributes:
        steps: number of steps of an epoch, the same for all. See `EpochOrder`.
        epoch: the epoch of the next iteration.
        step: the step at which the next iteration starts.
    """

    def __init__(
        self, samples: Samples, order: EpochOrder, augmentation: Policy, batch_augmentation: BatchAugmentation | None
    ) -> None:
        self._samples = samples
        self._order = order
        self._augmentation = augmentation
        self._batch_augmentation = batch_augmentation
        self._position = (0, 0)
        self._blends = order.draw(0).shares is not None
        self.steps = order.steps

    @property
    def epoch(self) -> int:
        return self._position[0]

    @property
    def step(self) -> int:
        return self._position[1]

    def start(self, epoch: int, step: int = 0) -> None:
        """Sets where the next iteration of `dataset()` starts."""
        if epoch < 0 or not 0 <= step <= self.steps:
            raise ValueError(f"There is no step {step} in epoch {epoch}: epochs count from 0, and their {self.steps} steps too.")
        self._position = (epoch, step)
        self._samples.images.touch()

    def dataset(self) -> tf.data.Dataset:
        """Batches (inputs, targets) of `epoch` from `step` to its end; both are read when an iteration starts."""

        def remaining(_: tf.Tensor) -> tf.data.Dataset:
            columns = numpy_call(self._remaining, [], [*[tf.int64] * 5, tf.float32], stateful=True)
            return tf.data.Dataset.from_tensor_slices(tuple(tf.ensure_shape(column, (None,)) for column in columns))

        # not from_generator, which calls Python when an iterator is destroyed: a process that ends then hangs
        samples = tf.data.Dataset.from_tensors(0).flat_map(remaining).batch(self._order.batch_size)
        batches = samples.map(self._load, num_parallel_calls=PARALLEL_BATCHES, deterministic=True)
        return prefetched(batches)

    def example(self, epoch: int, index: int) -> Batch:
        """The sample at place `index` of an epoch (in batch `index // batch_size`), without a batch axis and before any batch
        augmentation."""
        sample = self._order.samples(epoch)[np.array([index])]
        columns = (np.array([epoch]), np.array([index]), sample.rows, sample.variants, sample.partners, sample.shares)
        return tf.nest.map_structure(lambda value: value[0], self._sample(*(tf.constant(column) for column in columns)))

    def image_ids(self, epoch: int, step: int) -> list[str]:
        """Ids of the images of one batch, in its order."""
        size = self._order.batch_size
        return self._samples.image_ids[self.rows(epoch)[step * size : (step + 1) * size]].tolist()

    def images_seen(self, epoch: int) -> list[str]:
        """Ids of the different images of an epoch, sorted."""
        return sorted(set(self._samples.image_ids[self.rows(epoch)]))

    def rows(self, epoch: int) -> np.ndarray:
        """(M,) rows of the training table in an epoch, in its order."""
        return self._order.samples(epoch).rows

    def draw(self, epoch: int) -> Draw:
        """The sampler's draw for an epoch."""
        return self._order.draw(epoch)

    def class_counts(self) -> dict[str, int]:
        """Samples of each class in the first epoch, before `steps_per_epoch` cuts it short."""
        names, counts = np.unique(self._samples.label_names[self._order.plan(0).rows].astype(str), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def _remaining(self) -> tuple[np.ndarray, ...]:
        """Epoch, index, row, variant, partner and share of the samples from `step` on."""
        epoch, step = self._position
        samples = self._order.samples(epoch)
        index = np.arange(step * self._order.batch_size, len(samples))
        remaining = samples[index]
        return np.full_like(index, epoch), index, remaining.rows, remaining.variants, remaining.partners, remaining.shares

    def _load(
        self, epoch: tf.Tensor, index: tf.Tensor, row: tf.Tensor, variant: tf.Tensor, partner: tf.Tensor, share: tf.Tensor
    ) -> Batch:
        inputs, targets = self._sample(epoch, index, row, variant, partner, share)
        if self._batch_augmentation is None:
            return inputs, targets
        return augmented(self._batch_augmentation, self._draw_batch)(inputs, targets, epoch, index)

    def _sample(
        self, epoch: tf.Tensor, index: tf.Tensor, row: tf.Tensor, variant: tf.Tensor, partner: tf.Tensor, share: tf.Tensor
    ) -> Batch:
        image, mask = self._changed(epoch, index, row, variant, SAMPLE)
        image = tf.cast(image, tf.float32)
        if self._blends:
            other, _ = self._changed(epoch, index, partner, variant, PARTNER)
            share = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
            image = (1.0 - share) * image + share * tf.cast(other, tf.float32)
        return self._samples.finish(row, image, mask)

    def _draw_batch(self, epoch: int, index: int, size: int) -> np.ndarray:
        """The random numbers of the batch that starts with the sample at place `index`."""
        assert self._batch_augmentation is not None
        rng = self._order.random(int(epoch), BATCH, int(index) // self._order.batch_size)
        return self._batch_augmentation.draw(int(size), self._samples.image_size, rng)

    def _changed(
        self, epoch: tf.Tensor, index: tf.Tensor, row: tf.Tensor, variant: tf.Tensor, stream: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Images (B, H, W, 3) and masks (B, H, W) of some rows, augmented."""
        if not self._augmentation.changes_images:
            return self._samples.images.batch(row)
        return self._samples.images.batch(row, functools.partial(self._augment, stream), (epoch, index, variant))

    def _augment(
        self, stream: int, images: np.ndarray, masks: np.ndarray, epoch: np.ndarray, index: np.ndarray, variant: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        changed_images, changed_masks = np.empty_like(images), np.empty_like(masks)
        for place, (image, mask) in enumerate(zip(images, masks, strict=True)):
            rng = self._order.random(int(epoch[place]), stream, int(index[place]))
            changed, changed_mask = self._augmentation(image, mask if mask.size else None, int(variant[place]), rng)
            if changed.shape != image.shape or (changed_mask is not None and changed_mask.shape != mask.shape):
                raise ValueError(f"The augmentation {type(self._augmentation).__name__} changed the shape of an image or mask.")
            changed_images[place] = changed
            if changed_mask is not None:
                changed_masks[place] = changed_mask
        return changed_images, changed_masks


def training_data(
    table: pd.DataFrame,
    classes: Sequence[str],
    image_size: tuple[int, int],
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch_size: int,
    seed: int = 0,
    sampler: Sampler | None = None,
    augmentation: Policy | None = None,
    preprocessing: Sequence[Preprocessing] = (),
    steps_per_epoch: int | None = None,
    store: ImageStore | None = None,
    metadata: np.ndarray | None = None,
    batch_augmentation: BatchAugmentation | None = None,
) -> TrainingData:
    """Batches of shuffled, augmented training images.

    Args:
        table: records, with columns `image_id`, `image`, `mask` and `label`; with `"segmented_image"` also `lesion`, the mask
            files that mark the lesions.
        classes: labels in the order of the model's outputs.
        image_size: (height, width) of the model's image.
        inputs: the model's inputs, of `"image"`, `"segmented_image"` and `"metadata"`.
        outputs: the model's outputs, of `"mask"` (`"mask_aux_1"` and `"mask_aux_2"` have the same target) and `"label"`. Only
            what they need is loaded.
        batch_size: number of samples in a batch.
        seed: decides order and augmentation.
        sampler: chooses the rows of an epoch, with repeats and blends; None takes each once.
        augmentation: a policy of `keras_skin.data.pipeline.augment`; None for none.
        preprocessing: operations between resizing and the model, in their order.
        steps_per_epoch: cuts epochs short.
        store: the image store of the table, see `open_store`; None decodes every image in every epoch.
        metadata: (N, M) float, one row per row of `table`, if `inputs` has `"metadata"`.
        batch_augmentation: mixes or changes whole batches; one of `keras_skin.data.pipeline.batch_augment`.

    Returns:
        The training data. Its elements are (inputs, targets), two dicts with exactly the requested keys: `image` (B, H, W, 3)
        float32 in 0..255, `segmented_image` the same with black around the lesion, `metadata` (B, M) float32; `mask`
        (B, H, W, 1) float32 in {0, 1}, `label` (B, K) float32 one-hot (shares of classes after a batch augmentation that mixes
        images).

    Raises:
        UserError: if there is no image, or some have no mask or no label of `classes` although the model needs them; or if
            sampler, augmentation, batch augmentation and outputs contradict each other.
    """
    if table.empty:
        raise UserError("There are no training images.")
    augmentation = augmentation or NoAugmentation()
    if batch_augmentation is not None:
        batch_augmentation.check(inputs, outputs)
    samples = Samples(table, classes, image_size, inputs, outputs, preprocessing, metadata, store)
    order = EpochOrder(samples.label_names, batch_size, seed, sampler, augmentation, steps_per_epoch)
    if samples.mask_column and order.draw(0).shares is not None:
        reason = "has an output 'mask'" if "mask" in outputs else "takes the lesion cut out of its image"
        raise UserError(
            f"This balancing blends images of two lesions, whose masks cannot be blended, but the model {reason}. "
            "Choose a balancing that repeats images instead ('oversample' or 'partial')."
        )
    return TrainingData(samples, order, augmentation, batch_augmentation)


def evaluation_data(
    table: pd.DataFrame,
    classes: Sequence[str],
    image_size: tuple[int, int],
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch_size: int,
    preprocessing: Sequence[Preprocessing] = (),
    metadata: np.ndarray | None = None,
    store: ImageStore | None = None,
) -> tf.data.Dataset:
    """Batches of all images of a table, in its order and unchanged; the last one may be partial.

    Arguments, elements and errors are those of `training_data`.
    """
    samples = Samples(table, classes, image_size, inputs, outputs, preprocessing, metadata, store)

    def load(rows: tf.Tensor) -> Batch:
        image, mask = samples.images.batch(rows)
        return samples.finish(rows, tf.cast(image, tf.float32), mask)

    batches = tf.data.Dataset.range(len(table)).batch(batch_size)
    return prefetched(batches.map(load, num_parallel_calls=PARALLEL_BATCHES, deterministic=True))

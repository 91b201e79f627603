"""From a records table to batches for training and evaluation.

Order and randomness are pure functions of (seed, epoch, index): nothing is remembered between samples, so a training can go on
at any step and any sample can be shown again. Paths are shuffled, never images.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.data.pipeline.augment import NoAugmentation, Policy
from keras_skin.data.pipeline.balance import Draw, Sampler
from keras_skin.data.pipeline.batch_augment import BatchAugmentation
from keras_skin.data.pipeline.cache import DiskCache, MemoryCache, disk_cache
from keras_skin.data.pipeline.device import augmented, batched, parallel_map
from keras_skin.data.pipeline.samples import Batch, Preprocessing, Samples, fit_mask, numpy_pair
from keras_skin.registry import UserError

log = logging.getLogger("keras_skin")

Cache = Literal["none", "memory", "disk"]

# Independent random streams of one (seed, epoch).
_ORDER, _PLAN, _SAMPLE, _PARTNER, _BATCH = range(5)


@dataclass(frozen=True)
class _Plan:
    """The samples of an epoch: rows, what augmentation turns them into, and which rows are blended into them by what share."""

    rows: np.ndarray
    variants: np.ndarray
    partners: np.ndarray
    shares: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: np.ndarray | slice) -> _Plan:
        return _Plan(self.rows[places], self.variants[places], self.partners[places], self.shares[places])


class TrainingData:
    """Batches of one epoch after the other, each of them a pure function of the seed, the epoch and the step.

    The order of an epoch is a random permutation of the plan that the augmentation policy makes for it. Nothing advances by
    itself: an iteration that ends leaves the epoch as it was, until `start` is called. A last batch of a single sample is left
    out (batch normalisation has nothing to normalise there), unless it is the only one; other partial batches are kept. Where
    `steps_per_epoch` cuts epochs short, each still begins with other images, for each has an order of its own.

    Attributes:
        steps: number of steps of an epoch, the same for all.
        epoch: the epoch that the next iteration belongs to.
        step: the step that it begins with.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        seed: int,
        sampler: Sampler | None,
        augmentation: Policy,
        steps_per_epoch: int | None,
        cache: MemoryCache | DiskCache | None,
        batch_augmentation: BatchAugmentation | None,
    ) -> None:
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self._sampler = sampler
        self._augmentation = augmentation
        self._cap = steps_per_epoch
        self._cache = cache
        self._batch_augmentation = batch_augmentation
        self._position = (0, 0)
        self.steps = self._count_steps(len(self._plan(0)))

    @property
    def epoch(self) -> int:
        return self._position[0]

    @property
    def step(self) -> int:
        return self._position[1]

    def start(self, epoch: int, step: int = 0) -> None:
        """Sets where the next iteration of `dataset()` begins."""
        if epoch < 0 or not 0 <= step <= self.steps:
            raise ValueError(f"There is no step {step} in epoch {epoch}: epochs count from 0, and their {self.steps} steps too.")
        self._position = (epoch, step)

    def dataset(self) -> tf.data.Dataset:
        """Batches (inputs, targets) of `epoch` from `step` on, to its end; every iteration looks these two up when it begins."""

        def remaining(_: tf.Tensor) -> tf.data.Dataset:
            columns = numpy_call(self._remaining, [], [*[tf.int64] * 5, tf.float32], stateful=True)
            return tf.data.Dataset.from_tensor_slices(tuple(tf.ensure_shape(column, (None,)) for column in columns))

        # Not from_generator: it calls Python once more when an iterator is destroyed, and a process that ends then hangs.
        samples = tf.data.Dataset.from_tensors(0).flat_map(remaining)
        if self._batch_augmentation is None:
            return batched(parallel_map(samples, self._sample), self._batch_size)
        placed = parallel_map(samples, lambda epoch, index, *others: (*self._sample(epoch, index, *others), epoch, index))
        return batched(placed, self._batch_size, augmented(self._batch_augmentation, self._draw_batch))

    def example(self, epoch: int, index: int) -> Batch:
        """One sample again, without a batch axis: the one at place `index` of an epoch (in batch `index // batch_size`), as it
        is before any batch augmentation."""
        one = self._order(epoch)[np.array([index])]
        columns = (np.array([epoch]), np.array([index]), one.rows, one.variants, one.partners, one.shares)
        return next(iter(tf.data.Dataset.from_tensor_slices(columns).map(self._sample)))

    def image_ids(self, epoch: int, step: int) -> list[str]:
        """Ids of the images of one batch, in its order."""
        rows = self._order(epoch).rows[step * self._batch_size : (step + 1) * self._batch_size]
        return self._samples.image_ids[rows].tolist()

    def images_seen(self, epoch: int) -> list[str]:
        """Ids of the different images that an epoch shows, sorted."""
        return sorted(set(self._samples.image_ids[self.rows(epoch)]))

    def rows(self, epoch: int) -> np.ndarray:
        """(M,) rows of the training table that an epoch shows, in its order."""
        return self._order(epoch).rows

    def draw(self, epoch: int) -> Draw:
        """What the sampler drew for an epoch."""
        assert self._sampler is not None
        return self._sampler.draw(self._samples.label_names, epoch, self._random(epoch, _PLAN))

    def class_counts(self) -> dict[str, int]:
        """Samples of each class in the first epoch, before `steps_per_epoch` cuts it short."""
        names, counts = np.unique(self._samples.label_names[self._plan(0).rows].astype(str), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def _random(self, epoch: int, stream: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self._seed, epoch], spawn_key=(stream, index)))

    def _plan(self, epoch: int) -> _Plan:
        """The samples of an epoch, before they are put in order."""
        rng, labels = self._random(epoch, _PLAN), self._samples.label_names
        draw = self._sampler.draw(labels, epoch, rng) if self._sampler else Draw(np.arange(len(labels)))
        if draw.shares is not None and self._samples.mask_column:
            reason = "has an output 'mask'" if "mask" in self._samples.outputs else "takes the lesion cut out of its image"
            raise UserError(
                f"This balancing blends images of two lesions, whose masks cannot be blended, but the model {reason}. "
                "Choose a balancing that repeats images instead ('oversample' or 'partial')."
            )
        rows = np.asarray(draw.rows, np.int64)
        partners = rows if draw.partners is None else np.asarray(draw.partners, np.int64)
        shares = np.zeros(len(rows), np.float32) if draw.shares is None else np.asarray(draw.shares, np.float32)
        indices, variants = self._augmentation.plan(labels[rows], epoch, rng)
        if self._sampler is not None and len(indices) != len(rows):
            raise UserError(
                f"The augmentation {type(self._augmentation).__name__} decides itself how often images of each class are shown, "
                f"and so does the balancing {type(self._sampler).__name__}. Choose one of them: another augmentation (such as "
                "'flips_rotations'), or no balancing."
            )
        return _Plan(rows[indices], variants, partners[indices], shares[indices])

    def _count_steps(self, samples: int) -> int:
        steps = -(-samples // self._batch_size)
        if samples % self._batch_size == 1 and steps > 1 and self._batch_size > 1:
            steps -= 1
        return steps if self._cap is None else min(steps, self._cap)

    def _order(self, epoch: int) -> _Plan:
        """The samples of an epoch in the order in which it shows them."""
        plan = self._plan(epoch)
        if self._count_steps(len(plan)) != self.steps:
            raise ValueError(
                f"Epoch {epoch} has {len(plan)} samples, which are not the {self.steps} steps of the first: "
                "a sampler must draw the same number in every epoch."
            )
        return plan[self._random(epoch, _ORDER).permutation(len(plan))[: self.steps * self._batch_size]]

    def _remaining(self) -> tuple[np.ndarray, ...]:
        """Epoch, index, row, variant, partner and share of the samples from `step` on."""
        epoch, step = self._position
        plan = self._order(epoch)
        index = np.arange(step * self._batch_size, len(plan))
        left = plan[index]
        return np.full_like(index, epoch), index, left.rows, left.variants, left.partners, left.shares

    def _sample(
        self, epoch: tf.Tensor, index: tf.Tensor, row: tf.Tensor, variant: tf.Tensor, partner: tf.Tensor, share: tf.Tensor
    ) -> Batch:
        inputs, targets = self._samples.finish(row, *self._changed(epoch, index, row, variant, _SAMPLE))
        if self._sampler is None or "image" not in inputs:
            return inputs, targets

        def blend() -> tf.Tensor:
            other, _ = self._samples.finish(partner, *self._changed(epoch, index, partner, variant, _PARTNER))
            return (1.0 - share) * inputs["image"] + share * other["image"]

        inputs["image"] = tf.cond(share > 0.0, blend, lambda: inputs["image"])
        return inputs, targets

    def _draw_batch(self, epoch: int, index: int, size: int) -> np.ndarray:
        """What is random of the batch that begins with the sample at place `index`."""
        assert self._batch_augmentation is not None
        rng = self._random(int(epoch), _BATCH, int(index) // self._batch_size)
        return self._batch_augmentation.draw(int(size), self._samples.image_size, rng)

    def _changed(
        self, epoch: tf.Tensor, index: tf.Tensor, row: tf.Tensor, variant: tf.Tensor, stream: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Image and mask of a row, decoded and augmented."""
        image, mask = self._samples.decode(row) if self._cache is None else self._cache.decode(row)
        if self._augmentation.changes_images:
            image, mask = numpy_pair(functools.partial(self._augment, stream), image, mask, epoch, index, variant)
        return image, mask

    def _augment(
        self, stream: int, image: np.ndarray, mask: np.ndarray, epoch: int, index: int, variant: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = self._random(int(epoch), stream, int(index))
        image, mask = fit_mask(image, mask)
        changed, changed_mask = self._augmentation(image, mask[..., 0] if mask.size else None, int(variant), rng)
        if changed.shape != image.shape or (changed_mask is not None and changed_mask.shape != mask.shape[:2]):
            raise ValueError(f"{type(self._augmentation).__name__} changed the shape of an image or a mask of {image.shape}.")
        return changed, mask if changed_mask is None else changed_mask[..., np.newaxis]


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
    cache: Cache = "none",
    metadata: np.ndarray | None = None,
    batch_augmentation: BatchAugmentation | None = None,
) -> TrainingData:
    """Batches of shuffled, augmented training images.

    Args:
        table: records, with columns `image_id`, `image`, `mask` and `label`; with `"segmented_image"` also `lesion`, the files of
            the masks that cut the lesions out.
        classes: labels in the order of the model's outputs.
        image_size: (height, width) of the model's image.
        inputs: the model's inputs, of `"image"`, `"segmented_image"` and `"metadata"`.
        outputs: the model's outputs, of `"mask"` (`"mask_aux_1"` and `"mask_aux_2"` have the same target) and `"label"`;
            what is not asked for is not loaded.
        batch_size: number of samples in a batch.
        seed: decides order and augmentation.
        sampler: chooses the rows that an epoch draws from, with repeats, and blends; None takes each once.
        augmentation: a policy of `keras_skin.data.pipeline.augment`; None for none.
        preprocessing: functions from a (height, width, 3) float32 image to another, applied in this order after the resize.
        steps_per_epoch: cuts epochs short.
        cache: `"memory"` keeps decoded images (up to `cache.MEMORY_CACHE_BYTES`), `"disk"` keeps them for all runs (see
            `cache.disk_cache`), `"none"` decodes them each time.
        metadata: (N, M) float, one row per row of `table`, if `inputs` has `"metadata"`.
        batch_augmentation: mixes or changes whole batches; one of `keras_skin.data.pipeline.batch_augment`.

    Returns:
        The training data; its elements are (inputs, targets), two dicts with exactly the keys asked for: `image` (B, H, W, 3)
        float32 in 0..255, `segmented_image` the same with black around the lesion, `metadata` (B, M) float32; `mask`
        (B, H, W, 1) float32 in {0, 1}, `label` (B, K) float32 one-hot (shares of classes after a batch augmentation that mixes
        images).

    Raises:
        UserError: if there is no image, or some have no mask or no known label although the model needs them; or if sampler,
            augmentation, batch augmentation and outputs do not go together.
    """
    if table.empty:
        raise UserError("There are no training images.")
    augmentation = augmentation or NoAugmentation()
    if batch_augmentation is not None:
        batch_augmentation.check(inputs, outputs)
    samples = Samples(table, classes, image_size, inputs, outputs, preprocessing, metadata)
    return TrainingData(
        samples,
        batch_size,
        seed,
        sampler,
        augmentation,
        steps_per_epoch,
        _cached(samples, table, cache, fit=augmentation.changes_images),
        batch_augmentation,
    )


def evaluation_data(
    table: pd.DataFrame,
    classes: Sequence[str],
    image_size: tuple[int, int],
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch_size: int,
    preprocessing: Sequence[Preprocessing] = (),
    metadata: np.ndarray | None = None,
    cache: Cache = "none",
) -> tf.data.Dataset:
    """Batches of all images of a table, in its order and unchanged; the last one may be partial.

    Arguments, elements and errors are those of `training_data`.
    """
    samples = Samples(table, classes, image_size, inputs, outputs, preprocessing, metadata)
    source = _cached(samples, table, cache, fit=False) or samples

    def load(row: tf.Tensor) -> Batch:
        return samples.finish(row, *source.decode(row))

    return batched(parallel_map(tf.data.Dataset.range(len(table)), load), batch_size)


def _cached(samples: Samples, table: pd.DataFrame, cache: Cache, fit: bool) -> MemoryCache | DiskCache | None:
    """Where decoded images are kept; masks at the size of their images if `fit`."""
    if cache not in get_args(Cache):
        raise UserError(f"train.cache is {cache!r}, expected one of {', '.join(get_args(Cache))}.")
    if cache == "memory":
        return MemoryCache(samples, fit=fit)
    if cache == "disk":
        title = ", ".join(sorted(set(table["dataset"]))) if "dataset" in table else "images"
        return disk_cache(samples, table, title=title, fit=fit, note=log.info)
    return None

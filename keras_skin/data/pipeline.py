"""From a records table to batches for training and evaluation.

Order and randomness are pure functions of (seed, epoch, index): nothing is remembered between samples, so a training can go on
at any step and any sample can be shown again. Paths are shuffled, never images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data import images
from keras_skin.data.augment import NoAugmentation, Policy
from keras_skin.data.numpy_calls import numpy_call
from keras_skin.registry import UserError

MEMORY_CACHE_BYTES = 4 * 2**30
"""The memory cache stops taking in images when it holds this much."""

INPUTS = ("image", "metadata")
AUXILIARY_MASKS = ("mask_aux_1", "mask_aux_2")
OUTPUTS = ("mask", "label", *AUXILIARY_MASKS)

Sampler = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
Preprocessing = Callable[[tf.Tensor], tf.Tensor]
Batch = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]

# Independent random streams of one (seed, epoch).
_ORDER, _PLAN, _SAMPLE = range(3)


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
        samples: _Samples,
        batch_size: int,
        seed: int,
        sampler: Sampler | None,
        augmentation: Policy,
        steps_per_epoch: int | None,
        cache: _DecodedImages | None,
    ) -> None:
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self._sampler = sampler
        self._augmentation = augmentation
        self._cap = steps_per_epoch
        self._cache = cache
        self._position = (0, 0)
        self.steps = self._count_steps(len(self._plan(0)[0]))

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
            columns = numpy_call(self._remaining, [], [tf.int64] * 4, stateful=True)
            return tf.data.Dataset.from_tensor_slices(tuple(tf.ensure_shape(column, (None,)) for column in columns))

        # Not from_generator: it calls Python once more when an iterator is destroyed, and a process that ends then hangs.
        samples = tf.data.Dataset.from_tensors(0).flat_map(remaining)
        return _batches(samples.map(self._sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True), self._batch_size)

    def example(self, epoch: int, index: int) -> Batch:
        """One sample again, without a batch axis: the one at place `index` of an epoch (in batch `index // batch_size`)."""
        rows, variants = self._order(epoch)
        numbers = [tf.constant(number, tf.int64) for number in (epoch, index, rows[index], variants[index])]
        return next(iter(tf.data.Dataset.from_tensors(tuple(numbers)).map(self._sample)))

    def image_ids(self, epoch: int, step: int) -> list[str]:
        """Ids of the images of one batch, in its order."""
        rows, _ = self._order(epoch)
        return self._samples.image_ids[rows[step * self._batch_size : (step + 1) * self._batch_size]].tolist()

    def images_seen(self, epoch: int) -> list[str]:
        """Ids of the different images that an epoch shows, sorted."""
        return sorted(set(self._samples.image_ids[self._order(epoch)[0]]))

    def _random(self, epoch: int, stream: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self._seed, epoch], spawn_key=(stream, index)))

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and variants of an epoch, before they are put in order."""
        rng, labels = self._random(epoch, _PLAN), self._samples.label_names
        if self._sampler is None:
            return self._augmentation.plan(labels, epoch, rng)
        drawn = np.asarray(self._sampler(labels, epoch, rng), np.int64)
        indices, variants = self._augmentation.plan(labels[drawn], epoch, rng)
        return drawn[indices], variants

    def _count_steps(self, samples: int) -> int:
        steps = -(-samples // self._batch_size)
        if samples % self._batch_size == 1 and steps > 1 and self._batch_size > 1:
            steps -= 1
        return steps if self._cap is None else min(steps, self._cap)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and variants in the order in which an epoch shows them."""
        rows, variants = self._plan(epoch)
        if self._count_steps(len(rows)) != self.steps:
            raise ValueError(
                f"Epoch {epoch} has {len(rows)} samples, which are not the {self.steps} steps of the first: "
                "a sampler must draw the same number in every epoch."
            )
        order = self._random(epoch, _ORDER).permutation(len(rows))[: self.steps * self._batch_size]
        return rows[order], variants[order]

    def _remaining(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Epoch, index, row and variant of the samples from `step` on."""
        epoch, step = self._position
        rows, variants = self._order(epoch)
        index = np.arange(step * self._batch_size, len(rows))
        return np.full_like(index, epoch), index, rows[index], variants[index]

    def _sample(self, epoch: tf.Tensor, index: tf.Tensor, row: tf.Tensor, variant: tf.Tensor) -> Batch:
        samples = self._samples
        image, mask = samples.decode(row) if self._cache is None else self._cache.decode(row)
        if self._augmentation.changes_images:
            image, mask = _numpy_pair(self._augment, image, mask, epoch, index, variant)
        return samples.finish(row, image, mask)

    def _augment(
        self, image: np.ndarray, mask: np.ndarray, epoch: int, index: int, variant: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = self._random(int(epoch), _SAMPLE, int(index))
        image, mask = _fit_mask(image, mask)
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
    cache: Literal["none", "memory"] = "none",
    metadata: np.ndarray | None = None,
) -> TrainingData:
    """Batches of shuffled, augmented training images.

    Args:
        table: records, with columns `image_id`, `image`, `mask` and `label`.
        classes: labels in the order of the model's outputs.
        image_size: (height, width) of the model's image.
        inputs: the model's inputs, of `"image"` and `"metadata"`.
        outputs: the model's outputs, of `"mask"` (`"mask_aux_1"` and `"mask_aux_2"` have the same target) and `"label"`;
            what is not asked for is not loaded.
        batch_size: number of samples in a batch.
        seed: decides order and augmentation.
        sampler: `sampler(labels, epoch, rng)` gives the rows that an epoch draws from, with repeats; None takes each once.
        augmentation: a policy of `keras_skin.data.augment`; None for none.
        preprocessing: functions from a (height, width, 3) float32 image to another, applied in this order after the resize.
        steps_per_epoch: cuts epochs short.
        cache: `"memory"` keeps decoded images (up to `MEMORY_CACHE_BYTES`), `"none"` decodes them each time.
        metadata: (N, M) float, one row per row of `table`, if `inputs` has `"metadata"`.

    Returns:
        The training data; its elements are (inputs, targets), two dicts with exactly the keys asked for: `image` (B, H, W, 3)
        float32 in 0..255, `metadata` (B, M) float32; `mask` (B, H, W, 1) float32 in {0, 1}, `label` (B, K) float32 one-hot.

    Raises:
        UserError: if there is no image, or some have no mask or no known label although the model needs them.
    """
    if cache not in ("none", "memory"):
        raise UserError(f"train.cache is {cache!r}, expected 'none' or 'memory'.")
    if table.empty:
        raise UserError("There are no training images.")
    augmentation = augmentation or NoAugmentation()
    samples = _Samples(table, classes, image_size, inputs, outputs, preprocessing, metadata)
    return TrainingData(
        samples,
        batch_size,
        seed,
        sampler,
        augmentation,
        steps_per_epoch,
        _DecodedImages(samples, fit=augmentation.changes_images) if cache == "memory" else None,
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
) -> tf.data.Dataset:
    """Batches of all images of a table, in its order and unchanged; the last one may be partial.

    Arguments, elements and errors are those of `training_data`.
    """
    samples = _Samples(table, classes, image_size, inputs, outputs, preprocessing, metadata)

    def load(row: tf.Tensor) -> Batch:
        return samples.finish(row, *samples.decode(row))

    rows = tf.data.Dataset.range(len(table))
    return _batches(rows.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True), batch_size)


class _Samples:
    """Rows of a table as tensors: where the files lie, and what a sample consists of. Masks of no size stand for no mask."""

    def __init__(
        self,
        table: pd.DataFrame,
        classes: Sequence[str],
        image_size: tuple[int, int],
        inputs: Sequence[str],
        outputs: Sequence[str],
        preprocessing: Sequence[Preprocessing],
        metadata: np.ndarray | None,
    ) -> None:
        _check_keys(inputs, outputs, metadata, len(table))
        _check_rows(table, classes, outputs)
        self.image_size = image_size
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.preprocessing = tuple(preprocessing)
        self.image_ids = table["image_id"].to_numpy(dtype=object)
        self.label_names = table["label"].to_numpy(dtype=object)
        self._images = tf.constant(table["image"].tolist(), tf.string)
        self._masks = tf.constant(table["mask"].tolist(), tf.string)
        known = self.label_names[:, np.newaxis] == np.asarray(classes, dtype=object)[np.newaxis, :]
        self._labels = tf.constant(known.astype(np.float32).reshape(len(table), len(classes)))
        self._metadata = None if metadata is None else tf.constant(metadata, tf.float32)

    def decode(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Image (H, W, 3) and mask (H', W', 1), both uint8: the mask at its own size, the image reduced if it is far larger."""
        image = images.decode_image(tf.io.read_file(self._images[row]), minimum_size=self.image_size)
        if "mask" not in self.outputs:
            return image, tf.zeros((0, 0, 1), tf.uint8)
        return image, images.decode_mask(tf.io.read_file(self._masks[row]))

    def finish(self, row: tf.Tensor, image: tf.Tensor, mask: tf.Tensor) -> Batch:
        """What the model takes of a decoded sample."""
        inputs, targets = {}, {}
        if "image" in self.inputs:
            image = images.resize_image(image, self.image_size)
            for function in self.preprocessing:
                image = function(image)
            inputs["image"] = tf.ensure_shape(image, (*self.image_size, 3))
        if "metadata" in self.inputs and self._metadata is not None:
            inputs["metadata"] = self._metadata[row]
        if "mask" in self.outputs:
            targets["mask"] = images.resize_mask(mask, self.image_size)
            targets.update({key: targets["mask"] for key in self.outputs if key in AUXILIARY_MASKS})
        if "label" in self.outputs:
            targets["label"] = self._labels[row]
        return inputs, targets


class _DecodedImages:
    """Decoded images of a table in memory, taken in as they are first asked for, until there is no room left.

    Args:
        samples: where they come from.
        fit: keep masks at the size of their images; False where they are to reach the model's size in one step.
    """

    def __init__(self, samples: _Samples, fit: bool) -> None:
        self._samples = samples
        self._fit = fit
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def decode(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `_Samples.decode`."""
        kept = tf.ensure_shape(numpy_call(lambda number: int(number) in self._kept, [row], tf.bool, stateful=True), ())
        return tf.cond(
            kept,
            lambda: _numpy_pair(lambda number: self._kept[int(number)], row),
            lambda: _numpy_pair(self._keep, *self._samples.decode(row), row),
        )

    def _keep(self, image: np.ndarray, mask: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._fit:
            image, mask = _fit_mask(image, mask)
        with self._lock:
            if int(row) not in self._kept and self._bytes + image.nbytes + mask.nbytes <= MEMORY_CACHE_BYTES:
                self._kept[int(row)] = (image.copy(), mask.copy())
                self._bytes += image.nbytes + mask.nbytes
        return image, mask


def _numpy_pair(function: Callable[..., Any], *arguments: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Image and mask from a NumPy function that depends on its arguments alone."""
    image, mask = numpy_call(function, arguments, (tf.uint8, tf.uint8))
    return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(mask, (None, None, 1))


def _fit_mask(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brings a mask to the size of its image by majority of area, so that both can be moved together."""
    height, width = image.shape[:2]
    if mask.shape[:2] == (height, width) or not mask.size:
        return image, mask
    share = cv2.resize(mask[..., 0] * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    return image, (share >= 128).astype(np.uint8)[..., np.newaxis]


def _batches(samples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batches, fetched ahead, and onto the GPU where there is exactly one."""
    batches = samples.batch(batch_size)
    if len(tf.config.list_logical_devices("GPU")) == 1:
        return batches.prefetch(tf.data.AUTOTUNE).apply(tf.data.experimental.prefetch_to_device("/GPU:0", buffer_size=2))
    return batches.prefetch(tf.data.AUTOTUNE)


def _check_keys(inputs: Sequence[str], outputs: Sequence[str], metadata: np.ndarray | None, rows: int) -> None:
    """Refuses what no data can be made for: a mistake of the caller."""
    unknown = [f"input '{key}'" for key in inputs if key not in INPUTS]
    unknown += [f"output '{key}'" for key in outputs if key not in OUTPUTS]
    if unknown:
        raise ValueError(f"No data for the {', '.join(unknown)}: there are the inputs {INPUTS} and the outputs {OUTPUTS}.")
    if "metadata" in inputs and (metadata is None or np.ndim(metadata) != 2 or len(metadata) != rows):
        raise ValueError(
            f"The input 'metadata' needs a matrix with {rows} rows, got "
            f"{'none' if metadata is None else f'shape {np.shape(metadata)}'}."
        )


def _check_rows(table: pd.DataFrame, classes: Sequence[str], outputs: Sequence[str]) -> None:
    problems = [_list("no image file", table.loc[table["image"] == "", "image_id"])]
    if "mask" in outputs:
        problems.append(_list("no mask, which the model's output 'mask' needs", table.loc[table["mask"] == "", "image_id"]))
    if "label" in outputs:
        problems.append(_list(f"no label of {', '.join(classes)}", table.loc[~table["label"].isin(list(classes)), "image_id"]))
    problems = [problem for problem in problems if problem]
    if problems:
        raise UserError("\n".join(problems))


def _list(problem: str, image_ids: pd.Series) -> str:
    if image_ids.empty:
        return ""
    shown = ", ".join(image_ids.astype(str).head(5)) + (", ..." if len(image_ids) > 5 else "")
    return f"{len(image_ids)} {'image has' if len(image_ids) == 1 else 'images have'} {problem}: {shown}."

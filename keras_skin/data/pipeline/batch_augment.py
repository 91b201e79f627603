"""Augmentations of whole batches: they mix images with one another, or change each by random operations.

The random numbers, a few per image, are drawn in NumPy from a generator that depends on (seed, epoch, step) alone; TensorFlow
changes the pixels, at the model's image size and in float32. So a training that resumes within an epoch continues bit by bit.

keras-cv's layers MixUp, CutMix and RandAugment cannot do that: they draw from TensorFlow's stateful generators, whose position
is not saved. RandAugment is therefore composed of keras-cv's operations with parameters that are drawn here. MixUp and CutMix, a
line or two of arithmetic each, are written out; besides, keras-cv's CutMix computes the label's share from the box before it is
clipped at the border, the paper's code from the pixels that are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_skin.data.pipeline.samples import AUXILIARY_MASKS, Batch
from keras_skin.registry import Registry, UserError

registry = Registry("batch augmentation", "keras_skin.data.pipeline.batch_augment")
register, get, names = registry.register, registry.get, registry.names

MASKS = ("mask", *AUXILIARY_MASKS)


class BatchAugmentation(Protocol):
    """A batch augmentation, as the pipeline uses it."""

    def check(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Checks that it can change a model's inputs and targets.

        Raises:
            UserError: if the model has no image, or targets that cannot be changed with it.
        """

    def draw(self, size: int, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draws the random numbers of one batch.

        Args:
            size: number of images in the batch, B.
            image_size: (height, width) of the model's image.
            rng: random generator of this batch.

        Returns:
            (B, D) float32, D numbers per image.
        """

    def __call__(self, inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor], numbers: tf.Tensor) -> Batch:
        """Changes a batch.

        Args:
            inputs: `image` (B, H, W, 3) float32 in 0..255, and perhaps `metadata` (B, M).
            targets: those of the model, of `mask` and the auxiliary masks (B, H, W, 1) and `label` (B, K) float32.
            numbers: (B, D), the result of `draw`.

        Returns:
            Inputs and targets with the same keys, shapes and types; labels may be soft, and still sum to 1.
        """


@register("mixup", paper="Zhang et al., ICLR 2018, arXiv:1710.09412", mixes_images=True)
@dataclass(frozen=True)
class MixUp:
    """Blends each image of a batch with another one, and their labels by the same shares.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, equation 2 of section 2: x = s x_i + (1 - s) x_j and
    y = s y_i + (1 - s) y_j with s from Beta(alpha, alpha). The images j are a random permutation of the batch; each pair has a
    share of its own, as in keras-cv. Metadata are blended like images. Masks are refused: half of one lesion's outline and half
    of another's is no outline.

    Args:
        alpha: of the Beta distribution, above 0; small values leave most images nearly unchanged.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def check(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        _check_image(inputs)
        masks = [name for name in outputs if name in MASKS]
        if masks:
            raise UserError(
                f"batch_augmentation 'mixup' blends the images of two lesions, which have no common outline, but the model has "
                f"the output {', '.join(map(repr, masks))}. 'cutmix' and 'rand_augment' change masks with their images."
            )

    def draw(self, size: int, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        return np.stack([rng.permutation(size), rng.beta(self.alpha, self.alpha, size)], axis=1).astype(np.float32)

    def __call__(self, inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor], numbers: tf.Tensor) -> Batch:
        partners, shares = tf.cast(numbers[:, 0], tf.int32), numbers[:, 1]
        return (
            {name: _blend(value, partners, shares) for name, value in inputs.items()},
            {name: _blend(value, partners, shares) for name, value in targets.items()},
        )


@register("cutmix", paper="Yun et al., ICCV 2019, arXiv:1905.04899", mixes_images=True)
@dataclass(frozen=True)
class CutMix:
    """Replaces a rectangle of each image of a batch by that of another one, and blends their labels by area.

    Source: Yun et al., CutMix, section 3.1: the rectangle has the image's proportions and the share 1 - s of its area, s from
    Beta(alpha, alpha); its centre is drawn evenly over the image and it is clipped at the border; labels are blended by the
    shares of the pixels. Masks are cut and pasted with their images. Metadata are blended by the labels' shares.

    Args:
        alpha: of the Beta distribution, above 0; 1, the paper's value, draws areas evenly.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def check(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        _check_image(inputs)

    def draw(self, size: int, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Columns: partner, first and last-plus-one row, first and last-plus-one column."""
        partners = rng.permutation(size)
        side = np.sqrt(1.0 - rng.beta(self.alpha, self.alpha, size))
        edges = []
        for length in image_size:
            cut, centre = (side * length).astype(int), rng.integers(length, size=size)
            edges += [np.clip(centre - cut // 2, 0, length), np.clip(centre - cut // 2 + cut, 0, length)]
        return np.stack([partners, *edges], axis=1).astype(np.float32)

    def __call__(self, inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor], numbers: tf.Tensor) -> Batch:
        partners, image = tf.cast(numbers[:, 0], tf.int32), inputs["image"]
        top, bottom, left, right = (numbers[:, column, tf.newaxis] for column in range(1, 5))
        rows, columns = (tf.range(tf.shape(image)[axis], dtype=tf.float32) for axis in (1, 2))
        inside_rows, inside_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        inside = inside_rows[:, :, tf.newaxis] & inside_columns[:, tf.newaxis, :]
        shares = 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))

        def change(value: tf.Tensor) -> tf.Tensor:
            if value.shape.rank == 4:
                return tf.where(inside[..., tf.newaxis], tf.gather(value, partners), value)
            return _blend(value, partners, shares)

        return {name: change(value) for name, value in inputs.items()}, {name: change(value) for name, value in targets.items()}


@register("rand_augment", paper="Cubuk et al., NeurIPS 2020, arXiv:1909.13719")
class RandAugment:
    """Applies a few operations to each image, drawn at random, one after the other.

    Source: Cubuk et al., RandAugment, section 3, with the operations and the ranges of keras-cv's layer of this name: auto
    contrast, equalisation, solarisation, colour degeneration, contrast and brightness, and, where `geometric`, shear and
    translation along either axis with reflected borders. Masks are moved with their images, to the nearest pixel.

    Args:
        magnitude: strength of the operations, from 0 to 1.
        magnitude_stddev: standard deviation of the strengths that are drawn from a normal distribution, from 0 to 1.
        operations: how many operations are drawn for each image.
        rate: probability with which each of them is applied.
        geometric: whether shear and translation are among them.

    **Deviations from the paper.** Rotation, posterisation and sharpness are not among keras-cv's operations; where the paper uses
    one strength for all, keras-cv draws it per image.
    """

    def __init__(
        self,
        magnitude: float = 0.5,
        magnitude_stddev: float = 0.15,
        operations: int = 3,
        rate: float = 10 / 11,
        geometric: bool = True,
    ) -> None:
        shares = {"magnitude": magnitude, "magnitude_stddev": magnitude_stddev, "rate": rate}
        problems = [
            f"batch_augmentation.{name} is {value!r}, expected a number from 0 to 1."
            for name, value in shares.items()
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
        ]
        if isinstance(operations, bool) or not isinstance(operations, int) or operations < 1:
            problems.append(f"batch_augmentation.operations is {operations!r}, expected a whole number from 1 on.")
        if problems:
            raise UserError("\n".join(problems))
        self.magnitude, self.magnitude_stddev = float(magnitude), float(magnitude_stddev)
        self.operations = operations
        self.rate = rate
        self.geometric = geometric
        self._layers = _keras_cv_layers(geometric)

    def check(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        _check_image(inputs)

    def draw(self, size: int, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Columns, for one operation after the other: its number, two strengths from 0 to 1, one from -magnitude to magnitude,
        and a sign."""
        columns: list[np.ndarray] = []
        for _ in range(self.operations):
            chosen = rng.integers(len(self._layers), size=size)
            columns += [
                np.where(rng.random(size) < self.rate, chosen, len(self._layers)),
                *np.clip(rng.normal(self.magnitude, self.magnitude_stddev, (2, size)), 0.0, 1.0),
                rng.uniform(-self.magnitude, self.magnitude, size),
                rng.choice([-1.0, 1.0], size),
            ]
        return np.stack(columns, axis=1).astype(np.float32)

    def __call__(self, inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor], numbers: tf.Tensor) -> Batch:
        masks = [name for name in targets if name in MASKS]
        values = {"image": inputs["image"], **{name: targets[name] for name in masks if name == "mask"}}
        for columns in tf.split(numbers, self.operations, axis=1):
            values = self._apply(values, tf.cast(columns[:, 0], tf.int32), columns[:, 1:])
        mask_targets = dict.fromkeys(masks, values.get("mask"))  # all masks are the same target
        return {**inputs, "image": values["image"]}, {**targets, **mask_targets}

    def _apply(self, values: dict[str, tf.Tensor], chosen: tf.Tensor, strengths: tf.Tensor) -> dict[str, tf.Tensor]:
        """Applies one operation to each image; images with the same operation are changed together."""
        count = len(self._layers) + 1
        places = tf.dynamic_partition(tf.range(tf.shape(chosen)[0]), chosen, count)
        strength = tf.dynamic_partition(strengths, chosen, count)
        groups = {name: tf.dynamic_partition(value, chosen, count) for name, value in values.items()}
        for number, (layer, transformations) in enumerate(self._layers):
            arguments = transformations(*tf.unstack(strength[number], num=4, axis=1))
            for name in values:
                change = layer.augment_images if name == "image" else layer.augment_segmentation_masks
                groups[name][number] = _change_any(change, groups[name][number], arguments)
        return {name: tf.ensure_shape(tf.dynamic_stitch(places, groups[name]), value.shape) for name, value in values.items()}


def _check_image(inputs: Sequence[str]) -> None:
    if "image" not in inputs:
        raise UserError(f"A batch_augmentation changes images, but the model takes only {', '.join(map(repr, inputs))}.")
    if "segmented_image" in inputs:
        raise UserError("A batch_augmentation changes images, but the model also takes lesions cut out of them. Remove it.")


def _check_alpha(alpha: float) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise UserError(f"batch_augmentation.alpha is {alpha!r}, expected a number above 0.")


def _blend(value: tf.Tensor, partners: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Blends each row with its partner; `shares` (B,) are the rows' own."""
    share = tf.reshape(shares, [-1] + [1] * (value.shape.rank - 1))
    return share * value + (1.0 - share) * tf.gather(value, partners)


def _change_any(change: Callable[..., tf.Tensor], values: tf.Tensor, transformations: Any) -> tf.Tensor:
    """Changes images, if there are any: some of keras-cv's operations fail on an empty batch."""

    def changed() -> tf.Tensor:
        logger, level = tf.get_logger(), tf.get_logger().level
        logger.setLevel("ERROR")  # equalisation makes TensorFlow log its own loops
        try:
            return tf.ensure_shape(change(values, transformations=transformations), values.shape)
        finally:
            logger.setLevel(level)

    return tf.cond(tf.shape(values)[0] > 0, changed, lambda: values)


def _keras_cv_layers(geometric: bool) -> list[tuple[Any, Callable[..., Any]]]:
    """keras-cv's layers of RandAugment and, for each, the transformations of its strengths, in keras-cv's ranges.

    A layer's own random draws, and so the factors it is built with, are never used.
    """
    from keras_cv import layers

    def pixels(strength: tf.Tensor) -> tf.Tensor:
        return strength[:, tf.newaxis, tf.newaxis, tf.newaxis]

    def shift(down: tf.Tensor, right: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"height_translations": down[:, tf.newaxis], "width_translations": right[:, tf.newaxis]}

    def shear(x: tf.Tensor | None, y: tf.Tensor | None) -> dict[str, tf.Tensor | None]:
        return {name: None if value is None else value[:, tf.newaxis] for name, value in (("shear_x", x), ("shear_y", y))}

    full, options = (0, 255), {"dtype": "float32", "seed": 0}  # with a seed they leave TensorFlow's global generator alone
    colours: list[tuple[Any, Callable[..., Any]]] = [
        (layers.AutoContrast(full, **options), lambda one, two, even, sign: None),
        (layers.Equalization(full, **options), lambda one, two, even, sign: None),
        (
            layers.Solarization(full, **options),
            lambda one, two, even, sign: {"additions": pixels(110.0 * one), "thresholds": pixels(255.0 * (1.0 - two))},
        ),
        (layers.RandomColorDegeneration(0.5, **options), lambda one, two, even, sign: pixels(one)),
        (layers.RandomContrast(full, 0.5, **options), lambda one, two, even, sign: pixels(1.0 + even)),
        (layers.RandomBrightness(0.5, full, **options), lambda one, two, even, sign: pixels(255.0 * even)),
    ]
    if not geometric:
        return colours
    shears, shifts = layers.RandomShear(0.5, 0.5, **options), layers.RandomTranslation(0.5, 0.5, **options)
    return [
        *colours,
        (shears, lambda one, two, even, sign: shear(sign * one, None)),
        (shears, lambda one, two, even, sign: shear(None, sign * one)),
        (shifts, lambda one, two, even, sign: shift(tf.zeros_like(even), even)),
        (shifts, lambda one, two, even, sign: shift(even, tf.zeros_like(even))),
    ]

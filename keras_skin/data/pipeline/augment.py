"""Augmentation policies: which images make an epoch, and how each of them is changed together with its mask.

A policy is pure: the same arguments and random generator give the same result, in any thread and in any order.
"""

from __future__ import annotations

import importlib.metadata
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np

from keras_skin.registry import Registry, UserError

registry = Registry("augmentation", "keras_skin.data.pipeline.augment")
register, get, names = registry.register, registry.get, registry.names

cv2.setNumThreads(0)  # tf.data runs many batches at once; more threads inside each of them would slow all down

_BORDER = cv2.BORDER_REFLECT_101
LEVEL = "level"
"""In place of a number of copies: as many as make the class as large as the others."""


class Policy(Protocol):
    """An augmentation policy, as the pipeline uses it."""

    changes_images: bool
    """False if `__call__` returns its arguments unchanged; the pipeline then skips the call."""

    def plan(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Chooses the samples of an epoch.

        Args:
            labels: (N,) class names of the training images.
            epoch: number of the epoch, from 0.
            rng: random generator of this epoch.

        Returns:
            indices: (M,) int64, positions in `labels`, with repeats.
            variants: (M,) int64, the variant of each; their numbers belong to the policy.
        """

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, variant: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Changes an image and its mask together, in the same frame.

        Args:
            image: (H, W, 3) uint8.
            mask: (H, W) uint8 with values 0 and 1, or None.
            variant: one of the variants of `plan`.
            rng: random generator of this sample.

        Returns:
            Image and mask of the same shapes and types; the mask has values 0 and 1 only.
        """


@register("none")
@dataclass(frozen=True)
class NoAugmentation:
    """Shows every image once per epoch, unchanged."""

    changes_images = False

    def plan(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return _each_once(labels)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, variant: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return image, mask


@register("jrl_16", paper="001, section 3.2")
@dataclass(frozen=True)
class JRL16:
    """The sixteen rotations and flips of the joint reverse learning paper, which also balance the classes.

    Reference: paper 001, section 3.2: images are augmented by rotations in multiples of 45 degrees and by left-right and up-down
    flips; benign images enter an epoch four times, malignant ones sixteen times (727 x 4 + 173 x 16 = 5676 on ISIC 2016).

    Variants 0 to 7 rotate by 45 degrees times the variant, counter-clockwise. Variants 8 to 11 rotate by 0, 45, 90 and 135
    degrees and then flip left-right, variants 12 to 15 rotate by the same angles and then flip up-down. These are the sixteen
    symmetries of the octagon: a flip up-down is a flip left-right after half a turn, so all of them differ.

    Args:
        copies: how often an image of each class enters an epoch, always as different variants (up to 16), drawn anew each epoch.
            `"level"`: as often as gives the class as many samples as the largest class with a number has; where that is no whole
            number per image, some images enter once more than others, which are drawn anew each epoch.

    **Deviations from the paper.** The paper does not list its sixteen operations. If only malignant images were rotated by 45
    degrees, the filled corners would give the class away: here all classes draw from the same sixteen. A rotation keeps the
    frame and fills the corners with the reflected picture (and the reflected mask), so there are no black corners either.

    Its last experiment (MTL4) adds 404 melanomas "to achieve a more actual balanced dataset" and does not print their copies.
    Sixteen of 577 melanomas against four of 727 benign images (9,232 to 2,908) would turn the balance over; `"level"` is our
    reading for that experiment.
    """

    copies: Mapping[str, int | str] = field(default_factory=lambda: {"benign": 4, "malignant": 16})

    changes_images = True
    variants = 16

    def __post_init__(self) -> None:
        invalid = {
            name: number
            for name, number in self.copies.items()
            if number != LEVEL and (isinstance(number, bool) or not isinstance(number, int) or number < 0)
        }
        if invalid:
            raise UserError(f"augmentation.copies: {invalid} must be whole numbers from 0 on, or '{LEVEL}'.")

    def plan(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        unknown = sorted(set(labels) - set(self.copies))
        if unknown:
            raise UserError(
                f"augmentation.copies lacks the class {', '.join(map(repr, unknown))}: it names "
                f"{', '.join(map(repr, self.copies))}."
            )
        numbers = self._numbers(labels, rng)
        indices = np.repeat(np.arange(len(labels)), numbers)
        rounds = -(-int(numbers.max(initial=0)) // self.variants)
        shuffled = rng.permuted(np.tile(np.arange(self.variants), (len(labels) * rounds, 1)), axis=1).reshape(len(labels), -1)
        return indices, shuffled[np.arange(shuffled.shape[1]) < numbers[:, np.newaxis]]

    def _numbers(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """How often each image enters the epoch, (N,) int64; their sum is the same in every epoch."""
        counts = dict(zip(*np.unique(labels.astype(str), return_counts=True), strict=True))
        samples = [counts[name] * copies for name, copies in self.copies.items() if name in counts and copies != LEVEL]
        target = max(samples, default=max(counts.values(), default=0))
        numbers = np.zeros(len(labels), np.int64)
        for name, count in counts.items():
            each, more = divmod(target, count)
            is_level = self.copies[name] == LEVEL
            numbers[labels == name] = rng.permutation(each + (np.arange(count) < more)) if is_level else self.copies[name]
        return numbers

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, variant: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if variant == 0:
            return image, mask
        height, width = image.shape[:2]
        matrix = octagon_symmetry(int(variant), height, width)
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=_BORDER)
        if mask is not None:
            mask = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=_BORDER)
        return image, mask


def octagon_symmetry(variant: int, height: int, width: int) -> np.ndarray:
    """The (2, 3) matrix that maps pixel (x, y) of a frame to its place after one of the sixteen operations of `JRL16`.

    Every operation keeps the centre of the frame in place.
    """
    turn = variant if variant < 8 else variant % 4
    angle = np.deg2rad(45 * turn)
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = np.array([[cosine, sine], [-sine, cosine]])  # the y axis points down: this turns counter-clockwise on the screen
    if turn % 2 == 0:
        linear = np.round(linear)  # quarter turns move pixels onto pixels
    if variant >= 8:
        linear[0 if variant < 12 else 1] *= -1
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([linear, centre - linear @ centre])


class _Composed(ABC):
    """A policy of albumentations' transforms, which shows every image once per epoch.

    Its arguments are numbers from 0 to 1, or to their entry in `_limits`.
    """

    changes_images = True
    _local: threading.local
    _limits: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        _check_numbers(self, self._limits)

    def plan(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return _each_once(labels)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, variant: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        compose = self._compose()
        compose.set_random_seed(int(rng.integers(2**31)))
        if mask is None:
            return compose(image=image)["image"], None
        changed = compose(image=image, mask=mask)
        return changed["image"], changed["mask"]

    def _compose(self) -> Any:
        """The transforms; one object per thread, because it holds its random state."""
        if not hasattr(self._local, "compose"):
            albumentations = _import_albumentations()
            self._local.compose = albumentations.Compose(self._transforms(albumentations))
        return self._local.compose

    @abstractmethod
    def _transforms(self, albumentations: Any) -> list[Any]:
        """The transforms in their order."""


def _import_albumentations() -> Any:
    """The MIT-licensed albumentations.

    Raises:
        UserError: if AlbumentationsX is installed. It has the same import name, is under the AGPL, and draws other numbers.
    """
    if any(importlib.metadata.distributions(name="albumentationsx")):
        raise UserError(
            "AlbumentationsX is installed. It replaces albumentations under the same name and is under the AGPL licence; "
            "keras_skin uses the MIT-licensed one. Run: pip uninstall albumentationsx albumentations && "
            "pip install 'albumentations<2.1'"
        )
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise it looks for a newer version online
    import albumentations

    return albumentations


@register("flips_rotations")
@dataclass(frozen=True)
class FlipsRotations(_Composed):
    """Random flips, rotation with reflected borders, brightness and contrast, by albumentations; every image once per epoch.

    Args:
        horizontal_flip: probability in 0..1.
        vertical_flip: probability in 0..1.
        rotation: largest angle in degrees, drawn evenly from -rotation..rotation.
        brightness: largest change of brightness, as a share of the full range.
        contrast: largest change of contrast, as a share.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    rotation: float = 15.0
    brightness: float = 0.2
    contrast: float = 0.2
    _local: threading.local = field(init=False, repr=False, compare=False, default_factory=threading.local)

    _limits: ClassVar[Mapping[str, float]] = {"rotation": 180}

    def _transforms(self, albumentations: Any) -> list[Any]:
        return [
            albumentations.HorizontalFlip(p=self.horizontal_flip),
            albumentations.VerticalFlip(p=self.vertical_flip),
            albumentations.Rotate((-self.rotation, self.rotation), border_mode=_BORDER, p=1.0),
            albumentations.RandomBrightnessContrast((-self.brightness, self.brightness), (-self.contrast, self.contrast), p=1.0),
        ]


@register("dualrefnet", paper="004, section Classification results")
@dataclass(frozen=True)
class DualRefNetAugmentation(_Composed):
    """Random flips, scale, brightness, contrast, saturation and noise, by albumentations; every image once per epoch.

    Source: Khurshid et al., Scientific Reports, 2025, section "Classification results": "flips, random scaling,
    brightness/contrast changes, saturation adjustments, and noise".

    Args:
        horizontal_flip: probability in 0..1.
        vertical_flip: probability in 0..1.
        scale: largest change of the scale about the centre, up to 0.9: a factor from 1 - scale to 1 + scale, the same for height
            and width. The frame stays; a smaller picture is surrounded by its reflection.
        brightness: largest change of brightness, as a share of the full range.
        contrast: largest change of contrast, as a share.
        saturation: largest change of saturation, as a share: 0.2 mixes the image with its grey version by up to a fifth, or
            moves as far away from it.
        noise: largest standard deviation of Gaussian noise, as a share of the full range; that of an image is drawn evenly from
            0..noise.

    **Deviations from the paper.** It prints no ranges: these are the usual fifths, and noise that is hardly visible.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    scale: float = 0.2
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    noise: float = 0.03
    _local: threading.local = field(init=False, repr=False, compare=False, default_factory=threading.local)

    _limits: ClassVar[Mapping[str, float]] = {"scale": 0.9}

    def _transforms(self, albumentations: Any) -> list[Any]:
        same = (1.0, 1.0)
        return [
            albumentations.HorizontalFlip(p=self.horizontal_flip),
            albumentations.VerticalFlip(p=self.vertical_flip),
            albumentations.Affine(scale=(1 - self.scale, 1 + self.scale), keep_ratio=True, border_mode=_BORDER, p=1.0),
            albumentations.RandomBrightnessContrast((-self.brightness, self.brightness), (-self.contrast, self.contrast), p=1.0),
            albumentations.ColorJitter(same, same, (1 - self.saturation, 1 + self.saturation), (0.0, 0.0), p=1.0),
            albumentations.GaussNoise((0.0, self.noise), p=1.0),
        ]


@register("dermoscopy")
@dataclass(frozen=True)
class Dermoscopy:
    """Any rotation, flips, scale and shift in one warp with reflected borders, and a change of light and colour; every image once
    per epoch.

    A dermoscopic image has no upward direction, and its colours depend on the camera and the light. The lesion stays in the
    frame: where a rotation or shift would move the centre of the mask out of the inner four fifths of the frame, the image is
    shifted back that far. Images without a mask are not shifted back.

    Args:
        rotation: largest angle in degrees, drawn evenly from -rotation..rotation.
        scale: largest change of the scale: a factor from 1 / (1 + scale) to 1 + scale, the same for height and width; 0.25 is a
            factor from 0.8 to 1.25.
        shift: largest shift in each direction, as a share of the frame's height and width.
        colour: largest change of each colour channel, as a share: factors drawn evenly from 1 - colour..1 + colour.
        brightness: largest change of brightness, as a share of the full range.
        contrast: largest change of contrast about the image's mean, as a share.
    """

    rotation: float = 180.0
    scale: float = 0.25
    shift: float = 0.1
    colour: float = 0.15
    brightness: float = 0.15
    contrast: float = 0.2

    changes_images = True

    def __post_init__(self) -> None:
        _check_numbers(self, {"rotation": 180, "shift": 0.5})

    def plan(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return _each_once(labels)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, variant: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        height, width = image.shape[:2]
        matrix = self._matrix(mask, height, width, rng)
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=_BORDER)
        if mask is not None:
            mask = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=_BORDER)
        return cv2.LUT(image, self._colours(image, rng)), mask

    def _matrix(self, mask: np.ndarray | None, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """The (2, 3) matrix that maps pixel (x, y) to its place after the warp."""
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        factor = np.exp(rng.uniform(-1, 1) * np.log1p(self.scale))
        cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
        linear = np.array([[cosine, sine], [-sine, cosine]]) * rng.choice([-1, 1], 2)
        size = np.array([width, height])
        centre = (size - 1) / 2
        offset = centre - linear @ centre + rng.uniform(-self.shift, self.shift, 2) * size
        if mask is not None and (moments := cv2.moments(mask, binaryImage=True))["m00"]:
            lesion = linear @ (np.array([moments["m10"], moments["m01"]]) / moments["m00"]) + offset
            offset += np.clip(lesion, 0.1 * size, 0.9 * size) - lesion
        return np.column_stack([linear, offset])

    def _colours(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The new value of each value of each channel, (1, 256, 3) uint8."""
        gains = rng.uniform(1 - self.colour, 1 + self.colour, 3)
        contrast, brightness = (
            1 + rng.uniform(-self.contrast, self.contrast),
            255 * rng.uniform(-self.brightness, self.brightness),
        )
        mean = np.array(cv2.mean(image)[:3])
        values = ((np.arange(256)[:, np.newaxis] - mean) * contrast + mean) * gains + brightness
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)[np.newaxis]


def _check_numbers(policy: Any, limits: Mapping[str, float]) -> None:
    """Raises a UserError that names every argument that is not a number from 0 to its limit (1 where `limits` has none)."""
    problems = [
        f"augmentation.{name} is {value!r}, expected a number from 0 to {limits.get(name, 1)}."
        for name, value in vars(policy).items()
        if name != "_local" and (not isinstance(value, int | float) or not 0 <= value <= limits.get(name, 1))
    ]
    if problems:
        raise UserError("\n".join(problems))


def _each_once(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(labels), dtype=np.int64), np.zeros(len(labels), np.int64)

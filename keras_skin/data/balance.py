"""What an epoch draws from: samplers, which resample the training part and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from keras_skin.registry import Registry, UserError

registry = Registry("balancing", "keras_skin.data.balance")
register, get, names = registry.register, registry.get, registry.names


@dataclass(frozen=True)
class Draw:
    """The samples of one epoch, before they are put in order.

    Attributes:
        rows: (M,) int64, rows of the training table, with repeats.
        partners: (M,) int64, for each sample the row whose image is blended into it; None for no blending at all.
        shares: (M,) float32, the partner's share in the blend, from 0 (the sample's own image alone) to below 1.
    """

    rows: np.ndarray
    partners: np.ndarray | None = None
    shares: np.ndarray | None = None


class Sampler(Protocol):
    """Chooses what an epoch draws from."""

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        """Chooses the samples of an epoch, the same number in every epoch.

        Args:
            labels: (N,) class names of the training images.
            epoch: number of the epoch, from 0.
            rng: random generator of this epoch.
        """


class Balancing(Sampler, Protocol):
    """A sampler that decides how many samples of each class an epoch has."""

    def counts(self, labels: np.ndarray) -> dict[str, int]:
        """Samples of each class in an epoch, classes sorted by name.

        Args:
            labels: (N,) class names of the training images.
        """


@register("oversample")
@dataclass(frozen=True)
class Oversample:
    """Shows the images of small classes several times per epoch, each time augmented anew.

    Every image is shown at least once. What a class lacks is dealt evenly: no image is shown more than once more often than
    another of its class, and which ones are is drawn anew each epoch.

    Args:
        target: samples of each class in an epoch: `"majority"` for as many as the largest class has, or a number. Classes that
            have more keep all their images.
    """

    target: str | int = "majority"

    def __post_init__(self) -> None:
        _check_target(self.target)

    def counts(self, labels: np.ndarray) -> dict[str, int]:
        return _at_least(labels, self.target)

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        return _repeat(labels, self.counts(labels), rng)


@register("partial", paper="002, section 4.2")
@dataclass(frozen=True)
class Partial:
    """Lets small classes grow towards the largest one, without making all equal.

    Reference: paper 002, section 4.2: majority classes keep their presence and lose their dominance, smaller classes are expanded
    by augmentation; strictly equal classes would need too many copies of too few images.

    A class of n images gets n^(1 - strength) * n_max^strength samples, rounded, n_max being the size of the largest class: on
    the scale of logarithms each class goes the same part of its way. Shares therefore keep their order, and the largest class
    keeps each of its images once. Images are repeated as by `oversample`.

    Args:
        strength: from 0 (the natural counts) to 1 (all classes as large as the largest).

    **Deviations from the paper.** The paper states the aim and shows bar charts without numbers; rule and strength are ours.
    """

    strength: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float) or not 0 <= self.strength <= 1:
            raise UserError(f"balancing.strength is {self.strength!r}, expected a number from 0 to 1.")

    def counts(self, labels: np.ndarray) -> dict[str, int]:
        natural = _natural(labels)
        largest = max(natural.values(), default=0)
        return {
            name: max(number, round(number ** (1 - self.strength) * largest**self.strength)) for name, number in natural.items()
        }

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        return _repeat(labels, self.counts(labels), rng)


@register("smote", paper="003, section III-A", needs_features=True)
class Smote:
    """Fills up small classes with blends of two similar images of the same class.

    Reference: Chawla et al., SMOTE, JAIR 16 (2002) 321-357: a synthetic sample is x_i + share * (x_j - x_i) with x_j one of the
    k nearest neighbours of x_i in its class and the share drawn evenly from 0 to 1. Paper 003, section III-A: data of small
    classes are created by combining those that there are.

    Every image is shown once; the samples that a class lacks are blends. Their first images are dealt evenly over the class, as
    in Chawla's algorithm. `fit` must be called before the first draw, with the training part only. k is the smaller of
    `neighbours` and the number of the other images in the class; a class of one image is repeated instead, which `notes` says.

    Args:
        target: samples of each class in an epoch: `"majority"` for as many as the largest class has, or a number. Classes that
            have more keep all their images.
        neighbours: k, from 1.

    Attributes:
        notes: what a user should know of the classes that were fitted, one sentence each.

    **Deviations from the paper.** SMOTE interpolates feature vectors; a network that is trained end to end needs images, so
    neighbours are found by features and their images are blended, each augmented by itself. Paper 003 gives neither target nor
    k: these are the defaults of imbalanced-learn.
    """

    def __init__(self, target: str | int = "majority", neighbours: int = 5) -> None:
        _check_target(target)
        if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
            raise UserError(f"balancing.neighbours is {neighbours!r}, expected a whole number from 1 on.")
        self.target = target
        self.neighbours = neighbours
        self.notes: list[str] = []
        self._labels = np.empty(0, object)
        self._near: dict[str, np.ndarray] = {}

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Smote:
        """Finds the neighbours of the images of every class that is to grow.

        Args:
            features: (N, D) finite numbers, one row per training image; distances are Euclidean.
            labels: (N,) class names of the same images.

        Returns:
            The sampler itself.
        """
        from sklearn.neighbors import NearestNeighbors

        features, labels = np.asarray(features), np.asarray(labels, object)
        if features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all():
            raise ValueError(f"Expected a matrix of finite features with {len(labels)} rows, got shape {features.shape}.")
        self._labels, self._near, self.notes = labels, {}, []
        for name, number in self.counts(labels).items():
            rows = np.flatnonzero(labels == name)
            if len(rows) == number:
                continue
            if len(rows) == 1:
                self.notes.append(
                    f"Balancing: the one training image of {name!r} has no neighbour to blend with; it is repeated."
                )
                self._near[name] = rows[:, np.newaxis]
            else:
                nearest = NearestNeighbors(n_neighbors=min(self.neighbours, len(rows) - 1)).fit(features[rows])
                self._near[name] = rows[nearest.kneighbors(return_distance=False)]  # without the image itself
        return self

    def counts(self, labels: np.ndarray) -> dict[str, int]:
        return _at_least(labels, self.target)

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        if not np.array_equal(self._labels, labels):
            raise ValueError("SMOTE draws from the images that it was fitted with; fit it with features of the training part.")
        rows = partners = np.arange(len(labels), dtype=np.int64)
        for name, number in self.counts(labels).items():
            members = np.flatnonzero(labels == name)
            if number == len(members):
                continue
            places = _deal(len(members), number - len(members), rng)
            near = self._near[name]
            rows = np.concatenate([rows, members[places]])
            partners = np.concatenate([partners, near[places, rng.integers(near.shape[1], size=len(places))]])
        shares = rng.random(len(rows), dtype=np.float32)
        return Draw(rows, partners, np.where(rows == partners, np.float32(0), shares))


def _check_target(target: str | int) -> None:
    number = isinstance(target, int) and not isinstance(target, bool) and target > 0
    if target != "majority" and not number:
        raise UserError(f"balancing.target is {target!r}, expected 'majority' or a whole number of samples per class.")


def _natural(labels: np.ndarray) -> dict[str, int]:
    found, numbers = np.unique(np.asarray(labels, object), return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))


def _at_least(labels: np.ndarray, target: str | int) -> dict[str, int]:
    natural = _natural(labels)
    wanted = max(natural.values(), default=0) if isinstance(target, str) else target
    return {name: max(number, wanted) for name, number in natural.items()}


def _repeat(labels: np.ndarray, counts: Mapping[str, int], rng: np.random.Generator) -> Draw:
    classes = [(np.flatnonzero(labels == name), number) for name, number in counts.items()]
    return Draw(np.concatenate([members[_deal(len(members), number, rng)] for members, number in classes]))


def _deal(cards: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """`number` places of 0..cards-1, none of them more than once more often than another."""
    rounds, rest = divmod(number, cards)
    return np.concatenate([np.tile(np.arange(cards), rounds), rng.permutation(cards)[:rest]])

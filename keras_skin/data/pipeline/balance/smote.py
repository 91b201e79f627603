"""Balancing by blends: small classes are filled up with mixtures of two similar images."""

from __future__ import annotations

import numpy as np

from keras_skin.data.pipeline.balance import Draw, register
from keras_skin.data.pipeline.balance.counts import at_least, check_target, deal
from keras_skin.registry import UserError


@register("smote", paper="003, section III-A", needs_features=True)
class Smote:
    """Fills up small classes with blends of two similar images of the same class.

    Reference: Chawla et al., SMOTE, JAIR 16 (2002) 321-357: a synthetic sample is x_i + share * (x_j - x_i) with x_j one of the
    k nearest neighbours of x_i in its class and the share drawn evenly from 0 to 1. Paper 003, section III-A: data of small
    classes are created by combining existing ones.

    Every image is shown once; the missing samples of a class are blends. Their first images are dealt evenly over the class, as
    in Chawla's algorithm. `fit` must be called before the first draw, with the training split only. k is the smaller of
    `neighbours` and the number of the other images in the class; a class of one image is repeated, and `notes` reports it.

    Args:
        target: samples of each class in an epoch: `"majority"` for as many as the largest class has, or a number. Classes that
            have more keep all their images.
        neighbours: k, from 1.

    Attributes:
        notes: sentences about the fitted classes, for users.

    **Deviations from the paper.** SMOTE interpolates feature vectors; a network that is trained end to end needs images, so
    neighbours are found by features and their images are blended, each augmented by itself. Paper 003 gives neither target nor
    k: these are the defaults of imbalanced-learn.
    """

    def __init__(self, target: str | int = "majority", neighbours: int = 5) -> None:
        check_target(target)
        if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
            raise UserError(f"balancing.neighbours is {neighbours!r}, expected a whole number from 1 on.")
        self.target = target
        self.neighbours = neighbours
        self.notes: list[str] = []
        self._labels = np.empty(0, object)
        self._near: dict[str, np.ndarray] = {}

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Smote:
        """Finds the neighbours of the images of every class that grows.

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
        return at_least(labels, self.target)

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        if not np.array_equal(self._labels, labels):
            raise ValueError("SMOTE draws from the images that it was fitted with; fit it with features of the training split.")
        rows = partners = np.arange(len(labels), dtype=np.int64)
        for name, number in self.counts(labels).items():
            members = np.flatnonzero(labels == name)
            if number == len(members):
                continue
            places = deal(len(members), number - len(members), rng)
            near = self._near[name]
            rows = np.concatenate([rows, members[places]])
            partners = np.concatenate([partners, near[places, rng.integers(near.shape[1], size=len(places))]])
        shares = rng.random(len(rows), dtype=np.float32)
        return Draw(rows, partners, np.where(rows == partners, np.float32(0), shares))

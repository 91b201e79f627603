"""Samplers, which choose the samples of an epoch from the training split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from keras_skin.registry import Registry

registry = Registry("balancing", "keras_skin.data.pipeline.balance")
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
    """Chooses the samples of an epoch."""

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

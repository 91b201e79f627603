"""How many samples of each class an epoch has, and of which images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_skin.data.pipeline.balance import Draw
from keras_skin.registry import UserError


def check_target(target: str | int) -> None:
    """Checks that a target is `"majority"` or a number of samples."""
    number = isinstance(target, int) and not isinstance(target, bool) and target > 0
    if target != "majority" and not number:
        raise UserError(f"balancing.target is {target!r}, expected 'majority' or a whole number of samples per class.")


def natural(labels: np.ndarray) -> dict[str, int]:
    """Images of each class, classes sorted by name."""
    names, numbers = np.unique(np.asarray(labels, object), return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def at_least(labels: np.ndarray, target: str | int) -> dict[str, int]:
    """Samples of each class: as many as it has images, but at least `target`."""
    images = natural(labels)
    least = max(images.values(), default=0) if isinstance(target, str) else target
    return {name: max(number, least) for name, number in images.items()}


def repeat(labels: np.ndarray, counts: Mapping[str, int], rng: np.random.Generator) -> Draw:
    """Repeats the images of each class evenly until they make its count."""
    classes = [(np.flatnonzero(labels == name), number) for name, number in counts.items()]
    return Draw(np.concatenate([members[deal(len(members), number, rng)] for members, number in classes]))


def deal(cards: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Deals `number` cards of 0..cards-1; their frequencies differ by at most one."""
    rounds, rest = divmod(number, cards)
    return np.concatenate([np.tile(np.arange(cards), rounds), rng.permutation(cards)[:rest]])

"""Balancing by repeats: the images of small classes are shown several times per epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_skin.data.pipeline.balance import Draw, register
from keras_skin.data.pipeline.balance.counts import at_least, check_target, natural, repeat
from keras_skin.registry import UserError


@register("none")
@dataclass(frozen=True)
class NoBalancing:
    """Shows every image once per epoch."""

    def counts(self, labels: np.ndarray) -> dict[str, int]:
        return natural(labels)

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        return Draw(np.arange(len(labels)))


@register("oversample")
@dataclass(frozen=True)
class Oversample:
    """Shows the images of small classes several times per epoch, each time augmented anew.

    Every image is shown at least once. Repeats are dealt evenly: the frequencies of a class's images differ by at most one, and
    which images are repeated is drawn anew each epoch.

    Args:
        target: samples of each class in an epoch: `"majority"` for as many as the largest class has, or a number. Classes that
            have more keep all their images.
    """

    target: str | int = "majority"

    def __post_init__(self) -> None:
        check_target(self.target)

    def counts(self, labels: np.ndarray) -> dict[str, int]:
        return at_least(labels, self.target)

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        return repeat(labels, self.counts(labels), rng)


@register("partial", paper="002, section 4.2")
@dataclass(frozen=True)
class Partial:
    """Lets small classes grow towards the largest one, without making all equal.

    Reference: paper 002, section 4.2: majority classes keep their presence and lose their dominance, smaller classes are expanded
    by augmentation; strictly equal classes would need too many copies of too few images.

    A class of n images gets n^(1 - strength) * n_max^strength samples, rounded, n_max being the size of the largest class: on
    a logarithmic scale each class goes the same share of its way. Shares therefore keep their order, and the largest class
    keeps each of its images once. Images are repeated as by `oversample`.

    Args:
        strength: from 0 (the natural counts) to 1 (all classes as large as the largest).

    **Deviations from the paper.** It states the aim and shows bar charts without numbers; the rule and the strength are ours.
    """

    strength: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float) or not 0 <= self.strength <= 1:
            raise UserError(f"balancing.strength is {self.strength!r}, expected a number from 0 to 1.")

    def counts(self, labels: np.ndarray) -> dict[str, int]:
        images = natural(labels)
        largest = max(images.values(), default=0)
        return {
            name: max(number, round(number ** (1 - self.strength) * largest**self.strength)) for name, number in images.items()
        }

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> Draw:
        return repeat(labels, self.counts(labels), rng)

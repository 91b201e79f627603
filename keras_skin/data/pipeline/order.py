"""Which samples an epoch shows, in what order, and from which random streams: pure functions of (seed, epoch, index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_skin.data.pipeline.augment import Policy
from keras_skin.data.pipeline.balance import Draw, Sampler
from keras_skin.registry import UserError

ORDER, PLAN, SAMPLE, PARTNER, BATCH = range(5)
"""Independent random streams of one (seed, epoch)."""


@dataclass(frozen=True)
class Plan:
    """Samples of an epoch.

    Attributes:
        rows: (M,) int64, rows of the training table.
        variants: (M,) int64, the augmentation's variant of each.
        partners: (M,) int64, the row that is blended into each sample.
        shares: (M,) float32, the partner's share, from 0 to below 1.
    """

    rows: np.ndarray
    variants: np.ndarray
    partners: np.ndarray
    shares: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: np.ndarray | slice) -> Plan:
        return Plan(self.rows[places], self.variants[places], self.partners[places], self.shares[places])


class EpochOrder:
    """The order of every epoch: a random permutation of the samples that sampler and augmentation choose.

    A last batch of a single sample is left out, unless it is the only one, since batch normalisation needs more. Other partial
    batches are kept. Where `steps_per_epoch` cuts epochs short, each epoch still starts with different images.

    Args:
        labels: (N,) class names of the training images.
        batch_size: number of samples in a batch.
        seed: decides every random stream.
        sampler: chooses the rows of an epoch; None takes each once.
        augmentation: chooses variants, and repeats where there is no sampler.
        steps_per_epoch: cuts epochs short.

    Attributes:
        steps: number of steps of an epoch, the same for all.

    Raises:
        UserError: if sampler and augmentation both decide how often an image is shown.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        sampler: Sampler | None,
        augmentation: Policy,
        steps_per_epoch: int | None,
    ) -> None:
        self.labels = labels
        self.batch_size = batch_size
        self._seed = seed
        self._sampler = sampler
        self._augmentation = augmentation
        self._max_steps = steps_per_epoch
        self.steps = self._count_steps(len(self.plan(0)))

    def random(self, epoch: int, stream: int, index: int = 0) -> np.random.Generator:
        """The generator of one stream of an epoch."""
        return np.random.default_rng(np.random.SeedSequence([self._seed, epoch], spawn_key=(stream, index)))

    def draw(self, epoch: int) -> Draw:
        """The sampler's draw for an epoch."""
        return self._draw(epoch, self.random(epoch, PLAN))

    def plan(self, epoch: int) -> Plan:
        """The samples of an epoch, before they are put in order."""
        rng = self.random(epoch, PLAN)
        draw = self._draw(epoch, rng)
        rows = np.asarray(draw.rows, np.int64)
        partners = rows if draw.partners is None else np.asarray(draw.partners, np.int64)
        shares = np.zeros(len(rows), np.float32) if draw.shares is None else np.asarray(draw.shares, np.float32)
        indices, variants = self._augmentation.plan(self.labels[rows], epoch, rng)
        if self._sampler is not None and len(indices) != len(rows):
            raise UserError(
                f"The augmentation {type(self._augmentation).__name__} decides how often images of each class are shown, "
                f"and so does the balancing {type(self._sampler).__name__}. Choose one of them: another augmentation (such as "
                "'flips_rotations'), or no balancing."
            )
        return Plan(rows[indices], variants, partners[indices], shares[indices])

    def samples(self, epoch: int) -> Plan:
        """The samples of an epoch in their order."""
        plan = self.plan(epoch)
        if self._count_steps(len(plan)) != self.steps:
            raise ValueError(
                f"Epoch {epoch} has {len(plan)} samples, which do not make the {self.steps} steps of the first epoch: "
                "a sampler must draw the same number in every epoch."
            )
        return plan[self.random(epoch, ORDER).permutation(len(plan))[: self.steps * self.batch_size]]

    def _draw(self, epoch: int, rng: np.random.Generator) -> Draw:
        return self._sampler.draw(self.labels, epoch, rng) if self._sampler else Draw(np.arange(len(self.labels)))

    def _count_steps(self, samples: int) -> int:
        steps = -(-samples // self.batch_size)
        if samples % self.batch_size == 1 and steps > 1 and self.batch_size > 1:
            steps -= 1
        return steps if self._max_steps is None else min(steps, self._max_steps)

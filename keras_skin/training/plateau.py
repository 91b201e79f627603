"""A learning rate that falls where the monitored value no longer improves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import keras

from keras_skin.registry import UserError
from keras_skin.training.best_weights import BestWeights

logger = logging.getLogger("keras_skin.training")


@dataclass(frozen=True)
class Plateau:
    """When the learning rate falls, and how far.

    Args:
        factor: what it is multiplied by, above 0, at most 1.
        patience: epochs without improvement before it falls, 1 or more; counted anew after each fall.

    Raises:
        UserError: naming every value that is out of range.
    """

    factor: float
    patience: int

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.factor <= 1:
            problems.append(f"factor is {self.factor}, expected above 0 and at most 1")
        if self.patience < 1:
            problems.append(f"patience is {self.patience}, expected 1 or more")
        if problems:
            raise UserError("The learning rate on a plateau: " + "; ".join(problems) + ".")


class FallOnPlateau(keras.callbacks.Callback):
    """Lowers the learning rate after epochs without a better value of what also decides on the best epoch.

    The rate itself is a variable of the optimizer, and so part of the run state. It acts on all variables alike: where a backbone
    has a rate of its own (`unfreeze`), that stays the same share of it.

    Args:
        plateau: when, and how far.
        best: knows the best epoch; it must stand before this callback.
    """

    def __init__(self, plateau: Plateau, best: BestWeights) -> None:
        super().__init__()
        self.plateau = plateau
        self.best = best
        self.fell_after = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Lowers the rate if it is time."""
        if epoch + 1 - max(self.best.best_epoch or 0, self.fell_after) < self.plateau.patience:
            return
        self.fell_after = epoch + 1
        before = float(self.model.optimizer.learning_rate)
        self.model.optimizer.learning_rate = before * self.plateau.factor
        logger.info(
            f"learning rate {before:.2g} -> {before * self.plateau.factor:.2g}: {self.plateau.patience} epochs without a better "
            f"{' and '.join(self.best.monitor.names)}"
        )

    def get_state(self) -> dict[str, Any]:
        """What the run state keeps of this callback."""
        return {"fell_after": self.fell_after}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from `get_state`."""
        self.fell_after = state["fell_after"]

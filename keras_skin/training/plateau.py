"""Lowers the learning rate where the monitored value no longer improves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import keras

from keras_skin.training.best_weights import BestWeights

logger = logging.getLogger("keras_skin.training")


@dataclass(frozen=True)
class Plateau:
    """The schedule `plateau`: when the learning rate falls, and how far.

    Args:
        factor: factor of each fall, above 0, at most 1.
        patience: epochs without improvement before a fall, 1 or more; the count restarts after each fall.
    """

    factor: float
    patience: int


class FallOnPlateau(keras.callbacks.Callback):
    """Lowers the learning rate after epochs without a new best epoch.

    The rate is a variable of the optimizer, hence in the run state. A backbone's rate (`unfreeze`) stays the same share of it.

    Args:
        plateau: when the rate falls, and how far.
        best: the callback that finds the best epoch; it must come before this one.
    """

    def __init__(self, plateau: Plateau, best: BestWeights) -> None:
        super().__init__()
        self.plateau = plateau
        self.best = best
        self.fell_after = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch + 1 - max(self.best.best_epoch or 0, self.fell_after) < self.plateau.patience:
            return
        self.fell_after = epoch + 1
        rate = float(self.model.optimizer.learning_rate)
        self.model.optimizer.learning_rate = rate * self.plateau.factor
        logger.info(
            f"learning rate {rate:.2g} -> {rate * self.plateau.factor:.2g}: {self.plateau.patience} epochs without a better "
            f"{' and '.join(self.best.monitor.names)}"
        )

    def get_state(self) -> dict[str, Any]:
        return {"fell_after": self.fell_after}

    def set_state(self, state: dict[str, Any]) -> None:
        self.fell_after = state["fell_after"]

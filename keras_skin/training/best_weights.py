"""The weights of the best epoch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from keras_skin.registry import UserError, atomic_path
from keras_skin.training.monitor import Monitor


class BestWeights(keras.callbacks.Callback):
    """Writes the weights whenever the monitored value improves, and stops a training that has ceased to improve.

    Args:
        path: the file, ending in `.weights.h5`.
        monitor: what is to improve.
        patience: stop after this many epochs without improvement; None never stops.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: Monitor, patience: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.monitor = monitor
        self.patience = patience
        self.best_epoch: int | None = None
        self.best_value: float | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares this epoch with the best one before."""
        value = self.monitor.value(logs or {})
        if self.monitor.improves(value, self.best_value):
            self.best_epoch, self.best_value = epoch + 1, value
            save_weights(self.model, self.path)
        elif self.patience is not None and epoch + 1 - (self.best_epoch or 0) >= self.patience:
            self.model.stop_training = True

    def get_state(self) -> dict[str, Any]:
        """What the run state keeps of this callback."""
        return {"monitor": str(self.monitor), "best_epoch": self.best_epoch, "best_value": self.best_value}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from `get_state`.

        Raises:
            UserError: if another value was monitored before, or the weights of the best epoch are gone.
        """
        if state["monitor"] != str(self.monitor):
            raise UserError(f"So far the best epoch was chosen by {state['monitor']}; it cannot go on by {self.monitor}.")
        if state["best_epoch"] is not None and not self.path.is_file():
            raise UserError(f"{self.path} is missing: it held the weights of epoch {state['best_epoch']}, the best so far.")
        self.best_epoch, self.best_value = state["best_epoch"], state["best_value"]


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a functional model as a `.weights.h5` file, which takes its name only when it is complete.

    Of a compiled model Keras would write the optimizer's variables, too, which makes the file three times as large. An uncompiled
    model of the same layers is saved instead.
    """
    with atomic_path(path) as temporary:
        unfinished = temporary.with_name(f"{temporary.stem}.weights.h5")  # Keras insists on this ending
        try:
            _uncompiled(model).save_weights(unfinished)
            os.replace(unfinished, temporary)
        finally:
            unfinished.unlink(missing_ok=True)


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads what `save_weights` wrote, also into a compiled model, where Keras' own would miss the optimizer's variables."""
    _uncompiled(model).load_weights(path)


def _uncompiled(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.output)

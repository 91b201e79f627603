"""The weights of the best epoch."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import keras

from keras_skin.registry import UserError, atomic_path
from keras_skin.training.monitor import Monitor

EPOCH_PREFIX = "best_epoch_"


class BestWeights(keras.callbacks.Callback):
    """Writes the weights whenever the monitored value improves, and stops a training that no longer improves.

    The weights of each better epoch go into `best_epoch_<number>.weights.h5`. The run state names that file by epoch and SHA-256.
    A kill between the two files leaves weights that no state names; those are never used. When the training ends, `publish` makes
    the named file available as `path`.

    Args:
        path: the published file, ending in `.weights.h5`.
        monitor: the value that should improve.
        patience: stop after this many epochs without improvement; None never stops.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: Monitor, patience: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.monitor = monitor
        self.patience = patience
        self.best_epoch: int | None = None
        self.best_value: float | None = None
        self._sha256: str | None = None

    def epoch_path(self, epoch: int) -> Path:
        """Returns the weights file of an epoch (from 1)."""
        return self.path.with_name(f"{EPOCH_PREFIX}{epoch}.weights.h5")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        value = self.monitor.value(logs or {})
        if self.monitor.improves(value, self.best_value):
            self.best_epoch, self.best_value = epoch + 1, value
            save_weights(self.model, self.epoch_path(epoch + 1))
            self._sha256 = _digest(self.epoch_path(epoch + 1))
        elif self.patience is not None and epoch + 1 - (self.best_epoch or 0) >= self.patience:
            self.model.stop_training = True

    def get_state(self) -> dict[str, Any]:
        return {
            "monitor": str(self.monitor),
            "best_epoch": self.best_epoch,
            "best_value": self.best_value,
            "sha256": self._sha256,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Resumes from `get_state`.

        Raises:
            UserError: if another value was monitored before, or the file of the best epoch is missing or changed.
        """
        if state["monitor"] != str(self.monitor):
            raise UserError(f"The run's best epoch was chosen by {state['monitor']}, so it cannot resume with {self.monitor}.")
        if state["best_epoch"] is not None:
            path = self.epoch_path(state["best_epoch"])
            if not path.is_file():
                raise UserError(f"{path} is missing: it holds the weights of epoch {state['best_epoch']}, the best so far.")
            if _digest(path) != state["sha256"]:
                raise UserError(
                    f"{path} has changed: it does not hold the weights of epoch {state['best_epoch']} that the run state names. "
                    "Restore the file, or start a new run."
                )
        self.best_epoch, self.best_value, self._sha256 = state["best_epoch"], state["best_value"], state["sha256"]

    def on_state_saved(self) -> None:
        """Removes the weights of other epochs, except the previous best epoch as a spare."""
        pattern = re.compile(rf"{EPOCH_PREFIX}(\d+)\.weights\.h5")
        matches = (pattern.fullmatch(path.name) for path in self.path.parent.iterdir())
        epochs = [int(match[1]) for match in matches if match]
        best = self.best_epoch or 0
        spare = max((epoch for epoch in epochs if epoch < best), default=0)
        for epoch in epochs:
            if epoch not in (best, spare):
                self.epoch_path(epoch).unlink(missing_ok=True)

    def publish(self) -> None:
        """Makes the weights of the best epoch available as `path`."""
        if self.best_epoch is None:
            return
        with atomic_path(self.path) as temporary:
            try:
                os.link(self.epoch_path(self.best_epoch), temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.epoch_path(self.best_epoch), temporary)


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights of a functional model to a `.weights.h5` file, complete or not at all.

    For a compiled model, Keras would also write the optimizer's variables, which triples the size of the file. Therefore an
    uncompiled model of the same layers is saved.
    """
    with atomic_path(path) as temporary:
        unfinished = temporary.with_name(f"{temporary.stem}.weights.h5")  # Keras requires this suffix
        try:
            _uncompiled(model).save_weights(unfinished)
            os.replace(unfinished, temporary)
        finally:
            unfinished.unlink(missing_ok=True)


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads a file of `save_weights`, also into a compiled model, for which Keras would expect the optimizer's variables."""
    _uncompiled(model).load_weights(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uncompiled(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.output)

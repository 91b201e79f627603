"""The weights of the best epoch."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import keras

from keras_skin.registry import UserError, atomic_path
from keras_skin.training.monitor import Monitor

EPOCH_PREFIX = "best_epoch_"


class BestWeights(keras.callbacks.Callback):
    """Writes the weights whenever the monitored value improves, and stops a training that has ceased to improve.

    The weights of each better epoch get a file of their own, `best_epoch_<number>.weights.h5`. The run state names the file by
    epoch and SHA-256, so a kill between the two files leaves weights that no state names, and those are never used. When the
    training ends, the named file is published as `path`.

    Args:
        path: the published file, ending in `.weights.h5`.
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
        self._sha256: str | None = None

    def epoch_path(self, epoch: int) -> Path:
        """The weights of an epoch (from 1)."""
        return self.path.with_name(f"{EPOCH_PREFIX}{epoch}.weights.h5")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares this epoch with the best one before."""
        value = self.monitor.value(logs or {})
        if self.monitor.improves(value, self.best_value):
            self.best_epoch, self.best_value = epoch + 1, value
            save_weights(self.model, self.epoch_path(epoch + 1))
            self._sha256 = _digest(self.epoch_path(epoch + 1))
        elif self.patience is not None and epoch + 1 - (self.best_epoch or 0) >= self.patience:
            self.model.stop_training = True

    def get_state(self) -> dict[str, Any]:
        """What the run state keeps of this callback."""
        return {
            "monitor": str(self.monitor),
            "best_epoch": self.best_epoch,
            "best_value": self.best_value,
            "sha256": self._sha256,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from `get_state`.

        Raises:
            UserError: if another value was monitored before, or the file of the best epoch is missing or another.
        """
        if state["monitor"] != str(self.monitor):
            raise UserError(f"So far the best epoch was chosen by {state['monitor']}; it cannot go on by {self.monitor}.")
        if state["best_epoch"] is not None:
            path = self.epoch_path(state["best_epoch"])
            if not path.is_file():
                raise UserError(f"{path} is missing: it held the weights of epoch {state['best_epoch']}, the best so far.")
            if _digest(path) != state["sha256"]:
                raise UserError(
                    f"{path} does not hold the weights of epoch {state['best_epoch']} that the run state names: the file was "
                    "changed. Restore it, or start a new run."
                )
        self.best_epoch, self.best_value, self._sha256 = state["best_epoch"], state["best_value"], state["sha256"]

    def on_state_saved(self) -> None:
        """Removes the weights of other epochs; the best epoch before this one stays as a spare."""
        prefix, suffix = EPOCH_PREFIX, ".weights.h5"
        numbers = {
            int(path.name.removeprefix(prefix).removesuffix(suffix)): path
            for path in self.path.parent.glob(f"{prefix}*{suffix}")
            if path.name.removeprefix(prefix).removesuffix(suffix).isdecimal()
        }
        best = self.best_epoch or 0
        spare = max((number for number in numbers if number < best), default=0)
        for number, path in numbers.items():
            if number not in (best, spare):
                path.unlink(missing_ok=True)

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


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uncompiled(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.output)

"""The weights of the best epoch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_skin.registry import UserError, atomic_path, listed
from keras_skin.training.monitor import Monitor

log = logging.getLogger("keras_skin")

EPOCH_PREFIX = "best_epoch_"
BEST_RECORD = "best.json"
"""The file beside published weights that holds their `epoch` and `sha256`."""


class BestWeights(keras.callbacks.Callback):
    """Writes the weights whenever the monitored value improves, and stops a training that no longer improves.

    The weights of each better epoch go into `best_epoch_<number>.weights.h5`. The run state names that file by epoch and SHA-256.
    A kill between the two files leaves weights that no state names; those are never used. When the training ends, `publish`
    copies the named file to `path`.

    There are always two files. During the training, the second holds the best epoch before, which a resumed training falls back
    to if the first is damaged. After it, the second is a copy of the first and takes the place of the epoch before, so that the
    folder does not grow. The two are no hard links: damage to one would be damage to both.

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
        self._before: dict[str, Any] | None = None

    def epoch_path(self, epoch: int) -> Path:
        """Returns the weights file of an epoch (from 1)."""
        return self.path.with_name(f"{EPOCH_PREFIX}{epoch}.weights.h5")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        value = self.monitor.value(logs or {})
        if self.monitor.improves(value, self.best_value):
            if self.best_epoch is not None:
                self._before = self._describe()
            self.best_epoch, self.best_value = epoch + 1, value
            save_weights(self.model, self.epoch_path(epoch + 1))
            self._sha256 = _digest(self.epoch_path(epoch + 1))
        elif self.patience is not None and epoch + 1 - (self.best_epoch or 0) >= self.patience:
            self.model.stop_training = True

    def get_state(self) -> dict[str, Any]:
        return {"monitor": str(self.monitor), **self._describe(), "before": self._before}

    def set_state(self, state: dict[str, Any]) -> None:
        """Resumes from `get_state`; from the best epoch before, with a warning, if the weights of the best one are damaged.

        Raises:
            UserError: if another value was monitored before, or the weights of both epochs are missing or changed.
        """
        if state["monitor"] != str(self.monitor):
            raise UserError(f"The run's best epoch was chosen by {state['monitor']}, so it cannot resume with {self.monitor}.")
        best, before = state, state.get("before")
        if best["best_epoch"] is not None and not self._has_weights(best):
            path, epoch = self.epoch_path(best["best_epoch"]), best["best_epoch"]
            if _is_intact(self.path, best["sha256"]):
                shutil.copyfile(self.path, path)
                log.warning("%s was missing or damaged; it was restored from %s.", path, self.path.name)
            elif before is not None and self._has_weights(before):
                log.warning(
                    "%s is missing or damaged: it held the weights of epoch %d, the best so far (%s %s). The run continues with "
                    "the weights of epoch %d, the best before (%s).",
                    path,
                    epoch,
                    self.monitor,
                    best["best_value"],
                    before["best_epoch"],
                    before["best_value"],
                )
                best, before = before, None
            elif not path.is_file():
                raise UserError(f"{path} is missing: it holds the weights of epoch {epoch}, the best so far.")
            else:
                raise UserError(
                    f"{path} has changed: it does not hold the weights of epoch {epoch} that the run state names. "
                    "Restore the file, or start a new run."
                )
        self.best_epoch, self.best_value, self._sha256 = best["best_epoch"], best["best_value"], best["sha256"]
        self._before = before

    def _describe(self) -> dict[str, Any]:
        return {"best_epoch": self.best_epoch, "best_value": self.best_value, "sha256": self._sha256}

    def _has_weights(self, state: dict[str, Any]) -> bool:
        return _is_intact(self.epoch_path(state["best_epoch"]), state["sha256"])

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
        """Copies the weights of the best epoch to `path`, and removes those of the epoch before."""
        if self.best_epoch is None or self._sha256 is None:
            return
        source = self.epoch_path(self.best_epoch)
        if not _is_intact(self.path, self._sha256) or self.path.samefile(source):
            with atomic_path(self.path) as temporary:
                shutil.copyfile(source, temporary)
        with atomic_path(self.path.with_name(BEST_RECORD)) as temporary:
            temporary.write_text(json.dumps({"epoch": self.best_epoch, "sha256": self._sha256}) + "\n", encoding="utf-8")
        if self._before is not None:
            self.epoch_path(self._before["best_epoch"]).unlink(missing_ok=True)


def intact_weights(path: Path) -> Path:
    """The file with the published weights of a training: `path`, which is restored from its copy if it is missing or damaged.

    A file without record, of a preset, a segmenter or an earlier version, is returned as it is.

    Raises:
        UserError: if the copy is missing or damaged, too.
    """
    try:
        record = json.loads(path.with_name(BEST_RECORD).read_text(encoding="utf-8"))
        copy, sha256 = path.with_name(f"{EPOCH_PREFIX}{int(record['epoch'])}.weights.h5"), str(record["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return path
    if _is_intact(path, sha256):
        return path
    if not _is_intact(copy, sha256):
        raise UserError(
            f"{path} is missing or damaged, and so is its copy {copy.name}: neither has the SHA-256 in {BEST_RECORD} beside it. "
            "Restore one of them from a backup, or train again."
        )
    log.warning("%s is missing or damaged: the same weights are read from its copy %s.", path, copy.name)
    with contextlib.suppress(OSError):  # a folder that cannot be written
        with atomic_path(path) as temporary:
            shutil.copyfile(copy, temporary)
        return path
    return copy


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
    """Loads a file of `save_weights`, also into a compiled model, for which Keras would expect the optimizer's variables.

    Raises:
        UserError: if the file is damaged, does not fit the model, or holds a number that is not finite.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Skipping", category=UserWarning)  # layers would keep random weights
            _uncompiled(model).load_weights(path)
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, UserWarning) as error:  # whatever h5py and Keras find
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} cannot be read as the weights of the model '{model.name}': {reason.rstrip('.')}. Restore the file from a "
            "backup, or train again."
        ) from error
    refuse_non_finite({variable.path: variable.numpy() for variable in model.weights}, str(path))


def refuse_non_finite(arrays: dict[str, Any], source: str) -> None:
    """Refuses weights with NaN or infinite numbers.

    Raises:
        UserError: naming the source and the arrays.
    """
    names = [
        name
        for name, array in arrays.items()
        if np.issubdtype(np.asarray(array).dtype, np.floating) and not np.isfinite(array).all()
    ]
    if names:
        raise UserError(
            f"{source}: {len(names)} of {len(arrays)} arrays hold numbers that are not finite (NaN or infinite): "
            f"{listed(names, 3)}. Every prediction would be wrong. Restore the file from a backup, or train again."
        )


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and _digest(path) == sha256


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uncompiled(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.output)

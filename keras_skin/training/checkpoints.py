"""Saves the run state at intervals, and resumes a training from the last saved step."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_skin.registry import UserError
from keras_skin.training.errors import TrainingInterrupted
from keras_skin.training.interrupts import HeldInterrupts
from keras_skin.training.run_state import RunState, save_run_state

_MAX_CHANGES, _MAX_WIDTH = 20, 60


class Checkpoints(keras.callbacks.Callback):
    """Saves the run state at the start, at intervals within an epoch, at the end of each epoch, and when interrupted.

    It must be the last callback, so that it saves what the others have done. A callback with a state has two methods:
    `get_state()`, which returns JSON values, and `set_state(state)`. An optional `on_state_saved()` is called when a state is on
    the disk.

    Args:
        path: the run state's file.
        callbacks: the other callbacks.
        epochs, steps: length of the training.
        interrupts: tells whether the training should stop.
        every_seconds: seconds between two saves within an epoch.
        every_steps: also save every `every_steps` steps of an epoch; None does not.
        context: JSON values that must be the same when the training resumes, such as the experiment and digests of the data.
    """

    def __init__(
        self,
        path: Path,
        callbacks: Sequence[Any],
        epochs: int,
        steps: int,
        interrupts: HeldInterrupts,
        every_seconds: float = 60.0,
        every_steps: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.epochs = epochs
        self.steps = steps
        self.interrupts = interrupts
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self.context = json.loads(json.dumps(context)) if context is not None else None  # tuples become lists
        self.epoch = 0
        self.step = 0
        self.stopped = False
        self._stateful = _stateful(callbacks)
        self._to_restore: RunState | None = None
        self._saved = (0, 0)
        self._saved_at = time.monotonic()

    def resume(self, state: RunState, model: keras.Model) -> None:
        """Resumes from a saved state.

        Raises:
            UserError: if the context changed, or the state belongs to another model, other callbacks or other training data.
        """
        record = state.record
        if self.context is not None:
            _refuse_changes(state.source, record.get("context"), self.context)
        problems = []
        if record["steps"] != self.steps:
            problems.append(
                f"its epochs have {record['steps']} steps, expected {self.steps}: the data, the batch size or steps_per_epoch "
                "changed"
            )
        if set(record["callbacks"]) != set(self._stateful):
            problems.append(f"its callbacks are {', '.join(record['callbacks'])}, expected {', '.join(self._stateful)}")
        if problems:
            raise UserError(f"{state.source} belongs to another training: {'; '.join(problems)}.")
        state.restore(model)
        for name, callback in self._stateful.items():
            callback.set_state(record["callbacks"][name])
        self.epoch, self.step, self.stopped = record["epoch"], record["step"], record["stopped"]
        self._saved = (self.epoch, self.step)
        self._to_restore = state

    def save(self, epoch: int, step: int) -> None:
        """Writes a state from which the training resumes after `step` steps of `epoch` (both from 0)."""
        record = {
            "epoch": epoch,
            "step": step,
            "steps": self.steps,
            "stopped": bool(self.model.stop_training),
            "context": self.context,
            "callbacks": {name: callback.get_state() for name, callback in self._stateful.items()},
        }
        save_run_state(self.path, self.model, record)
        for callback in self._stateful.values():
            if hasattr(callback, "on_state_saved"):
                callback.on_state_saved()
        self._saved = (epoch, step)
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        """Saves the untrained state, so that a training killed in its first steps can resume."""
        if self._to_restore is None:
            self.save(0, 0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Restores the metrics of an epoch that resumes in its middle, because Keras has just reset them.

        A state between two epochs holds the metrics of the validation, which must not enter the next epoch.
        """
        self.epoch = epoch
        if self._to_restore is not None and self.step:
            self._to_restore.restore(self.model)
        self._to_restore = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Saves when a save is due, but not after an epoch's last step, when validation is still missing."""
        done = batch + 1
        if done >= self.steps:
            return
        if (
            self.interrupts.received
            or time.monotonic() - self._saved_at >= self.every_seconds
            or (self.every_steps and done % self.every_steps == 0)
        ):
            self.save(self.epoch, done)
        self._stop_if_interrupted()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop_if_interrupted()  # nothing to save: validation can be repeated from the last saved state

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.save(epoch + 1, 0)
        self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if self.interrupts.received:
            epoch, step = self._saved
            raise TrainingInterrupted(self.interrupts.received, self.path.parent, epoch + 1, step, self.epochs, self.steps)


def _refuse_changes(source: Path, before: Any, now: Mapping[str, Any]) -> None:
    if before is None:
        raise UserError(f"{source} has no record of its training data: an earlier version saved it. Start a new run.")
    changes = _changes(before, now)
    if changes:
        more = [f"  ... and {len(changes) - _MAX_CHANGES} more"] if len(changes) > _MAX_CHANGES else []
        lines = "\n".join([*(f"  - {change}" for change in changes[:_MAX_CHANGES]), *more])
        raise UserError(
            f"The run cannot be resumed, because its settings or data have changed since its state was saved:\n{lines}\n"
            "Undo the changes, or start a new run."
        )


def _changes(before: Any, now: Any, path: str = "") -> list[str]:
    """Returns the differences of two JSON values, a sentence for each leaf."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        return [
            change for key in keys for change in _changes(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == now else [f"{path} was {_short(before)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_WIDTH else f"{text[: _MAX_WIDTH - 4]}...{text[-1]}"


def _stateful(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Returns the callbacks that have a state, by class name; the second of a class is called `Name 2`."""
    counts: Counter[str] = Counter()
    result = {}
    for callback in callbacks:
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            name = type(callback).__name__
            counts[name] += 1
            result[name if counts[name] == 1 else f"{name} {counts[name]}"] = callback
    return result

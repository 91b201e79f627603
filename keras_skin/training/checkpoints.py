"""Saves the run state regularly, and resumes a training from the last saved step."""

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

_PRINTED, _WIDTH = 20, 60


class Checkpoints(keras.callbacks.Callback):
    """Saves the run state at the start, at intervals within an epoch, at the end of each epoch, and when interrupted.

    It must be the last callback, so that it saves what the others have done. A callback that remembers something from one step or
    epoch to another has two methods, `get_state()`, which returns JSON values, and `set_state(state)`. Its `on_state_saved()`, if
    it has one, is called when a state is on the disk.

    Args:
        path: the run state's file.
        callbacks: the other callbacks.
        epochs, steps: length of the training.
        interrupts: says whether the training is to stop.
        every_seconds: save when this much time has passed since the last time.
        every_steps: also save whenever this many steps of an epoch are done; None does not.
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
        self._others = _named(callbacks)
        self._to_restore: RunState | None = None
        self._saved = (0, 0)
        self._saved_at = time.monotonic()

    def resume(self, state: RunState, model: keras.Model) -> None:
        """Continues from a saved state.

        Raises:
            UserError: if the context changed, or the state belongs to another model, other callbacks or other training data.
        """
        record = state.record
        if self.context is not None:
            _refuse_changes(state.source, record.get("context"), self.context)
        problems = []
        if record["steps"] != self.steps:
            problems.append(
                f"its epochs have {record['steps']} steps, those of this training {self.steps}: data, batch size or "
                f"steps_per_epoch changed"
            )
        if set(record["callbacks"]) != set(self._others):
            problems.append(
                f"it was saved with the callbacks {', '.join(record['callbacks'])}, this training has {', '.join(self._others)}"
            )
        if problems:
            raise UserError(f"{state.source} belongs to another training: {'; '.join(problems)}.")
        state.restore(model)
        for name, callback in self._others.items():
            callback.set_state(record["callbacks"][name])
        self.epoch, self.step, self.stopped = record["epoch"], record["step"], record["stopped"]
        self._saved = (self.epoch, self.step)
        self._to_restore = state

    def save(self, epoch: int, step: int) -> None:
        """Writes a state from which the training continues after `step` steps of `epoch` (both from 0)."""
        record = {
            "epoch": epoch,
            "step": step,
            "steps": self.steps,
            "stopped": bool(self.model.stop_training),
            "context": self.context,
            "callbacks": {name: callback.get_state() for name, callback in self._others.items()},
        }
        save_run_state(self.path, self.model, record)
        for callback in self._others.values():
            if hasattr(callback, "on_state_saved"):
                callback.on_state_saved()
        self._saved = (epoch, step)
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        """Saves the untrained state, so that a training that is killed at once can be resumed, too."""
        if self._to_restore is None:
            self.save(0, 0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Restores the metrics of an epoch that resumes in its middle: Keras has just reset them.

        Between two epochs a state holds the metrics of the validation, with which the next epoch must not start.
        """
        self.epoch = epoch
        if self._to_restore is not None and self.step:
            self._to_restore.restore(self.model)
        self._to_restore = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Saves when it is time. The state after an epoch's last step is not saved: validation would be missing from it."""
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
        """Validation can be repeated from the last saved state: nothing to save here."""
        self._stop_if_interrupted()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves a state from which the next epoch begins."""
        self.save(epoch + 1, 0)
        self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if self.interrupts.received:
            epoch, step = self._saved
            raise TrainingInterrupted(self.interrupts.received, self.path.parent, epoch + 1, step, self.epochs, self.steps)


def _refuse_changes(source: Path, before: Any, now: Mapping[str, Any]) -> None:
    if before is None:
        raise UserError(f"{source} does not record what it was trained on: it was saved by an earlier version. Start a new run.")
    changes = _changes(before, now)
    if changes:
        rest = [f"  ... and {len(changes) - _PRINTED} more"] if len(changes) > _PRINTED else []
        lines = "\n".join([*(f"  - {change}" for change in changes[:_PRINTED]), *rest])
        raise UserError(
            f"The run cannot be resumed, because it has changed since its state was saved:\n{lines}\n"
            "Undo the changes, or start a new run."
        )


def _changes(before: Any, now: Any, path: str = "") -> list[str]:
    """Sentences on how two JSON values differ, one for each leaf."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        return [
            change for key in keys for change in _changes(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == now else [f"{path} was {_short(before)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 4]}...{text[-1]}"


def _named(callbacks: Sequence[Any]) -> dict[str, Any]:
    """The callbacks that have a state, by class name; the second of a class is called `Name 2`."""
    seen: Counter[str] = Counter()
    named = {}
    for callback in callbacks:
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            name = type(callback).__name__
            seen[name] += 1
            named[name if seen[name] == 1 else f"{name} {seen[name]}"] = callback
    return named

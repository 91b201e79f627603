"""Shows the progress of a training: one line per epoch, and on a terminal a line that is rewritten within the epoch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import keras

from keras_skin.training.best_weights import BestWeights
from keras_skin.training.history import EpochHistory

logger = logging.getLogger("keras_skin.training")

SHORT_NAMES = {"dsc": "DSC", "iou": "IoU", "f1_weighted": "wF1", "auc": "AUC"}
_HEADLINES = ("dsc", "f1_weighted")
_REDRAW_SECONDS = 0.25


class Progress(keras.callbacks.Callback):
    """Logs the progress of a training.

    Every epoch ends with one line of the logger `keras_skin.training`. Within an epoch a terminal shows a line that is rewritten;
    other streams get a log line at most once a minute.

    Args:
        epochs, steps: length of the training.
        history: the rows so far.
        best: the callback that finds the best epoch.
        stream: stream of the rewritten line; standard error if None.
        heartbeat_seconds: seconds between two lines within an epoch without a terminal.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        history: EpochHistory,
        best: BestWeights,
        stream: TextIO | None = None,
        heartbeat_seconds: float = 60.0,
    ) -> None:
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.history = history
        self.best = best
        self.stream = sys.stderr if stream is None else stream
        self.heartbeat_seconds = heartbeat_seconds
        self._is_terminal = self.stream.isatty()
        self._epoch = 0
        self._shown_at = 0.0
        self._has_line = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._shown_at = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._is_due():
            self._show(f"step {batch + 1}/{self.steps}  loss {number((logs or {}).get('loss', float('nan')))}")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._is_due():
            self._show(f"validation step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.clear()
        row = self.history.rows[-1]
        training, validation = headline(logs or {})
        line = f"{self._name(epoch)}  {training}"
        if validation:
            line += f" | val {validation}"
        line += f"  lr {row['learning_rate']:.2g}  {duration(row['seconds'])}"
        if epoch + 1 < self.epochs:
            line += f"  left {duration(self._remaining_seconds(epoch))}"
        if self.best.best_epoch == epoch + 1 and not self.best.monitor.is_last:
            line += "  *best"
        logger.info(line)

    def clear(self) -> None:
        """Removes the rewritten line."""
        if self._has_line:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._has_line = False

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}"

    def _is_due(self) -> bool:
        return time.monotonic() - self._shown_at >= (_REDRAW_SECONDS if self._is_terminal else self.heartbeat_seconds)

    def _show(self, text: str) -> None:
        self._shown_at = time.monotonic()
        line = f"{self._name(self._epoch)}  {text}  {duration(self.history.seconds())}"
        if self._is_terminal:
            self.stream.write(f"\r\x1b[K{line}")
            self.stream.flush()
            self._has_line = True
        else:
            logger.info(line)

    def _remaining_seconds(self, epoch: int) -> float:
        recent = [row["seconds"] for row in self.history.rows[-3:]]
        return (self.epochs - epoch - 1) * sum(recent) / len(recent)


def headline(logs: Mapping[str, float]) -> tuple[str, str]:
    """Returns the loss and the main metrics of training and of validation, as two texts.

    The main metrics are the Dice coefficient of masks and the weighted F1 of labels, or all metrics if neither is logged.
    """
    metrics = [name for name in logs if name != "loss" and not name.startswith("val_") and not name.endswith("_loss")]
    names = [name for ending in _HEADLINES for name in metrics if name.endswith(ending)] or metrics
    labels = {"loss": "loss", **dict(zip(names, short_names(names), strict=True))}

    def text(prefix: str) -> str:
        return " ".join(f"{label} {number(logs[prefix + name])}" for name, label in labels.items() if prefix + name in logs)

    return text(""), text("val_")


def short_names(names: Sequence[str]) -> list[str]:
    """Shortens names, `mask_dsc` to `DSC`, where the short names are unique."""
    short = [
        next((label for ending, label in SHORT_NAMES.items() if name == ending or name.endswith(f"_{ending}")), name)
        for name in names
    ]
    return [name if short.count(label) > 1 else label for name, label in zip(names, short, strict=True)]


def number(value: float) -> str:
    """Formats a value with three decimals, large and tiny values with three digits."""
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Formats seconds as `0.4 s`, `41 s`, `33 min` or `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"

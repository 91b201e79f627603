"""What a person sees of a training: one line per epoch, and on a terminal a line that lives within the epoch."""

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
    """Says how the training goes.

    Every epoch ends with one line through the logger `keras_skin.training`. Within an epoch a terminal shows a line that is
    rewritten; anything else gets a log line at most once a minute.

    Args:
        epochs, steps: length of the training.
        history: has the rows so far.
        best: knows whether this epoch was the best.
        stream: where the rewritten line goes; standard error if None.
        heartbeat_seconds: time between two lines within an epoch where there is no terminal.
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
        self._said_at = 0.0
        self._drawn = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch
        self._said_at = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Shows the step and the mean loss so far."""
        if self._is_due():
            self._within(f"step {batch + 1}/{self.steps}  loss {number((logs or {}).get('loss', float('nan')))}")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows that validation is running."""
        if self._is_due():
            self._within(f"validation step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Says how the epoch went."""
        self.clear()
        row = self.history.rows[-1]
        left = duration(self._seconds_left(epoch))
        training, validation = headline(logs or {})
        parts = [f"{self._name(epoch)}  {training}"]
        if validation:
            parts.append(f" | val {validation}")
        parts.append(f"  lr {row['learning_rate']:.2g}  {duration(row['seconds'])}")
        if epoch + 1 < self.epochs:
            parts.append(f"  left {left}")
        if self.best.best_epoch == epoch + 1:
            parts.append("  *best")
        logger.info("".join(parts))

    def clear(self) -> None:
        """Takes the rewritten line away."""
        if self._drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._drawn = False

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}"

    def _is_due(self) -> bool:
        return time.monotonic() - self._said_at >= (_REDRAW_SECONDS if self._is_terminal else self.heartbeat_seconds)

    def _within(self, text: str) -> None:
        self._said_at = time.monotonic()
        line = f"{self._name(self._epoch)}  {text}  {duration(self.history.seconds())}"
        if self._is_terminal:
            self.stream.write(f"\r\x1b[K{line}")
            self.stream.flush()
            self._drawn = True
        else:
            logger.info(line)

    def _seconds_left(self, epoch: int) -> float:
        recent = [row["seconds"] for row in self.history.rows[-3:]]
        return (self.epochs - epoch - 1) * sum(recent) / len(recent)


def headline(logs: Mapping[str, float]) -> tuple[str, str]:
    """The loss and the metrics that matter most, of training and of validation, as two texts.

    Dice of masks and weighted F1 of labels are shown, or all metrics where there is neither.
    """
    metrics = [name for name in logs if name != "loss" and not name.startswith("val_") and not name.endswith("_loss")]
    chosen = [name for name in metrics if name.endswith(_HEADLINES)] or metrics
    chosen.sort(key=lambda name: next((i for i, ending in enumerate(_HEADLINES) if name.endswith(ending)), len(_HEADLINES)))
    labels = dict(zip(chosen, short_names(chosen), strict=True))

    def text(prefix: str) -> str:
        shown = [("loss", "loss"), *labels.items()]
        return " ".join(f"{label} {number(logs[prefix + name])}" for name, label in shown if prefix + name in logs)

    return text(""), text("val_")


def short_names(names: Sequence[str]) -> list[str]:
    """`mask_dsc` becomes `DSC`, as long as no two names become the same."""
    short = [
        next((label for ending, label in SHORT_NAMES.items() if name == ending or name.endswith(f"_{ending}")), name)
        for name in names
    ]
    return [name if short.count(label) > 1 else label for name, label in zip(names, short, strict=True)]


def number(value: float) -> str:
    """Three decimals, or three digits where the value is large or tiny."""
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`0.4 s`, `41 s`, `33 min`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"

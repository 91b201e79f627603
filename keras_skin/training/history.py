"""The history of a training: a CSV file with one row per epoch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from keras_skin.registry import atomic_path


class EpochHistory(keras.callbacks.Callback):
    """Collects one row per epoch and writes the CSV file after each.

    Columns: `epoch` (from 1), `learning_rate` (after the epoch's last step), `seconds` (including validation), then every logged
    value. The seconds of a resumed epoch include those before the interruption.

    Args:
        path: the CSV file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self._seconds_before = 0.0
        self._start: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        learning_rate = float(self.model.optimizer.learning_rate)
        row = {"epoch": epoch + 1, "learning_rate": learning_rate, "seconds": round(self.seconds(), 3)}
        self.rows.append({**row, **(logs or {})})
        self._seconds_before, self._start = 0.0, None
        with atomic_path(self.path) as temporary:
            self.table().to_csv(temporary, index=False)

    def seconds(self) -> float:
        """Returns the seconds of the current epoch so far."""
        return self._seconds_before + (0.0 if self._start is None else time.monotonic() - self._start)

    def table(self) -> pd.DataFrame:
        """Returns all rows so far."""
        return pd.DataFrame(self.rows)

    def get_state(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])
        self._seconds_before = state["seconds"]

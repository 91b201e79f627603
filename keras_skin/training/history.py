"""The history of a training: one row per epoch, kept as a CSV file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from keras_skin.registry import atomic_path


class EpochHistory(keras.callbacks.Callback):
    """Collects one row per epoch and writes all of them to a CSV file after each.

    Columns: `epoch` (from 1), `learning_rate` (after the epoch's last step), `seconds` (validation included), then every logged
    value. A resumed epoch counts the seconds from before the interruption, too.

    Args:
        path: the CSV file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self._seconds_before = 0.0
        self._began: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the row and writes the file."""
        learning_rate = float(self.model.optimizer.learning_rate)
        row = {"epoch": epoch + 1, "learning_rate": learning_rate, "seconds": round(self.seconds(), 3)}
        self.rows.append({**row, **(logs or {})})
        self._seconds_before, self._began = 0.0, None
        with atomic_path(self.path) as temporary:
            self.table().to_csv(temporary, index=False)

    def seconds(self) -> float:
        """Seconds that the present epoch has taken so far."""
        return self._seconds_before + (0.0 if self._began is None else time.monotonic() - self._began)

    def table(self) -> pd.DataFrame:
        """All rows so far."""
        return pd.DataFrame(self.rows)

    def get_state(self) -> dict[str, Any]:
        """What the run state keeps of this callback."""
        return {"rows": self.rows, "seconds": self.seconds()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from `get_state`."""
        self.rows = list(state["rows"])
        self._seconds_before = state["seconds"]

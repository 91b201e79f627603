"""The logged value that decides which epoch is best."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from keras_skin.registry import UserError, did_you_mean

MODES = ("auto", "min", "max")
LAST = "last"
"""In place of a logged value: the last epoch is kept."""


@dataclass(frozen=True)
class Monitor:
    """A logged value, or the mean of several, and its direction; or `LAST`, for which every epoch is better than those before."""

    names: tuple[str, ...]
    maximise: bool

    @classmethod
    def create(cls, names: str | Sequence[str], mode: str, available: Collection[str]) -> Monitor:
        """Checks the names against those that the training logs.

        Args:
            names: one name or several, such as `"val_loss"` or `["val_mask_dsc", "val_label_auc"]`; or `"last"`.
            mode: `"min"`, `"max"` or `"auto"`, which minimises losses and errors and maximises everything else.
            available: every name that the training logs.

        Raises:
            UserError: if the training does not log a name, or the direction is unclear.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        if names == (LAST,):
            return cls(names, True)
        problems = [f"There is no '{name}' to monitor.{did_you_mean(name, available)}" for name in names if name not in available]
        if not names:
            problems = ["There is no value to monitor."]
        if problems:
            raise UserError("\n".join([*problems, f"This training logs: {', '.join(sorted(available))}."]))
        if mode not in MODES:
            raise UserError(f"The monitor's mode is {mode!r}. Valid: {', '.join(MODES)}.")
        if mode != "auto":
            return cls(names, mode == "max")
        directions = {not (name.endswith("loss") or "error" in name) for name in names}
        if len(directions) > 1:
            raise UserError(f"{', '.join(names)}: some should be low, some high, so their mean means nothing. Use one kind.")
        return cls(names, directions.pop())

    @property
    def is_last(self) -> bool:
        """Whether the last epoch is kept."""
        return self.names == (LAST,)

    def value(self, logs: Mapping[str, float]) -> float | None:
        """Returns the mean of the monitored values; None where the last epoch is kept."""
        return None if self.is_last else math.fsum(logs[name] for name in self.names) / len(self.names)

    def improves(self, value: float | None, best: float | None) -> bool:
        """Returns whether `value` is better than `best`. A non-finite value never is, and None is worse than any other."""
        if self.is_last:
            return True
        if value is None or not math.isfinite(value):
            return False
        if best is None:
            return True
        return value > best if self.maximise else value < best

    def __str__(self) -> str:
        if self.is_last:
            return "the last one"
        joined = self.names[0] if len(self.names) == 1 else f"mean of {' and '.join(self.names)}"
        return f"{'highest' if self.maximise else 'lowest'} {joined}"

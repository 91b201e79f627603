"""The logged value by which the best epoch is chosen."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from keras_skin.registry import UserError, did_you_mean

MODES = ("auto", "min", "max")


@dataclass(frozen=True)
class Monitor:
    """One logged value, or the mean of several, and which direction is better."""

    names: tuple[str, ...]
    maximise: bool

    @classmethod
    def create(cls, names: str | Sequence[str], mode: str, available: Collection[str]) -> Monitor:
        """Checks the names against what the training will log.

        Args:
            names: one name or several, such as `"val_loss"` or `["val_mask_dsc", "val_label_auc"]`.
            mode: `"min"`, `"max"`, or `"auto"`: losses and errors are better low, everything else high.
            available: every name that will be logged.

        Raises:
            UserError: if a name will not be logged, or the direction is unclear.
        """
        chosen = (names,) if isinstance(names, str) else tuple(names)
        problems = [
            f"There is no '{name}' to monitor.{did_you_mean(name, available)}" for name in chosen if name not in available
        ]
        if problems:
            raise UserError("\n".join([*problems, f"This training logs: {', '.join(sorted(available))}."]))
        if not chosen:
            raise UserError(f"No value to monitor was named. This training logs: {', '.join(sorted(available))}.")
        if mode not in MODES:
            raise UserError(f"The monitor's mode is {mode!r}. Valid: {', '.join(MODES)}.")
        if mode != "auto":
            return cls(chosen, mode == "max")
        directions = {not (name.endswith("loss") or "error" in name) for name in chosen}
        if len(directions) > 1:
            raise UserError(
                f"{', '.join(chosen)}: some are better low, some high, so that their mean says nothing. Monitor one kind."
            )
        return cls(chosen, directions.pop())

    def value(self, logs: Mapping[str, float]) -> float:
        """The mean of the monitored values."""
        return math.fsum(logs[name] for name in self.names) / len(self.names)

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best`; a value that is not finite never is, and None is worse than any other."""
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        return value > best if self.maximise else value < best

    def __str__(self) -> str:
        joined = self.names[0] if len(self.names) == 1 else f"mean of {' and '.join(self.names)}"
        return f"{'highest' if self.maximise else 'lowest'} {joined}"

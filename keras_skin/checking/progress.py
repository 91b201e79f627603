"""How far a check is, on standard error: a rewritten bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_REDRAW_SECONDS = 0.1
_BAR = 30


class ProgressBar:
    """Shows steps with (done, all) counts; call it as often as you like.

    Args:
        stream: where it writes; standard error if None.
        heartbeat_seconds: time between two lines where there is no terminal.
    """

    def __init__(self, stream: TextIO | None = None, heartbeat_seconds: float = 15.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._every = _REDRAW_SECONDS if self._is_terminal else heartbeat_seconds
        self._step, self._began, self._said = "", 0.0, 0.0
        self._drawn = False

    def __call__(self, step: str, done: int, total: int) -> None:
        """Says that `done` of `total` parts of a step are done."""
        now = time.monotonic()
        if step != self._step:
            self._step, self._began = step, now
            self._said = 0.0 if self._is_terminal else now
        if now - self._said < self._every and not (self._drawn and done == total):
            return
        self._said = now
        left = (now - self._began) / done * (total - done) if done else 0.0
        told = f"{step}  {done:,}/{total:,}" + (f"  {left:.0f} s left" if done and done < total else "")
        if self._is_terminal:
            filled = _BAR * done // max(total, 1)
            self._stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (_BAR - filled)}] {told}")
            self._drawn = True
        else:
            self._stream.write(f"{told}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Takes the bar away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

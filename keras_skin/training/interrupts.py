"""Ctrl-C and SIGTERM, held back until the training can save its state."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldInterrupts:
    """Context in which the first SIGINT or SIGTERM is only noted in `received`; a second one acts as usual, at once.

    Outside the main thread, where Python allows no signal handlers, nothing is held back.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> HeldInterrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._give_back()
        # Not print or logging: a handler may run in the middle of either, and neither can be entered twice.
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping after this step and saving; once more stops at once, without saving.\n")

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

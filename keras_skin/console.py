"""What the commands share at the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from keras_skin.registry import UserError

_REDRAW_SECONDS = 0.1
_BAR = 30


def exit_code(command: Callable[[], int | None], interrupted: str) -> int:
    """Runs what a command does; tells its user's mistakes and Ctrl-C without a traceback.

    Args:
        command: returns its exit code, or None for 0.
        interrupted: what becomes of the work after Ctrl-C, in a sentence.

    Returns:
        The command's code; 2 after a `UserError`; 130 after Ctrl-C.
    """
    try:
        return command() or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keeps TensorFlow's start-up lines off the terminal while the block imports it; what Python itself raises is not touched.

    TensorFlow's libraries write to the file descriptor before any log level is read, so the descriptor is turned away meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # a notebook, a captured test: nothing to turn away
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(nowhere)


class ProgressBar:
    """Shows on standard error how far a command is: a rewritten bar on a terminal, a line now and then elsewhere.

    Call it as often as you like, with a step and its (done, all) counts.

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

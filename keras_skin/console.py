"""Terminal helpers of the commands: exit codes, quiet imports, a progress bar."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple, NoReturn, TextIO

from keras_skin.registry import UserError

_REDRAW_SECONDS = 0.1
_BAR = 30


def exit_code(command: Callable[[], int | None], interrupted: str) -> int:
    """Runs a command and reports user errors and Ctrl-C without a traceback.

    Args:
        command: returns its exit code, or None for 0.
        interrupted: the message after Ctrl-C.

    Returns:
        The command's code; 2 after a `UserError`; 3 if the machine failed, see `machine_failure`; 130 after Ctrl-C.
    """
    try:
        return command() or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130
    except Exception as error:
        failure = machine_failure(error)
        if failure is None:
            raise
        advice = " Close other programs, or use a machine with more." if failure.kind is FailureKind.MEMORY else ""
        print(f"{failure.sentence}{advice}", file=sys.stderr)
        return 3


def end_program(code: int) -> NoReturn:
    """Ends the process with an exit code. A Ctrl-C meanwhile ends it at once, where Python would print a traceback."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


class FailureKind(StrEnum):
    """The part of the machine that failed."""

    FILES = "files"
    MEMORY = "memory"


class MachineFailure(NamedTuple):
    """Why the machine could not finish a command: the kind, and a sentence for the user."""

    kind: FailureKind
    sentence: str


def machine_failure(error: BaseException) -> MachineFailure | None:
    """Describes an exception that a full disk, a file that cannot be read or written, or a lack of memory has caused; None for
    another exception.

    TensorFlow and h5py report these by exceptions of their own, whose text is searched for the system's words.
    """
    text = ""
    for cause in _causes(error):
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return MachineFailure(FailureKind.MEMORY, "There is not enough memory.")
        if isinstance(cause, OSError) and cause.errno is not None:
            return MachineFailure(FailureKind.FILES, _describe_os_error(cause))
        text += f"{type(cause).__name__}: {cause}\n"
    for number, words in _WORDS.items():
        if re.search(words, text, re.IGNORECASE):
            file = re.search(rf"(/[^\s;]+); (?:{words})", text, re.IGNORECASE)  # as TensorFlow writes it
            return MachineFailure(FailureKind.FILES, _describe_os_error(OSError(number, "", file and file[1])))
    if re.search(_NO_MEMORY, text, re.IGNORECASE):
        where = "memory of the GPU" if re.search("gpu|cuda", text, re.IGNORECASE) else "memory"
        return MachineFailure(FailureKind.MEMORY, f"There is not enough {where}.")
    if isinstance(error, OSError):
        return MachineFailure(FailureKind.FILES, f"A file cannot be read or written: {str(error).rstrip('.')}.")
    return None


_WORDS = {
    errno.ENOSPC: "no space left on device|errno = 28",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EIO: "input/output error",
}
_NO_MEMORY = "resource_?exhausted|out of memory|out_of_memory|OOM when allocating|failed to allocate|cannot allocate memory"
_ADVICE = {
    errno.ENOSPC: "The disk is full: free some space",
    errno.EDQUOT: "The quota of the disk is used up: free some space",
    errno.EROFS: "Its disk is read-only: make it writable, or name another folder",
    errno.EACCES: "Change its permissions, or name another folder",
    errno.EPERM: "Change its permissions, or name another folder",
    errno.ENAMETOOLONG: "Give it a shorter name",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n)",
    errno.EIO: "The disk does not answer: check it",
}


def _describe_os_error(error: OSError) -> str:
    number = error.errno or 0
    advice = _ADVICE.get(number, "Check the file and its folder")
    return f"{error.filename2 or error.filename or 'A file'} cannot be read or written: {os.strerror(number)}. {advice}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was raised from, the last one first."""
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        current = current.__cause__


@contextmanager
def owner_only() -> Iterator[None]:
    """Files and folders that the block makes are readable by their owner only, where the system knows owners.

    The mode belongs to the process: only commands, which write from one thread, use it.
    """
    umask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(umask)


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hides TensorFlow's start-up messages while the block imports it; Python exceptions are unaffected.

    TensorFlow's libraries write to the file descriptor before they read any log level, so the descriptor itself is redirected.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # a notebook or a captured test: nothing to redirect
        yield
        return
    sys.stderr.flush()
    original, devnull = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, descriptor)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, descriptor)
        os.close(original)
        os.close(devnull)


class ProgressBar:
    """Shows the progress of a command on standard error: a bar on a terminal, an occasional line elsewhere.

    Args:
        stream: the output stream; standard error if None.
        heartbeat_seconds: time between two lines when the stream is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, heartbeat_seconds: float = 15.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._every = _REDRAW_SECONDS if self._is_terminal else heartbeat_seconds
        self._step, self._started, self._last_shown = "", 0.0, 0.0
        self._is_visible = False

    def __call__(self, step: str, done: int, total: int) -> None:
        """Reports that `done` of `total` items of a step are done; cheap enough to call for every item."""
        now = time.monotonic()
        if step != self._step:
            self._step, self._started = step, now
            self._last_shown = 0.0 if self._is_terminal else now
        if now - self._last_shown < self._every and not (self._is_visible and done == total):
            return
        self._last_shown = now
        remaining = (now - self._started) / done * (total - done) if done else 0.0
        text = f"{step}  {done:,}/{total:,}" + (f"  {remaining:.0f} s left" if done and done < total else "")
        if self._is_terminal:
            filled = _BAR * done // max(total, 1)
            self._stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (_BAR - filled)}] {text}")
            self._is_visible = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Erases the bar."""
        if self._is_visible:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_visible = False

"""The log of a run: on the terminal, and in its run.log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("keras_skin")


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Shows messages on the present stdout, which a notebook or a test may have replaced."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


class _LogFile(logging.FileHandler):
    """Leaves out messages that cannot be written: where the disk is full, the run itself ends with a sentence."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Sends the package's messages to the terminal, and with their time to `path` (appended)."""
    log.setLevel(logging.INFO)
    log.propagate = False
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        console = _Console()
        console.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(console)
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()

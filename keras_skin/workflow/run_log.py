"""The log of a run: on the terminal, and in its run.log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("keras_skin")


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Shows messages on the present stdout, which a notebook or a test may have replaced."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Sends the package's messages to the terminal, and with their time to `path` (appended)."""
    log.setLevel(logging.INFO)
    log.propagate = False
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        console = _Console()
        console.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(console)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()

"""What the commands share at the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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

"""NumPy functions inside tf.data, in such a way that a process can end while a pipeline is still running.

TensorFlow waits for its threads when an iterator is destroyed. At the end of a process a thread that wants to call Python waits
forever, and so would everything: after Ctrl-C, an exception, or any loop that leaves a data set before its end.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_QUIET_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 10.0


class _Calls:
    """Counts the calls that are under way; lets no further one begin once the process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._ending = False
        self._last = time.monotonic()

    def __call__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        with self._lock:
            self._last = time.monotonic()
            if self._ending:
                raise RuntimeError("The process is ending.")
            self._under_way += 1
        try:
            return function(*arguments)
        finally:
            with self._lock:
                self._under_way -= 1
                self._last = time.monotonic()

    def end(self) -> None:
        """Waits until no call is under way and, their buffers full, the pipelines ask for no more."""
        self._ending = True
        deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                if not self._under_way and time.monotonic() - self._last > _QUIET_SECONDS:
                    return
            time.sleep(_QUIET_SECONDS / 5)


_calls = _Calls()
atexit.register(_calls.end)


def numpy_call(function: Callable[..., Any], arguments: Sequence[tf.Tensor], types: Any, stateful: bool = False) -> Any:
    """`tf.numpy_function` whose function depends on its arguments alone, unless `stateful` is set.

    Args:
        function: takes and returns NumPy values.
        arguments: tensors.
        types: type or types of what it returns.
        stateful: True if calls may give different results, so that none may be left out or merged.

    Returns:
        Tensors of unknown shapes.
    """
    return tf.numpy_function(lambda *values: _calls(function, values), arguments, types, stateful=stateful)

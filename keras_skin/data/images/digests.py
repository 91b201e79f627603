"""SHA-256 digests of files, computed once per process for each state of a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_State = tuple[str, int, int]
_digests: dict[_State, str] = {}


def file_state(path: str) -> _State:
    """Path, size and time of the last change: while they stay the same, the content is taken to be the same."""
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def remember_digest(state: _State, digest: str) -> None:
    """Records the digest of a file that was read for another purpose, so that it is not read again."""
    _digests[state] = digest


def is_same_content(before: _State, now: _State) -> bool:
    """Whether a file that was touched or rewritten still has its former content; False if that was never read.

    Raises:
        OSError: if the file cannot be read.
    """
    return before in _digests and _digests[before] == file_digests([now[0]])[0]


def file_digests(paths: Sequence[str]) -> list[str]:
    """SHA-256 of each file, in hexadecimal digits; "" for the path "".

    Raises:
        OSError: if a file cannot be read.
    """

    def digest(path: str) -> str:
        if not path:
            return ""
        state = file_state(path)
        if state not in _digests:
            with open(path, "rb") as file:
                _digests[state] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[state]

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(digest, paths))

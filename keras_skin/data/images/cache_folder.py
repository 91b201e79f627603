"""The folder of the disk cache: who uses which entry, what is removed when it grows too large. Imports nothing heavy.

    <folder>/.lock          held for the moment of every change of the folder
    <folder>/<key>/         a complete entry: manifest.json, lock, and the files that its writer put there
    <folder>/<key>.part/    an entry that is being built; what a killed process left of one counts as removed
    <folder>/.gone-*        an entry on its way out

A process that uses an entry holds a shared lock on the entry's `lock`, one that builds it an exclusive lock. The system lets go
of both when the process ends, however it ends, so nothing has to be guessed from process numbers or times.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from keras_skin.registry import UserError

try:
    import fcntl
except ImportError:  # Windows: everything but the disk cache works there
    fcntl = None  # type: ignore[assignment]

GIB = 2**30
DEFAULT_GIB = 20.0
SPARE_BYTES = GIB
"""Disk space that the cache leaves free for checkpoints and reports."""

_PART = ".part"
_GONE = ".gone-"
_NAME = re.compile(r"[0-9a-f]{64}(\.part)?")  # nothing else in the folder is the cache's, or touched


@dataclass(frozen=True)
class Entry:
    """One entry of the folder, as `python -m keras_skin.cache` lists it."""

    path: Path
    title: str
    images: int
    bytes: int
    last_used: float
    in_use: bool
    complete: bool


@dataclass
class Lease:
    """An entry in use by this process, until it is closed or nobody refers to it any more.

    Attributes:
        path: folder of the entry.
        complete: whether it may be read; otherwise its holder is the only one to build it.
    """

    path: Path
    complete: bool
    _lock: IO[bytes]

    def close(self) -> None:
        self._lock.close()

    def __del__(self) -> None:
        self.close()


class NoRoom(Exception):
    """An entry that does not fit; the message says why, as one sentence."""


class CacheFolder:
    """The folder of the disk cache.

    Args:
        path: by default `cache_path()`.
        max_gib: what the entries together may hold, above 0; by default `$KERAS_SKIN_CACHE_GIB`, else 20.

    Raises:
        UserError: if `$KERAS_SKIN_CACHE_GIB` is no number above 0.
        OSError: where the system has no POSIX file locks.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, max_gib: float | None = None) -> None:
        if fcntl is None:
            raise OSError("it needs POSIX file locks, which this system does not have.")
        self.path = Path(path).expanduser() if path else cache_path()
        self.max_bytes = int((_max_gib() if max_gib is None else max_gib) * GIB)

    def acquire(self, key: str) -> Lease | None:
        """The entry called `key`, complete or to be built by the caller; None while another process builds it."""
        with self._changing():
            entry, part = self.path / key, self.path / f"{key}{_PART}"
            if entry.is_dir():
                lock = open(entry / "lock", "ab")  # noqa: SIM115 - the lock lasts as long as the file is open
                fcntl.flock(lock, fcntl.LOCK_SH)  # at once: whoever tries an exclusive lock holds the folder's
                os.utime(lock.fileno())
                return Lease(entry, True, lock)
            part.mkdir(exist_ok=True)
            exclusive = _try_exclusive(part)
            if exclusive is None:
                return None
            for left in part.iterdir():  # by a process that was killed
                if left.name != "lock":
                    left.unlink()
            return Lease(part, False, exclusive)

    def make_room(self, needed: int, lease: Lease) -> None:
        """Removes what was used least recently until an entry of `needed` bytes fits, the bytes that it already has included.

        Raises:
            NoRoom: if it would not fit even then; nothing is removed.
        """
        with self._changing():
            others = [entry for entry in self._entries() if entry.path != lease.path]
            removable = sorted(
                (entry for entry in others if not entry.in_use), key=lambda entry: (entry.complete, entry.last_used)
            )
            total, gain = sum(entry.bytes for entry in others), sum(entry.bytes for entry in removable)
            over = total + needed - self.max_bytes
            short = needed - _size(lease.path) + SPARE_BYTES - shutil.disk_usage(self.path).free
            if over > gain:
                used = f", of which other runs use {gib(total - gain)}" if total > gain else ""
                raise NoRoom(
                    f"The images need {gib(needed)}, but the cache is bounded to {gib(self.max_bytes)}{used} "
                    "(raise KERAS_SKIN_CACHE_GIB)."
                )
            if short > gain:
                raise NoRoom(
                    f"The images need {gib(needed)}, and {self.path} lies on a disk that is {gib(short - gain)} short of it."
                )
            for entry in removable:
                if max(over, short) <= 0:
                    break
                self._remove(entry.path)
                over, short = over - entry.bytes, short - entry.bytes

    def publish(self, lease: Lease) -> None:
        """Makes an entry that is built complete for everybody; its files must be on the disk."""
        with self._changing():
            target = self.path / lease.path.name.removesuffix(_PART)
            os.replace(lease.path, target)
            sync(self.path)
            fcntl.flock(lease._lock, fcntl.LOCK_SH)
            lease.path, lease.complete = target, True

    def discard(self, lease: Lease) -> None:
        """Removes an entry that is damaged or cannot be finished. Who has its files open can go on reading them."""
        with self._changing():
            if lease.path.exists():
                self._remove(lease.path)
            lease.close()

    def entries(self) -> list[Entry]:
        """All entries, also those that are being built, the one used last first."""
        if not self.path.is_dir():
            return []
        with self._changing():
            return self._entries()

    def clear(self) -> tuple[list[Entry], list[Entry]]:
        """Removes every entry that no process uses or builds; returns those removed and those kept."""
        if not self.path.is_dir():
            return [], []
        with self._changing():
            entries = self._entries()
            for entry in entries:
                if not entry.in_use:
                    self._remove(entry.path)
        return [entry for entry in entries if not entry.in_use], [entry for entry in entries if entry.in_use]

    def _entries(self) -> list[Entry]:
        found = [_entry(path) for path in self.path.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=lambda entry: -entry.last_used)

    def _remove(self, path: Path) -> None:
        """Takes an entry out of sight at once, then deletes it and what earlier deletions left."""
        os.replace(path, self.path / f"{_GONE}{uuid.uuid4().hex}")
        for gone in self.path.glob(f"{_GONE}*"):
            shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def gib(number: int) -> str:
    """A number of bytes for people."""
    return f"{number / GIB:.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:.1f} MiB"


def sync(path: Path) -> None:
    """Has the system write a file or a folder to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(path: Path) -> dict[str, Any]:
    """What an entry says of itself; empty if that cannot be read."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _entry(path: Path) -> Entry:
    exclusive = _try_exclusive(path)
    if exclusive is not None:
        exclusive.close()
    manifest, complete = read_manifest(path), not path.name.endswith(_PART)
    images, title = manifest.get("images"), manifest.get("title") or ("damaged" if complete else "unfinished")
    return Entry(
        path,
        str(title),
        images if isinstance(images, int) else 0,
        _size(path),
        (path / "lock").stat().st_mtime,
        exclusive is None,
        complete,
    )


def _try_exclusive(path: Path) -> IO[bytes] | None:
    """The open and locked lock file of an entry, or None if anybody else holds it. To be called while the folder is locked."""
    lock = open(path / "lock", "ab")  # noqa: SIM115 - the lock lasts as long as the file is open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _size(path: Path) -> int:
    return sum(item.stat().st_size for item in path.iterdir())


def cache_path() -> Path:
    """Where the cache lies: `$KERAS_SKIN_CACHE`, else `keras_skin` in the user's cache folder."""
    return Path(os.environ.get("KERAS_SKIN_CACHE") or _user_cache() / "keras_skin").expanduser()


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _max_gib() -> float:
    text = os.environ.get("KERAS_SKIN_CACHE_GIB") or str(DEFAULT_GIB)
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UserError(f"KERAS_SKIN_CACHE_GIB is {text!r}, expected a number of GiB above 0, for example 20.")
    return number


def age(seconds: float) -> str:
    """How long ago something was, for people."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return "just now"

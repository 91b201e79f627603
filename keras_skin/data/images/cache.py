"""The cache folder: its path, its bound, its entries, and their removal. Imports nothing heavy.

<folder>/images/<key>/                  a store of images, see `store.py`
<folder>/images/<key>.partial-<token>/  a store that is being written, or whose writer was killed
<folder>/lesions/<key>/                 masks that a segmenter predicted, one PNG per image
<folder>/presets/downloads, files, exports/    presets that were downloaded, unpacked and exported
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_skin.registry import UserError

GIB = 2**30
DEFAULT_GIB = 20.0
SPARE_BYTES = GIB
"""Disk space that the cache leaves free for checkpoints and reports."""
IN_USE_SECONDS = 3600.0
"""A run touches its store in every epoch. A store that was touched this recently is not removed to make room."""

STORES, LESIONS, PRESETS = "images", "lesions", "presets"
MANIFEST = "manifest.json"
PARTIAL = ".partial-"
_REMOVED = ".removed-"


class NoRoom(Exception):
    """The store does not fit; the message says why, in one sentence."""


@dataclass(frozen=True)
class Entry:
    """One folder of the cache.

    Attributes:
        path: the folder.
        title: what it holds, in words.
        images: number of images; None for presets.
        bytes: size of its files.
        last_used: seconds since the epoch.
        is_complete: False for a store that is being written or whose writer was killed.
    """

    path: Path
    title: str
    images: int | None
    bytes: int
    last_used: float
    is_complete: bool = True


def cache_path() -> Path:
    """The cache folder: `$KERAS_SKIN_CACHE`, else `keras_skin` in the user's cache folder."""
    return Path(os.environ.get("KERAS_SKIN_CACHE") or _user_cache() / "keras_skin").expanduser()


def private_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing, which only their owner can open. Existing folders keep their mode.

    Raises:
        OSError: if a folder cannot be made.
    """
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(mode=0o700, exist_ok=True)


def max_bytes() -> int:
    """Bound on the size of all stores: `$KERAS_SKIN_CACHE_GIB`, else 20 GiB.

    Raises:
        UserError: if the variable is not a number above 0.
    """
    text = os.environ.get("KERAS_SKIN_CACHE_GIB") or str(DEFAULT_GIB)
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UserError(f"KERAS_SKIN_CACHE_GIB is {text!r}, expected a number of GiB above 0, for example 20.")
    return int(number * GIB)


def entries(folder: Path) -> list[Entry]:
    """Everything in the cache, the most recently used first."""
    stores = [_store_entry(path) for path in _folders(folder / STORES)]
    lesions = [_lesions_entry(path) for path in _folders(folder / LESIONS)]
    presets = [
        Entry(path, f"presets: {path.name}", None, size_of(path), _last_change(path)) for path in _folders(folder / PRESETS)
    ]
    return sorted([*stores, *lesions, *presets], key=lambda entry: -entry.last_used)


def remove(entry: Entry) -> bool:
    """Removes an entry; False where the system refuses, as Windows does for files that a run has open."""
    doomed = entry.path.with_name(f"{_REMOVED}{entry.path.name}")
    try:
        os.replace(entry.path, doomed)  # so that no other process opens it
    except OSError:
        return False
    for path in doomed.parent.glob(f"{_REMOVED}*"):  # including the rest of earlier removals
        shutil.rmtree(path, ignore_errors=True)
    return True


def make_room(folder: Path, needed: int, keep: Path) -> None:
    """Removes the least recently used stores until `needed` bytes fit.

    Args:
        folder: the cache folder; it exists.
        needed: size of the store to be written.
        keep: the folder that will hold it; what it already holds counts as part of `needed`.

    Raises:
        NoRoom: if the store would not fit even then. Nothing is removed in that case.
    """
    stores = [entry for entry in entries(folder) if entry.path.parent.name == STORES and entry.path != keep]
    now = time.time()
    removable = [entry for entry in reversed(stores) if now - entry.last_used > IN_USE_SECONDS]
    total, gain = sum(entry.bytes for entry in stores), sum(entry.bytes for entry in removable)
    own = size_of(keep) if keep.is_dir() else 0
    over = total + needed - max_bytes()
    short = needed - own + SPARE_BYTES - shutil.disk_usage(folder).free
    if over > gain:
        in_use = f", of which {describe_bytes(total - gain)} were used within the last hour" if total > gain else ""
        raise NoRoom(
            f"the images need {describe_bytes(needed)}, but the cache is bounded to {describe_bytes(max_bytes())}{in_use} "
            "(raise KERAS_SKIN_CACHE_GIB)"
        )
    if short > gain:
        raise NoRoom(
            f"the images need {describe_bytes(needed)}, but the disk of {folder} is {describe_bytes(short - gain)} short"
        )
    for entry in removable:
        if max(over, short) <= 0:
            break
        if remove(entry):
            over, short = over - entry.bytes, short - entry.bytes


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a store; empty if it cannot be read."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def size_of(path: Path) -> int:
    """Bytes of the files in a folder and below, as the disk holds them."""
    total = 0
    for item in path.rglob("*"):
        try:
            status = item.stat()
        except OSError:  # another process removed it
            continue
        # a store that is being written is a sparse file
        total += min(status.st_size, getattr(status, "st_blocks", sys.maxsize) * 512)
    return total


def describe_bytes(number: int) -> str:
    """Formats a number of bytes."""
    return f"{number / GIB:.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:.1f} MiB"


def describe_age(seconds: float) -> str:
    """Formats an age, for example `3 hours ago`."""
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return "just now"


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _store_entry(path: Path) -> Entry:
    manifest, is_complete = read_manifest(path), PARTIAL not in path.name
    images, title = manifest.get("images"), manifest.get("title")
    return Entry(
        path,
        str(title or ("damaged" if is_complete else "unfinished")),
        images if isinstance(images, int) else 0,
        size_of(path),
        _last_change(path),
        is_complete,
    )


def _lesions_entry(path: Path) -> Entry:
    masks = sum(1 for _ in path.glob("*.png"))
    return Entry(path, "masks predicted by a segmenter", masks, size_of(path), _last_change(path))


def _last_change(path: Path) -> float:
    """The latest change of the folder or of a file in it: a writer changes files, a run touches the manifest."""
    moments = [0.0]
    for item in (path, *path.iterdir()):
        with contextlib.suppress(OSError):  # another process removed it
            moments.append(item.stat().st_mtime)
    return max(moments)


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

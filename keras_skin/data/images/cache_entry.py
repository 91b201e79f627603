"""One entry of the disk cache: images and masks one after the other in a file, written once and checked before they are read.

pixels.bin      image, mask, image, mask, ... as raw numbers
index.npy       (N, 6) int64: where an image starts, its height and width, its mask's, and the CRC-32 of the two together
manifest.json   what the entry is, with the size of the one file and the SHA-256 of the other
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_skin.data.images.cache_folder import CacheFolder, Lease, read_manifest, sync

FORMAT = 1
_PIXELS, _INDEX, _MANIFEST = "pixels.bin", "index.npy", "manifest.json"
_FIRST = 32  # images by which the size of all is guessed; their order is by hash, so they are a random choice
_MARGIN = 1.05  # room that is asked for beyond the guess

Progress = Callable[[int, int], None]
Pair = tuple[np.ndarray, np.ndarray]

_checked: set[tuple[str, int]] = set()  # entries that this process has checked, by path and by the inode of their pixels


class EntryReader:
    """The images and masks of a complete entry.

    Args:
        lease: the entry; stays in use as long as the reader exists.
        index: as `checked_index` gives it.
        dtype: of the images; masks are uint8.
    """

    def __init__(self, lease: Lease, index: np.ndarray, dtype: type) -> None:
        self._lease = lease
        self._index = index
        self._dtype = np.dtype(dtype)
        self._pixels = np.memmap(lease.path / _PIXELS, np.uint8, "r")

    def read(self, number: int) -> Pair:
        """Image (H, W, 3) and mask (H', W', 1), copied: TensorFlow may write into what it is given."""
        start, height, width, mask_height, mask_width, _ = self._index[number].tolist()
        middle = start + height * width * 3 * self._dtype.itemsize
        image = self._pixels[start:middle].copy().view(self._dtype).reshape(height, width, 3)
        mask = self._pixels[middle : middle + mask_height * mask_width].copy().reshape(mask_height, mask_width, 1)
        return np.asarray(image), np.asarray(mask)


def write_entry(
    folder: CacheFolder, lease: Lease, pairs: Iterable[Pair], number: int, title: str, progress: Progress
) -> np.ndarray:
    """Writes the images and masks of a new entry and makes it complete for everybody.

    Args:
        folder: where it belongs.
        lease: the entry that is to be built.
        pairs: `number` images (H, W, 3), all of one type, and masks (H', W', 1) uint8.
        number: how many there are.
        title: what the entry is called in lists.
        progress: is told after each image how many of how many are written.

    Returns:
        The entry's index.

    Raises:
        NoRoom: if it does not fit.
        OSError: if it cannot be written.
    """
    index, end, room = np.zeros((number, 6), np.int64), 0, 0
    # named from the start, so that a list can say what is being made
    _write_manifest(lease.path, {"title": title, "images": number})
    with open(lease.path / _PIXELS, "wb") as file:
        for place, (image, mask) in enumerate(pairs):
            data = image.tobytes() + mask.tobytes()
            index[place] = (end, *image.shape[:2], *mask.shape[:2], zlib.crc32(data))
            end += len(data)
            file.write(data)
            if place + 1 == min(number, _FIRST) or end > room > 0:
                room = int(end * number / (place + 1) * _MARGIN)
                folder.make_room(room, lease)
            progress(place + 1, number)
    np.save(lease.path / _INDEX, index, allow_pickle=False)
    checksum = hashlib.sha256((lease.path / _INDEX).read_bytes()).hexdigest()
    _write_manifest(lease.path, {"format": FORMAT, "title": title, "images": number, "bytes": end, "index_sha256": checksum})
    for name in (_PIXELS, _INDEX, _MANIFEST):
        sync(lease.path / name)
    folder.publish(lease)
    _checked.add(_identity(lease.path))
    return index


def checked_index(path: Path, number: int, threads: ThreadPoolExecutor, progress: Progress) -> np.ndarray | None:
    """The index of a complete entry of `number` images, or None if anything in it is damaged.

    Every image is read once and compared with its checksum; a process does this once per entry.
    """
    manifest = read_manifest(path)
    try:
        data = (path / _INDEX).read_bytes()
        size = (path / _PIXELS).stat().st_size
    except OSError:
        return None
    whole = manifest.get("format") == FORMAT and manifest.get("images") == number and manifest.get("bytes") == size
    if not whole or manifest.get("index_sha256") != hashlib.sha256(data).hexdigest():
        return None
    index = np.load(path / _INDEX, allow_pickle=False)
    if _identity(path) in _checked:
        return index
    pixels = np.memmap(path / _PIXELS, np.uint8, "r")
    ends = np.append(index[1:, 0], size)

    def sound(place: int) -> bool:
        return zlib.crc32(pixels[index[place, 0] : ends[place]].data) == index[place, 5]

    for place, fine in enumerate(threads.map(sound, range(number))):
        if not fine:
            return None
        progress(place + 1, number)
    _checked.add(_identity(path))
    return index


def _identity(path: Path) -> tuple[str, int]:
    return str(path), (path / _PIXELS).stat().st_ino


def _write_manifest(path: Path, manifest: dict[str, object]) -> None:
    (path / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

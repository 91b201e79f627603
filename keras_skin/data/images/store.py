"""The image store: every image of a run at the model's size, decoded once ever and memory-mapped from then on.

A store is one folder for one set of files, one size and one preprocessing:

    manifest.json  what it holds, with a checksum for every block of rows
    images.npy     (N, H, W, 3) uint8, the model's images
    masks.npy      (N, ceil(H W / 8)) uint8, the masks as packed bits; absent where no model asked for masks

The name of the folder is a hash of the files' contents and of everything else that the numbers depend on. So runs, folds and
processes share a store whatever the files are called, and a changed file makes another store.

A store is written into `<key>.partial-<token>` and published by a rename; nobody sees half a store. No file locks are used, since
many network file systems have none. A writer owns the folder that bears its token. It touches the folder's heartbeat with every
block. A process that finds the folder of a dead writer renames it to its own token, which only one process can do, and continues
after the last block whose checksum is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import platform
import random
import re
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.cache import (
    MANIFEST,
    PARTIAL,
    STORES,
    NoRoom,
    cache_path,
    describe_bytes,
    make_room,
    read_manifest,
)
from keras_skin.data.images.decode import decode_image, decode_mask
from keras_skin.data.images.digests import file_digests
from keras_skin.data.images.load import Preprocessing, model_image, resize_mask
from keras_skin.registry import UserError, atomic_path

log = logging.getLogger("keras_skin")

FORMAT = 1
BLOCK = 64
"""Rows that are written, checked and recorded together."""
HEARTBEAT_SECONDS = 60.0
"""A writer on another machine that has not touched its folder for this long is taken to be dead."""

_IMAGES, _MASKS, _JOURNAL, _OWNER = "images.npy", "masks.npy", "journal.jsonl", "owner.json"
_POLL_SECONDS = 0.5
_PRINTED = 20


class ImageStore:
    """A complete store, opened for reading. Made by `open_store`.

    Args:
        path: the store's folder.
        places: for each pair of image file and mask file (or "") the row that holds it.
    """

    def __init__(self, path: Path, places: dict[tuple[str, str], int]) -> None:
        self.path = path
        self._places = places
        self._images = np.load(path / _IMAGES, mmap_mode="r", allow_pickle=False)
        has_masks = (path / _MASKS).is_file()
        self._masks = np.load(path / _MASKS, mmap_mode="r", allow_pickle=False) if has_masks else None

    def __len__(self) -> int:
        return len(self._images)

    def places(self, images: Sequence[str], masks: Sequence[str] | None) -> np.ndarray | None:
        """Rows of the store that hold these files; None if one of them is not in it.

        Args:
            images: image files.
            masks: their mask files; None if no masks are needed.
        """
        if masks is not None and self._masks is None:
            return None
        if masks is None:
            by_image = {image: place for (image, _), place in self._places.items()}
            rows = [by_image.get(image) for image in images]
        else:
            rows = [self._places.get(pair) for pair in zip(images, masks, strict=True)]
        return None if any(row is None for row in rows) else np.array(rows, np.int64)

    def read(self, places: np.ndarray, masks: bool) -> tuple[np.ndarray, np.ndarray]:
        """Copies rows out of the store.

        Args:
            places: (B,) rows.
            masks: whether the masks are read, too.

        Returns:
            images: (B, H, W, 3) uint8.
            masks: (B, H, W) uint8 of 0 and 1; (B, 0, 0) if they are not read.
        """
        images = self._images[places]
        if not masks or self._masks is None:
            return images, np.zeros((len(places), 0, 0), np.uint8)
        height, width = images.shape[1:3]
        bits = np.unpackbits(self._masks[places], axis=1, count=height * width)
        return images, bits.reshape(len(places), height, width)

    def touch(self) -> None:
        """Records that the store is in use, so that it is not removed to make room for another."""
        try:
            os.utime(self.path / MANIFEST)
        except OSError:  # read-only, or removed by the user: what is mapped can still be read
            log.debug("cannot touch %s", self.path)


def open_store(
    table: pd.DataFrame,
    size: tuple[int, int],
    preprocessing: Sequence[Preprocessing] = (),
    masks: str = "",
    folder: Path | None = None,
) -> ImageStore | None:
    """Opens the store of a table's images; writes it first where it does not exist.

    A store that is damaged is written again. Where another process is writing the same store, this one waits for it.

    Args:
        table: records, with the column `image` and, if named, the column of the masks; perhaps `dataset`, for messages.
        size: (height, width) of the model's image.
        preprocessing: operations between resizing and the model. They must be dataclasses, whose `repr` tells their arguments.
        masks: the column of the masks that are stored, `"mask"` or `"lesion"`; "" for none. Rows may lack a mask.
        folder: the cache folder; default: the user's.

    Returns:
        The store; None, after a log line that says why, where there is no room, no permission, or an operation that cannot be
        told from another. Images are decoded on the fly then.

    Raises:
        UserError: if files cannot be decoded; names them all.
    """
    opaque = [operation for operation in preprocessing if not dataclasses.is_dataclass(operation)]
    if opaque:
        log.info("The image store is not used: only a dataclass tells its arguments, which %s is not.", opaque[0])
        return None
    pairs = list(zip(table["image"], table[masks] if masks else [""] * len(table), strict=True))
    try:
        contents = [
            f"{image} {mask}" for image, mask in zip(*(file_digests(paths) for paths in zip(*pairs, strict=True)), strict=True)
        ]
        files = dict(sorted(zip(contents, pairs, strict=True)))
        key = _key(size, preprocessing, bool(masks), list(files))
        title = f"{', '.join(sorted(set(table['dataset']))) if 'dataset' in table else 'images'} at {size[0]}x{size[1]}"
        path = _Store(folder or cache_path(), key, title, size, preprocessing, bool(masks), list(files.values())).ensure()
    except (NoRoom, OSError) as error:
        log.info("The image store is not used, images are decoded in every epoch: %s.", str(error).rstrip("."))
        return None
    row_of = {content: row for row, content in enumerate(files)}
    return ImageStore(path, {pair: row_of[content] for pair, content in zip(pairs, contents, strict=True)})


def _key(size: tuple[int, int], preprocessing: Sequence[Preprocessing], masks: bool, contents: list[str]) -> str:
    """The name of a store: a hash of everything that its numbers depend on."""
    recipe = {
        "format": FORMAT,
        "versions": [tf.__version__, cv2.__version__, np.__version__, platform.machine()],
        "size": list(size),
        "preprocessing": [repr(operation) for operation in preprocessing],
        "masks": masks,
        "files": contents,
    }
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Store:
    """A store that is to exist; `files` are the pairs of image and mask, row by row."""

    cache: Path
    key: str
    title: str
    size: tuple[int, int]
    preprocessing: Sequence[Preprocessing]
    masks: bool
    files: Sequence[tuple[str, str]]

    @property
    def path(self) -> Path:
        return self.cache / STORES / self.key

    @property
    def columns(self) -> dict[str, tuple[int, ...]]:
        """Shape of a row in each file."""
        height, width = self.size
        packed = (-(-height * width // 8),)
        return {_IMAGES: (height, width, 3)} | ({_MASKS: packed} if self.masks else {})

    def ensure(self) -> Path:
        """The folder of the complete store."""
        announced = False
        while True:
            if self.path.is_dir():
                if self._is_whole():
                    with contextlib.suppress(OSError):  # a store that others share may be read-only
                        os.utime(self.path / MANIFEST)
                    return self.path
                log.warning("The image store %s is damaged: it is written again.", self.path)
                shutil.rmtree(self.path)
            partial = self._claim()
            if partial is not None:
                try:
                    self._write(partial)
                except BaseException:
                    with contextlib.suppress(OSError):
                        _write_owner(partial, released=True)  # the next run continues at once
                    raise
                return self.path
            if not announced:
                log.info("Another process is writing the same images to the store: waiting for it.")
                announced = True
            time.sleep(_POLL_SECONDS)

    def _is_whole(self) -> bool:
        """Whether every checksum of a published store is right."""
        blocks = read_manifest(self.path).get("blocks")
        if not isinstance(blocks, list) or len(blocks) != self._count_blocks():
            return False
        try:
            arrays = {name: np.load(self.path / name, mmap_mode="r", allow_pickle=False) for name in self.columns}
            expected = {name: (len(self.files), *shape) for name, shape in self.columns.items()}
            if any(arrays[name].shape != shape or arrays[name].dtype != np.uint8 for name, shape in expected.items()):
                return False
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                return all(threads.map(lambda block: _checksums(arrays, block) == blocks[block], range(len(blocks))))
        except (OSError, ValueError):
            return False

    def _count_blocks(self) -> int:
        return -(-len(self.files) // BLOCK)

    def _claim(self) -> Path | None:
        """A partial folder that belongs to this process; None while another process writes the store."""
        root, own = self.cache / STORES, f"{self.key}{PARTIAL}{uuid.uuid4().hex[:12]}"
        root.mkdir(parents=True, exist_ok=True)
        for path in sorted(root.glob(f"{self.key}{PARTIAL}*")):
            if _is_alive(path):
                return None
            try:
                os.replace(path, root / own)
            except OSError:  # another process was faster, or (on Windows) its writer lives
                return None
            _write_owner(root / own)
            return root / own
        make_room(self.cache, self._bytes(), root / own)
        (root / own).mkdir()
        if any(path.name != own for path in root.glob(f"{self.key}{PARTIAL}*")):
            shutil.rmtree(root / own)  # two processes began at the same moment: each steps back and tries again
            time.sleep(random.uniform(0, _POLL_SECONDS))
            return None
        _write_owner(root / own)
        return root / own

    def _bytes(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.columns.values()) * len(self.files)

    def _write(self, partial: Path) -> None:
        begun = time.monotonic()
        make_room(self.cache, self._bytes(), partial)
        offsets = {name: _prepare_file(partial / name, (len(self.files), *shape)) for name, shape in self.columns.items()}
        recorded = self._recorded_blocks(partial)
        remaining = [block for block in range(self._count_blocks()) if block not in recorded]
        if recorded:
            log.info("Resuming the image store: %d of %d blocks are written", len(recorded), self._count_blocks())
        log.info("Storing %d images of %s (%s)", len(self.files), self.title, describe_bytes(self._bytes()))
        problems: list[str] = []
        with (
            ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as threads,  # a thread in Python leaves its core to another
            (partial / _JOURNAL).open("a", encoding="utf-8") as journal,
            _progress(len(self.files), len(self.files) - sum(len(self._rows(block)) for block in remaining)) as bar,
        ):
            decode = self._decoder()
            for block in remaining:
                rows = self._rows(block)
                try:
                    results = list(threads.map(lambda row: decode(*self.files[row]), rows))
                except KeyboardInterrupt:
                    threads.shutdown(cancel_futures=True)
                    raise
                bad = [result for result in results if isinstance(result, str)]
                problems += bad
                if not bad:
                    checksums = []
                    for column, name in enumerate(offsets):
                        data = b"".join(result[column] for result in results)
                        with (partial / name).open("r+b") as file:
                            file.seek(offsets[name] + rows[0] * int(np.prod(self.columns[name])))
                            file.write(data)
                        checksums.append(zlib.crc32(data))
                    journal.write(json.dumps({"block": block, "checksums": checksums}) + "\n")
                    journal.flush()
                    recorded[block] = checksums
                os.utime(partial / _OWNER)
                bar.update(len(rows))
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems[:_PRINTED])
            rest = f"\n  ... and {len(problems) - _PRINTED} more" if len(problems) > _PRINTED else ""
            raise UserError(f"{len(problems)} files cannot be decoded:\n{listed}{rest}")
        self._publish(partial, [recorded[block] for block in range(self._count_blocks())])
        log.info("Stored %d images in %.0f s", len(self.files), time.monotonic() - begun)

    def _rows(self, block: int) -> range:
        return range(block * BLOCK, min((block + 1) * BLOCK, len(self.files)))

    def _recorded_blocks(self, partial: Path) -> dict[int, list[int]]:
        """Blocks that an earlier writer recorded and whose checksums are right."""
        recorded: dict[int, list[int]] = {}
        try:
            lines = (partial / _JOURNAL).read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        arrays = {name: np.load(partial / name, mmap_mode="r", allow_pickle=False) for name in self.columns}
        for line in lines:
            try:
                entry = json.loads(line)
                block, checksums = int(entry["block"]), list(entry["checksums"])
            except (ValueError, KeyError, TypeError):  # the line that a kill cut short
                continue
            if 0 <= block < self._count_blocks() and _checksums(arrays, block) == checksums:
                recorded[block] = checksums
        return recorded

    def _publish(self, partial: Path, checksums: list[list[int]]) -> None:
        for name in self.columns:
            with (partial / name).open("r+b") as file:
                os.fsync(file.fileno())
        manifest = {
            "title": self.title,
            "images": len(self.files),
            "size": list(self.size),
            "preprocessing": [repr(operation) for operation in self.preprocessing],
            "masks": self.masks,
            "blocks": checksums,
        }
        with atomic_path(partial / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest), encoding="utf-8")
        for name in (_JOURNAL, _OWNER):
            (partial / name).unlink()
        try:
            os.rename(partial, self.path)
        except OSError:
            if not self.path.is_dir():
                raise
            shutil.rmtree(partial, ignore_errors=True)  # another process published the same store

    def _decoder(self) -> Callable[[str, str], Any]:
        """A function from an image file and a mask file to the bytes of their rows, or to a sentence that says what is wrong."""
        size, masks, preprocessing = self.size, self.masks, self.preprocessing

        @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
        def image_row(contents: tf.Tensor) -> tf.Tensor:
            return tf.cast(model_image(decode_image(contents, minimum_size=size), size, preprocessing), tf.uint8)

        @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
        def mask_row(contents: tf.Tensor) -> tf.Tensor:
            return tf.cast(resize_mask(decode_mask(contents), size)[..., 0], tf.uint8)

        def decode(image: str, mask: str) -> Any:
            path = image
            try:
                row = [image_row(Path(image).read_bytes()).numpy().tobytes()]
                if masks:
                    path = mask
                    pixels = mask_row(Path(mask).read_bytes()).numpy() if mask else np.zeros(size, np.uint8)
                    row.append(np.packbits(pixels).tobytes())
            except (tf.errors.OpError, OSError) as error:
                return f"{path}: {describe_decode_error(error)}"
            return row

        return decode


def describe_decode_error(error: Exception) -> str:
    """The reason in an error of TensorFlow's decoders, without its node names and stack."""
    if isinstance(error, OSError):
        return str(error.strerror or error)
    text = str(getattr(error, "message", error))
    sentence = re.search(r"(?:assertion failed: \[|Summarized data: b')(.*?)\.?['\]]", text)  # of `decode.py`
    if sentence:
        return sentence[1]
    text = re.sub(r"\s*(\[\[.*|\[Op:.*)$", "", text, flags=re.DOTALL)  # the node
    return text.splitlines()[-1].rpartition("}} ")[2].strip().rstrip(".")


def _checksums(arrays: dict[str, np.ndarray], block: int) -> list[int]:
    rows = slice(block * BLOCK, (block + 1) * BLOCK)
    return [zlib.crc32(array[rows].tobytes()) for array in arrays.values()]


def _prepare_file(path: Path, shape: tuple[int, ...]) -> int:
    """Makes an .npy file of bytes, full of zeros, unless it exists; returns where its data begin.

    Rows are written as to any file, not through a memory map: a full disk is an error then, where a map would kill the process.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    if not path.exists():
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + int(np.prod(shape)))
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


def _write_owner(partial: Path, released: bool = False) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "released": released}
    with atomic_path(partial / _OWNER) as temporary:
        temporary.write_text(json.dumps(owner), encoding="utf-8")


def _is_alive(partial: Path) -> bool:
    """Whether the writer of a partial store still writes."""
    try:
        owner = json.loads((partial / _OWNER).read_text(encoding="utf-8"))
        silence = time.time() - (partial / _OWNER).stat().st_mtime
    except (OSError, ValueError):
        try:  # between the making of the folder and of its owner file
            return time.time() - partial.stat().st_mtime < HEARTBEAT_SECONDS
        except OSError:
            return False
    if owner.get("released"):
        return False
    if owner.get("host") == socket.gethostname() and os.name == "posix":
        try:
            os.kill(int(owner["pid"]), 0)
        except ProcessLookupError:
            return False
        except (PermissionError, ValueError, KeyError):
            pass
    return silence < HEARTBEAT_SECONDS


def _progress(total: int, initial: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=initial, desc="storing images", unit="image", disable=None, leave=False)

"""Writes image stores: block by block, with checksums, continued after a kill and published by a rename.

A store is written into `<key>.partial-<token>`; nobody sees half a store. No file locks are used, since many network file systems
have none. A writer owns the folder that bears its token. It touches the folder's heartbeat with every block. A process that finds
the folder of a dead writer renames it to its own token, which only one process can do, and continues after the last block whose
checksum is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import random
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_skin.data.images.cache import MANIFEST, PARTIAL, STORES, describe_bytes, make_room, private_folder, read_manifest
from keras_skin.data.images.files import BadImage, check_image, check_mask, traced_decode_image, traced_decode_mask_levels
from keras_skin.data.images.load import Preprocessing, load_image, load_mask, model_image, resize_mask
from keras_skin.registry import UserError, atomic_path, shorten

log = logging.getLogger("keras_skin")

IMAGES, MASKS = "images.npy", "masks.npy"
BLOCK = 64
"""Rows that are written, checked and recorded together."""
HEARTBEAT_SECONDS = 60.0
"""A writer on another machine that has not touched its folder for this long is taken to be dead."""

_JOURNAL, _OWNER = "journal.jsonl", "owner.json"
_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class StoreWriter:
    """Writes one store, or waits for the process that writes it.

    Attributes:
        cache: the cache folder.
        key: name of the store.
        title: what it holds, in words.
        size: (height, width) of the model's image.
        preprocessing: operations between resizing and the model.
        masks: whether masks are stored.
        files: image file and mask file ("" for none) of each row.
    """

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
        return {IMAGES: (height, width, 3)} | ({MASKS: packed} if self.masks else {})

    def ensure(self) -> Path:
        """The folder of the complete store; writes it first where it does not exist or is damaged.

        Raises:
            NoRoom: if it does not fit.
            OSError: if it cannot be written.
            UserError: if files cannot be decoded; names them all.
        """
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
            if partial is not None and self.path.is_dir():
                shutil.rmtree(partial)  # another process published the store in the meantime
            elif partial is not None:
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
        private_folder(root)
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
        (root / own).mkdir(mode=0o700)
        if any(path.name != own for path in root.glob(f"{self.key}{PARTIAL}*")):
            shutil.rmtree(root / own)  # two processes began at the same moment: each steps back and tries again
            time.sleep(random.SystemRandom().uniform(0, _POLL_SECONDS))  # leaves the seeded generator alone
            return None
        _write_owner(root / own)
        return root / own

    def _bytes(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.columns.values()) * len(self.files)

    def _write(self, partial: Path) -> None:
        start = time.monotonic()
        make_room(self.cache, self._bytes(), partial)
        offsets = {name: _prepare_file(partial / name, (len(self.files), *shape)) for name, shape in self.columns.items()}
        recorded = self._recorded_blocks(partial)
        remaining = [block for block in range(self._count_blocks()) if block not in recorded]
        if recorded:
            log.info("Resuming the image store: %d of %d blocks are written", len(recorded), self._count_blocks())
        log.info("Storing %d images of %s (%s)", len(self.files), self.title, describe_bytes(self._bytes()))
        with (
            (partial / _JOURNAL).open("a", encoding="utf-8") as journal,
            _progress(len(self.files), len(self.files) - sum(len(self._rows(block)) for block in remaining)) as bar,
        ):
            journal.write("\n")  # ends the line that a kill cut short
            for block, columns in zip(remaining, self._decode(remaining), strict=True):
                recorded[block] = []
                for name, array in zip(offsets, columns, strict=True):
                    data = array.tobytes()
                    with (partial / name).open("r+b") as file:
                        file.seek(offsets[name] + block * BLOCK * int(np.prod(self.columns[name])))
                        file.write(data)
                    recorded[block].append(zlib.crc32(data))
                journal.write(json.dumps({"block": block, "checksums": recorded[block]}) + "\n")
                journal.flush()
                os.utime(partial / _OWNER)
                bar.update(len(columns[0]))
        self._publish(partial, [recorded[block] for block in range(self._count_blocks())])
        log.info("Stored %d images in %.0f s", len(self.files), time.monotonic() - start)

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
        # Nothing is synchronised to the disk: what a power cut destroys, the checksums find when the store is opened.
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

    def _decode(self, blocks: Sequence[int]) -> Iterator[tuple[np.ndarray, ...]]:
        """The rows of each block, one array per column; the next block is decoded while one is written.

        Raises:
            UserError: if files cannot be decoded; names all of the blocks that follow.
        """
        files = [self.files[row] for block in blocks for row in self._rows(block)]
        size, preprocessing = self.size, self.preprocessing

        def image_row(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            decoded = traced_decode_image(tf.io.read_file(image), tf.constant(size))
            return tf.cast(model_image(decoded, size, preprocessing), tf.uint8)

        def mask_row(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            def stored() -> tf.Tensor:
                _, decoded = traced_decode_mask_levels(tf.io.read_file(mask))
                return resize_mask(tf.cast(decoded, tf.float32), size)

            return tf.cond(mask == "", lambda: tf.zeros((*size, 1)), stored) > 0.5

        rows = (image_row, mask_row) if self.masks else (image_row,)
        images, masks = ([pair[column] for pair in files] for column in (0, 1))
        data = tf.data.Dataset.from_tensor_slices((images, masks))
        data = data.map(lambda image, mask: tuple(row(image, mask) for row in rows), num_parallel_calls=os.cpu_count())
        options = tf.data.Options()  # starts faster; there is nothing to tune
        options.autotune.enabled = options.experimental_optimization.apply_default_optimizations = False
        batches = iter(data.batch(BLOCK).prefetch(1).with_options(options)) if files else iter(())
        for _ in blocks:
            try:
                columns = [column.numpy() for column in next(batches)]
            except tf.errors.OpError as error:
                problems = self._problems(files)
                if not problems:  # out of memory, for example
                    raise
                raise UserError("\n".join([f"{len(problems)} files cannot be decoded:", *shorten(problems)])) from error
            yield (columns[0], *(np.packbits(column.reshape(len(column), -1), axis=1) for column in columns[1:]))

    def _problems(self, files: Sequence[tuple[str, str]]) -> list[str]:
        """A line for each file that cannot be decoded."""

        def problem(pair: tuple[str, str]) -> str:
            image, mask = pair
            path = image
            try:
                load_image(image, self.size, self.preprocessing)
                path = mask
                if self.masks and mask:
                    load_mask(mask, self.size)
            except tf.errors.OpError:
                return f"  {path}: {_reason(path, is_mask=path != image)}"
            return ""

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return [line for line in threads.map(problem, files) if line]


def _reason(path: str, is_mask: bool) -> str:
    """Why a file cannot be decoded, in the words of the check of data sets."""
    try:
        if is_mask:
            check_mask(Path(path), None)
        else:
            check_image(Path(path))
    except BadImage as error:
        return str(error)
    return "cannot be decoded"


def _checksums(arrays: dict[str, np.ndarray], block: int) -> list[int]:
    rows = slice(block * BLOCK, (block + 1) * BLOCK)
    return [zlib.crc32(array[rows].tobytes()) for array in arrays.values()]


def _prepare_file(path: Path, shape: tuple[int, ...]) -> int:
    """Makes an .npy file of bytes, full of zeros, unless it exists whole; returns where its data start.

    Rows are written as to any file, not through a memory map: a full disk is an error then, where a map would kill the process.
    """
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    start = header.tell()
    size = start + int(np.prod(shape))
    if path.is_file() and path.stat().st_size == size:
        with path.open("rb") as file:
            if file.read(start) == header.getvalue():
                return start
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.truncate(size)
    return start


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

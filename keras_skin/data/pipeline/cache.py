"""Decoded images, kept so that a file is decoded once and not once per epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf

import keras_skin
from keras_skin.data.images.cache_entry import FORMAT, EntryReader, checked_index, write_entry
from keras_skin.data.images.cache_folder import CacheFolder, Lease, NoRoom
from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.data.pipeline.samples import Samples, fit_mask, numpy_pair

MEMORY_CACHE_BYTES = 4 * 2**30
"""The memory cache stops taking in images when it holds this much."""

_POLL_SECONDS = 0.5


class MemoryCache:
    """Decoded images of a table in memory, taken in as they are first asked for, until there is no room left.

    Args:
        samples: where they come from.
        fit: keep masks at the size of their images; False where they are to reach the model's size in one step.
    """

    def __init__(self, samples: Samples, fit: bool) -> None:
        self._samples = samples
        self._fit = fit
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def decode(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Samples.decode`."""
        kept = tf.ensure_shape(numpy_call(lambda number: int(number) in self._kept, [row], tf.bool, stateful=True), ())
        return tf.cond(
            kept,
            lambda: numpy_pair(lambda number: self._kept[int(number)], row),
            lambda: numpy_pair(self._keep, *self._samples.decode(row), row),
        )

    def _keep(self, image: np.ndarray, mask: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._fit:
            image, mask = fit_mask(image, mask)
        with self._lock:
            if int(row) not in self._kept and self._bytes + image.nbytes + mask.nbytes <= MEMORY_CACHE_BYTES:
                self._kept[int(row)] = (image.copy(), mask.copy())
                self._bytes += image.nbytes + mask.nbytes
        return image, mask


class DiskCache:
    """Images of a table on disk, decoded or finished once for all runs; made by `disk_cache`.

    Args:
        reader: the entry that holds them.
        places: (N,) where in the entry the image of each row is.
        finished: False if `decode` gives what `Samples.decode` gives; True if it gives images of the model's size after their
            pre-processing, (H, W, 3) float32, and masks of the model's size.
    """

    def __init__(self, reader: EntryReader, places: np.ndarray, finished: bool) -> None:
        self.finished = finished
        self._reader = reader
        self._places = places

    def decode(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Image (H, W, 3) and mask (H', W', 1) of a row, bit for bit as without the cache."""
        image_type = tf.float32 if self.finished else tf.uint8
        image, mask = numpy_call(lambda number: self._reader.read(self._places[int(number)]), [row], (image_type, tf.uint8))
        return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(mask, (None, None, 1))


def disk_cache(
    samples: Samples,
    table: pd.DataFrame,
    *,
    title: str,
    fit: bool = False,
    finished: bool = False,
    pool: pd.DataFrame | None = None,
    folder: CacheFolder | None = None,
    note: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DiskCache | None:
    """The images of a table from the disk cache, which takes them in first where it does not have them.

    On two cores an ISIC image of 1024x768 takes 15 ms to decode, resize to 224x224 and equalise by CLAHE, 10 ms of which follow
    the decoding; it is read in 0.9 ms decoded (2.7 MiB) and in 0.6 ms finished (0.6 MiB).

    An entry is found again by the contents of the files and by what is done to them, whatever the files are called and in
    whatever order the rows are. It is used only when it is complete and every checksum is right, else made anew. Where two
    processes need the same entry at the same time, one makes it and the other waits.

    Args:
        samples: what the rows of `table` are turned into.
        table: records, with columns `image` and that of the masks: those that `samples` was made of.
        title: the data set's name, for the list that `python -m keras_skin.cache` shows.
        fit: keep masks at the size of their images, as an augmentation wants them.
        finished: keep what the model takes, resized and pre-processed, in float32, instead of decoded images; only for what is
            not augmented. The operations of the pre-processing must be dataclasses, whose `repr` tells their arguments.
        pool: more records for the same entry, such as all of a data set of which `table` is a part; then every split and every
            fold shares one entry. Rows without a file that is needed are passed over.
        folder: the cache's folder; by default the user's.
        note: is told, in a sentence, what the user should know.
        progress: is told how many images of how many are done, while they are checked or taken in.

    Returns:
        The cache, or None where it cannot be used for want of room or permission, which `note` was told.

    Raises:
        tf.errors.InvalidArgumentError: if an image cannot be decoded, as without a cache.
    """
    masks = samples.mask_column
    sources = _sources(table, pool, masks)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        try:
            sources["digest"] = list(threads.map(_digest, sources["image"], sources["mask"]))
            kept = sources.drop_duplicates("digest").sort_values("digest", ignore_index=True)
            key = _key(samples, fit and masks != "", finished, kept["digest"].tolist())
            folder = folder or CacheFolder()
            lease, index = _open(folder, key, len(kept), threads, note, progress)
            if index is None:
                height, width = samples.image_size
                title = f"{title}, {'finished at' if finished else 'decoded for'} {height}x{width}"
                try:
                    index = _build(folder, lease, _keeper(samples, kept), fit and masks != "", finished, title, progress)
                finally:
                    if not lease.complete:
                        folder.discard(lease)
        except (NoRoom, OSError) as error:
            note(f"The disk cache is not used: {error}")
            return None
    reader = EntryReader(lease, index, np.float32 if finished else np.uint8)
    place = pd.Series(kept.index, kept["digest"])
    return DiskCache(reader, place.loc[sources["digest"][: len(table)]].to_numpy(), finished)


def _sources(table: pd.DataFrame, pool: pd.DataFrame | None, masks: str) -> pd.DataFrame:
    """Files to keep, `image` and `mask` (the column `masks` of the tables): those of the table first, row by row."""

    def files(records: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"image": records["image"], "mask": records[masks] if masks else ""})

    sources = files(table)
    if pool is not None:
        more = files(pool)
        sources = pd.concat([sources, more[(more["image"] != "") & ((more["mask"] != "") | (not masks))]])
    return sources.reset_index(drop=True)


def _digest(*paths: str) -> str:
    return " ".join(_file_digest(path, *_version(path)) if path else "-" for path in paths)


def _version(path: str) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


@cache
def _file_digest(path: str, size: int, changed: int) -> str:
    """SHA-256 of a file; read once per process as long as its size and time stay the same."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(samples: Samples, fit: bool, finished: bool, digests: list[str]) -> str:
    """What an entry is called: everything that its numbers depend on."""
    unclear = [step for step in samples.preprocessing if not dataclasses.is_dataclass(step)]
    if finished and unclear:
        raise ValueError(f"Images cannot be kept after {unclear}: only a dataclass tells its arguments.")
    recipe = {
        "format": FORMAT,
        "versions": [keras_skin.__version__, tf.__version__, cv2.__version__, platform.machine()],
        "size": list(samples.image_size),
        "fit": fit,
        "finished": [repr(step) for step in samples.preprocessing] if finished else None,
        "files": digests,
    }
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()


def _open(
    folder: CacheFolder,
    key: str,
    number: int,
    threads: ThreadPoolExecutor,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> tuple[Lease, np.ndarray | None]:
    """The entry with its index, or without one where it is to be built by the caller; waits for another who builds it."""
    told = False
    while True:
        lease = folder.acquire(key)
        if lease is None:
            if not told:
                note("Another run is writing the same images to the disk cache: waiting for it.")
                told = True
            time.sleep(_POLL_SECONDS)
        elif not lease.complete:
            return lease, None
        else:
            index = checked_index(lease.path, number, threads, progress)
            if index is not None:
                return lease, index
            note(f"The disk cache's entry {key[:12]} is damaged: it is made anew.")
            folder.discard(lease)


def _keeper(samples: Samples, kept: pd.DataFrame) -> Samples:
    """Samples of all that is to be kept, without what only training asks for."""
    table = kept.assign(image_id=kept["digest"], label="")
    return Samples(table, (), samples.image_size, ["image"], ["mask"] if samples.mask_column else [], samples.preprocessing, None)


def _build(
    folder: CacheFolder,
    lease: Lease,
    keeper: Samples,
    fit: bool,
    finished: bool,
    title: str,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    number = len(keeper.image_ids)

    def load(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, mask = keeper.decode(row)
        if not finished:
            return numpy_pair(fit_mask, image, mask) if fit else (image, mask)
        inputs, targets = keeper.finish(row, image, mask)
        return inputs["image"], tf.cast(targets["mask"], tf.uint8) if "mask" in targets else mask

    loaded = tf.data.Dataset.range(number).map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
    return write_entry(folder, lease, loaded.as_numpy_iterator(), number, title, progress)

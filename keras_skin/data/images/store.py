"""The image store: every image of a run at the model's size, decoded once and then memory-mapped.

A store is one folder for one set of files, one size and one preprocessing:

    manifest.json  description, with a checksum for every block of rows
    images.npy     (N, H, W, 3) uint8, the model's images
    masks.npy      (N, ceil(H W / 8)) uint8, the masks as packed bits; absent where no model asked for masks

The name of the folder is a hash of the files' contents and of everything else that the numbers depend on. So runs, folds and
processes share a store whatever the files are called, and a changed file makes another store.

`store_writer.py` writes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.cache import MANIFEST, NoRoom, cache_path
from keras_skin.data.images.digests import file_digests
from keras_skin.data.images.load import Preprocessing
from keras_skin.data.images.store_writer import IMAGES, MASKS, StoreWriter

log = logging.getLogger("keras_skin")

FORMAT = 1


class ImageStore:
    """A complete store, opened for reading. Made by `open_store`.

    Args:
        path: the store's folder.
        places: for each pair of image file and mask file (or "") the row that holds it.
    """

    def __init__(self, path: Path, places: dict[tuple[str, str], int]) -> None:
        self.path = path
        self._places = places
        self._images = np.load(path / IMAGES, mmap_mode="r", allow_pickle=False)
        has_masks = (path / MASKS).is_file()
        self._masks = np.load(path / MASKS, mmap_mode="r", allow_pickle=False) if has_masks else None

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
        preprocessing: operations between resizing and the model. They must be dataclasses, whose `repr` holds their arguments.
        masks: the column of the masks that are stored, `"mask"` or `"lesion"`; "" for none. Rows may lack a mask.
        folder: the cache folder; default: the user's.

    Returns:
        The store; None where there is no room or no permission, or where the arguments of an operation cannot be read. A log
        line says why, and images are decoded in every epoch.

    Raises:
        UserError: if files cannot be decoded; names them all.
    """
    opaque = [operation for operation in preprocessing if not dataclasses.is_dataclass(operation)]
    if opaque:
        log.info("The image store is not used: %s is not a dataclass, so its arguments are unknown.", opaque[0])
        return None
    pairs = list(zip(table["image"], table[masks] if masks else [""] * len(table), strict=True))
    try:
        contents = [
            f"{image} {mask}" for image, mask in zip(*(file_digests(paths) for paths in zip(*pairs, strict=True)), strict=True)
        ]
        files = dict(sorted(zip(contents, pairs, strict=True)))
        key = _key(size, preprocessing, bool(masks), list(files))
        title = f"{', '.join(sorted(set(table['dataset']))) if 'dataset' in table else 'images'} at {size[0]}x{size[1]}"
        path = StoreWriter(folder or cache_path(), key, title, size, preprocessing, bool(masks), list(files.values())).ensure()
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

"""Reads every image and mask once: does it decode, what is its fingerprint, what could a classifier learn from the file alone?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from keras_skin.checking.masks import FAULTS, MaskFacts, measure
from keras_skin.data.images.files import (
    BadImage,
    ImageHeader,
    SizeMismatch,
    decode_levels,
    decode_rgb,
    read_file,
    require_rgb,
    require_size_of,
)
from keras_skin.data.splits.fingerprints import perceptual_hash

DARK = 40
"""Grey levels below it count as the black of a dermatoscope's rim."""

PROPERTIES = ("file_bytes", "width", "height", "dark_corners", "border_red", "border_green", "border_blue")
"""Columns of `scan` that should not predict the class."""

_CORNER, _BORDER = 1 / 8, 1 / 32  # of the shorter side: legs of the corner triangles, width of the border
_DECODED = (171, 171)
"""Decoding keeps at least 1.5 times this size: 256 pixels, as `splits.fingerprints` does."""


@dataclass(frozen=True)
class FileFacts:
    """Measurements of one image file and its mask; columns of `scan`.

    `image_problem` and `mask_problem` are "" for usable files; `mask_size_differs` marks a mask of another size than its image.
    `sha256`, `phash`, `detail` and `thumbnail` are as in `splits.fingerprints`; `dark_corners` is the share of dark pixels in
    triangles in the four corners, `border_*` the mean colour (0..255) of the outermost pixels.
    """

    file_bytes: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    dark_corners: float = 0.0
    border_red: float = 0.0
    border_green: float = 0.0
    border_blue: float = 0.0
    sha256: str = ""
    phash: int = 0
    detail: float = 0.0
    thumbnail: bytes = b""
    image_problem: str = ""
    mask_problem: str = ""
    mask_size_differs: bool = False
    mask: MaskFacts | None = None


def scan(images: Sequence[str], masks: Sequence[str], progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """Reads images and their masks, each file once, in a thread pool; keeps no pixels.

    Args:
        images: paths.
        masks: as many paths, "" for an image without a mask.
        progress: called with (images done, images in all).

    Returns:
        One row per image, in order: `path`, `mask_path`, the fields of `FileFacts`, and the mask's measurements as `mask_area`
        and so on (missing where no mask decodes).
    """
    rows = []
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for image, mask, facts in zip(images, masks, pool.map(_read, images, masks), strict=True):
            rows.append({"path": image, "mask_path": mask, **vars(facts), **_mask_columns(facts.mask)})
            if progress is not None:
                progress(len(rows), len(images))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after Ctrl-C the waiting files are not read
    numbers = [f"mask_{name}" for name in MaskFacts.__dataclass_fields__]
    flags = [f"mask_{name}" for name in FAULTS]
    table = pd.DataFrame(rows, columns=["path", "mask_path", *FileFacts.__dataclass_fields__, *numbers, *flags])
    table[flags] = table[flags].eq(True)
    return table.drop(columns="mask").astype({"phash": np.uint64, **dict.fromkeys(numbers, float), **dict.fromkeys(flags, bool)})


def _mask_columns(mask: MaskFacts | None) -> dict[str, Any]:
    if mask is None:
        return {}
    columns = asdict(mask) | {name: name in mask.faults for name in FAULTS}
    return {f"mask_{name}": value for name, value in columns.items()}


def _read(image: str, mask: str) -> FileFacts:
    facts: dict[str, Any] = {}
    header = None
    try:
        header, data = read_file(Path(image))
        facts = {"file_bytes": len(data), "format": header.format, "width": header.size[1], "height": header.size[0]}
        facts["sha256"] = hashlib.sha256(data).hexdigest()
        require_rgb(header)
        facts |= _picture_facts(decode_rgb(data, header, _DECODED))
    except BadImage as error:
        facts["image_problem"] = str(error)
    if mask:
        try:
            facts["mask"] = _mask_facts(Path(mask), None if "image_problem" in facts else header)
        except SizeMismatch as error:
            facts |= {"mask_problem": str(error), "mask_size_differs": True}
        except BadImage as error:
            facts["mask_problem"] = f"mask: {error}"
    return FileFacts(**facts)


def _mask_facts(path: Path, image: ImageHeader | None) -> MaskFacts:
    header, data = read_file(path)
    levels, mask = decode_levels(data, header)
    if image is not None:
        require_size_of(header, image)
    return measure(mask, levels)


def _picture_facts(image: np.ndarray) -> dict[str, object]:
    """Facts of a decoded picture, (H, W, 3) RGB; those of a large JPEG come from a reduced size."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA), (16, 16), interpolation=cv2.INTER_AREA)
    side = min(grey.shape)
    leg, edge = max(1, int(side * _CORNER)), max(1, int(side * _BORDER))
    triangle = np.add.outer(np.arange(leg), np.arange(leg)) < leg
    corners = (grey[:leg, :leg], grey[:leg, ::-1][:, :leg], grey[::-1][:leg, :leg], grey[::-1, ::-1][:leg, :leg])
    inner = image[edge:-edge, edge:-edge]
    count = grey.size - inner.shape[0] * inner.shape[1]
    red, green, blue = (np.array(cv2.sumElems(image)[:3]) - (cv2.sumElems(inner)[:3] if inner.size else 0)) / count
    return {
        "phash": perceptual_hash(grey),
        "detail": float(thumbnail.std()),
        "thumbnail": thumbnail.tobytes(),
        "dark_corners": float(np.mean([(corner[triangle] < DARK).mean() for corner in corners])),
        "border_red": float(red),
        "border_green": float(green),
        "border_blue": float(blue),
    }

"""Reads every image and mask once: whether it decodes, its fingerprint, and what a classifier could learn from the file alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from keras_skin.checking.masks import MaskFacts, measure
from keras_skin.data.images.files import (
    BadImage,
    ImageHeader,
    WrongSize,
    decode,
    read_file,
    require_decodable,
    require_rgb,
    require_size_of,
)
from keras_skin.data.splits.fingerprints import perceptual_hash

DARK = 40
"""Grey levels below it count as the black of a dermatoscope's rim."""

PROPERTIES = ("file_bytes", "width", "height", "dark_corners", "border_red", "border_green", "border_blue")
"""Columns of `scan` from which the class should not be told."""

_CORNER, _BORDER = 1 / 8, 1 / 32  # of the shorter side: legs of the corner triangles, width of the border
_LEAST_SIDE = 256
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True)
class FileFacts:
    """What was found in one image file; columns of `scan`. `image_problem` and `mask_problem` are "" where all is well.

    `sha256`, `phash`, `detail` and `thumbnail` are as in `splits.fingerprints`; `dark_corners` is the share of dark
    pixels in triangles in the four corners, `border_*` the mean colour (0..255) of the outermost pixels.
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
    mask: MaskFacts | None = None


def scan(images: Sequence[str], masks: Sequence[str], progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """Reads images and their masks, each file once, in a thread pool; no pixels are kept.

    Args:
        images: paths.
        masks: as many paths, "" where there is none.
        progress: called with (images done, images in all).

    Returns:
        One row per image, in order, with the fields of `FileFacts`; those of the mask as `mask_area` and so on (missing where
        there is no mask that decodes), and `path`.
    """
    rows = []
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for image, mask, facts in zip(images, masks, pool.map(_read, images, masks), strict=True):
            measured = {f"mask_{name}": value for name, value in asdict(facts.mask).items()} if facts.mask else {}
            measured |= _judged(facts.mask) if facts.mask else {}
            rows.append({"path": image, "mask_path": mask, **{**vars(facts), "mask": None}, **measured})
            if progress is not None:
                progress(len(rows), len(images))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after Ctrl-C the files that wait are not read
    numbers = [f"mask_{name}" for name in MaskFacts.__dataclass_fields__]
    flags = [f"mask_{name}" for name in JUDGEMENTS]
    table = pd.DataFrame(rows, columns=["path", "mask_path", *FileFacts.__dataclass_fields__, *numbers, *flags])
    table[flags] = table[flags].eq(True)
    return table.drop(columns="mask").astype({"phash": np.uint64, **dict.fromkeys(numbers, float), **dict.fromkeys(flags, bool)})


JUDGEMENTS = ("empty", "full", "full_frame", "blocky", "polygon")


def _judged(mask: MaskFacts) -> dict[str, bool]:
    return {f"mask_{name}": getattr(mask, name) for name in JUDGEMENTS}


def _read(image: str, mask: str) -> FileFacts:
    facts: dict[str, object] = {}
    header = None
    try:
        header, data = read_file(Path(image))
        facts = {"file_bytes": len(data), "format": header.format, "width": header.size[1], "height": header.size[0]}
        facts["sha256"] = hashlib.sha256(data).hexdigest()
        require_rgb(header)
        require_decodable(data, header)
        facts |= _picture_facts(decode(data, header, _mode(header)))
    except BadImage as error:
        facts["image_problem"] = str(error)
    if mask:
        try:
            facts["mask"] = _mask_facts(Path(mask), None if "image_problem" in facts else header)
        except BadImage as error:
            facts["mask_problem"] = str(error) if isinstance(error, WrongSize) else f"mask: {error}"
    return FileFacts(**facts)  # type: ignore[arg-type]


def _mask_facts(path: Path, image: ImageHeader | None) -> MaskFacts:
    header, data = read_file(path)
    require_decodable(data, header, mask=True)
    pixels = decode(data, header, cv2.IMREAD_UNCHANGED)
    if image is not None:
        require_size_of(header, image)
    return measure(pixels, from_bmp=header.format == "BMP")


def _picture_facts(image: np.ndarray) -> dict[str, object]:
    """Facts of a decoded picture, (H, W, 3) BGR; a large JPEG is decoded at a reduced size, and all facts bear that."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    thumbnail = cv2.resize(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA), (16, 16), interpolation=cv2.INTER_AREA)
    side = min(grey.shape)
    leg, edge = max(1, int(side * _CORNER)), max(1, int(side * _BORDER))
    triangle = np.add.outer(np.arange(leg), np.arange(leg)) < leg
    corners = (grey[:leg, :leg], grey[:leg, ::-1][:, :leg], grey[::-1][:leg, :leg], grey[::-1, ::-1][:leg, :leg])
    inner = image[edge:-edge, edge:-edge]
    count = grey.size - inner.shape[0] * inner.shape[1]
    blue, green, red = (np.array(cv2.sumElems(image)[:3]) - (cv2.sumElems(inner)[:3] if inner.size else 0)) / count
    return {
        "phash": perceptual_hash(grey),
        "detail": float(thumbnail.std()),
        "thumbnail": thumbnail.tobytes(),
        "dark_corners": float(np.mean([(corner[triangle] < DARK).mean() for corner in corners])),
        "border_red": float(red),
        "border_green": float(green),
        "border_blue": float(blue),
    }


def _mode(header: ImageHeader) -> int:
    if header.format != "JPEG":
        return cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    side = min(header.height, header.width)
    return _REDUCED[max(ratio for ratio in _REDUCED if ratio == 1 or side >= ratio * _LEAST_SIDE)]

"""Shared by the readers' `render` functions: pictures by number, and writers for the formats of the official downloads."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from keras_skin.data.datasets.stand_ins.lesions import draw_lesion
from keras_skin.registry import UserError, atomic_path

NOTICE = """SYNTHETIC

These files were drawn by a program. They show no patient and no skin, only the layout of the data set "{title}".
No result on them answers a medical question.
Seed {seed}.
"""
_PARAMETERS = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92], ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3]}


@contextmanager
def new_folder(folder: Path, title: str, seed: int) -> Iterator[Path]:
    """Yields a temporary folder, with SYNTHETIC.txt in it, that becomes `folder` at the end.

    Raises:
        UserError: if `folder` is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: stand-in data do not overwrite other files.")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "SYNTHETIC.txt").write_text(NOTICE.format(title=title, seed=seed), encoding="utf-8")
        yield temporary


def counts_or_default(counts: Mapping[str, int] | None, default: Mapping[str, int]) -> dict[str, int]:
    """The default numbers of images of each class or split, overridden by `counts`.

    Raises:
        UserError: if a name is unknown or a number negative.
    """
    counts = counts or {}
    invalid = [f"{key}={value}" for key, value in counts.items() if key not in default or value < 0]
    if invalid:
        raise UserError(f"Cannot draw {', '.join(invalid)}; expected numbers from 0 on for {', '.join(default)}.")
    return {**default, **counts}


def picture(seed: int, number: int, size: tuple[int, int], malignant: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture of that number, the same in every data set, and its mask; sizes vary a little and some pictures are upright."""
    height, width = size[0], size[1] + 4 * (number % 3)
    if number % 7 == 3:
        height, width = width, height
    return draw_lesion(np.random.default_rng([seed, number]), (height, width), float(malignant))


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes an RGB image as JPEG, PNG or BMP, by the extension of `path`; its folder is created."""
    _write(path, image[..., ::-1])


def write_mask_png(path: Path, mask: np.ndarray) -> None:
    """Writes a mask as 0 and 255 in 8 bits."""
    _write(path, mask.astype(np.uint8) * 255)


def write_mask_bmp(path: Path, mask: np.ndarray) -> None:
    """Writes a mask as 1-bit BMP, like those of PH2: rows from the bottom, packed bits, each row padded to four bytes."""
    height, width = mask.shape
    stride = (width + 31) // 32 * 4
    rows = np.zeros((height, stride), np.uint8)
    packed = np.packbits(mask[::-1], axis=1)
    rows[:, : packed.shape[1]] = packed
    offset = 14 + 40 + 8  # file header, image header, palette of black and white
    header = struct.pack("<2sIHHI", b"BM", offset + rows.size, 0, 0, offset)
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 1, 0, rows.size, 2835, 2835, 2, 2)
    _write_bytes(path, header + b"\0\0\0\0\xff\xff\xff\0" + rows.tobytes())


def _write(path: Path, pixels: np.ndarray) -> None:
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), _PARAMETERS.get(path.suffix, []))
    if not done:
        raise RuntimeError(f"OpenCV cannot write {path}")
    _write_bytes(path, data.tobytes())


def _write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)

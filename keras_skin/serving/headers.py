"""What an image file would cost, read from its structure before anything is decoded.

Pure Python on the bytes, linear in their number. The functions walk a file as libjpeg and libpng do, and give up at the limits.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_SEGMENTS = 200
"""Segments of a JPEG; cameras write a few dozen. The exported graph walks them one by one, at about a millisecond each."""
MAX_SCANS = 30
"""Scans of a progressive JPEG; encoders write about 10. Each is a pass over the whole image."""
MAX_CHUNKS = 10_000
"""Chunks of a PNG; encoders write one for each 8 KiB."""
MAX_OTHER_CHUNKS = 32
"""Chunks of a PNG without pixels: texts and profiles can be compressed a thousand times."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # no fill byte, no stuffed zero, no restart marker
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)
_PNG = b"\x89PNG\r\n\x1a\n"


class TooComplex(Exception):
    """A file with more segments, scans or chunks than are accepted; the message says which."""


class ImageSize(NamedTuple):
    """Height and width in pixels as stored, before a turn by EXIF; scans and segments are those of a JPEG, else 1 and 0."""

    height: int
    width: int
    scans: int = 1
    segments: int = 0


def read_size(contents: bytes) -> ImageSize | None:
    """Reads the size of a JPEG, PNG or BMP file.

    Returns:
        None for other files, and where there is no size.

    Raises:
        TooComplex: if it has more segments, scans or chunks than the limits of this module.
    """
    size = None
    if contents.startswith(b"\xff\xd8\xff"):
        size = _jpeg(contents)
    elif contents.startswith(_PNG):
        size = _png(contents)
    elif contents.startswith(b"BM"):
        width, height = (int.from_bytes(contents[start : start + 4], "little", signed=True) for start in (18, 22))
        size = ImageSize(abs(height), abs(width))  # a negative height: rows from the top
    return size if size and size.height and size.width else None


def _jpeg(contents: bytes) -> ImageSize:
    height = width = scans = segments = 0
    position = 2
    while match := _MARKER.search(contents, position):
        fill = b"" if width else contents[position : match.start()]
        if fill.strip(b"\xff"):
            break  # the graph finds no size behind it
        code, position = contents[match.end() - 1], match.end()
        if code == _END:
            break
        segments += 1 + len(fill)  # the graph walks to the size, over fill bytes one by one too
        if segments > MAX_SEGMENTS:
            raise TooComplex(f"A JPEG with over {MAX_SEGMENTS} segments")
        if code in _WITHOUT_LENGTH:
            continue
        if code in _FRAMES and not width:
            height, width = (int.from_bytes(contents[position + start : position + start + 2], "big") for start in (3, 5))
        scans += code == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise TooComplex(f"A JPEG with over {MAX_SCANS} scans")
        length = int.from_bytes(contents[position : position + 2], "big")
        if length < 2:
            break  # no decoder reads on
        position += length
    return ImageSize(height, width, max(scans, 1), segments)


def _png(contents: bytes) -> ImageSize:
    position, chunks, others = len(_PNG), 0, 0
    while position + 8 <= len(contents):
        length, kind = int.from_bytes(contents[position : position + 4], "big"), contents[position + 4 : position + 8]
        chunks += 1
        others += kind != b"IDAT"
        if chunks > MAX_CHUNKS:
            raise TooComplex(f"A PNG with over {MAX_CHUNKS} chunks")
        if others > MAX_OTHER_CHUNKS:
            raise TooComplex(f"A PNG with over {MAX_OTHER_CHUNKS} chunks beside its pixels")
        if kind == b"IEND":
            break
        position += length + 12
    width, height = (int.from_bytes(contents[start : start + 4], "big") for start in (16, 20))
    return ImageSize(height, width)

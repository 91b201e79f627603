"""Checks of image files before anything is trained on them: read the header by bytes, then decode the whole file once.

The check decodes with the functions of `images.decode`, which training and serving use: what passes here decodes there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_skin.data.images.decode import MAX_PIXELS, decode_image, decode_mask_levels

_GREY, _RGB, _CMYK = "grey", "RGB", "CMYK"
_OTHER_FORMATS = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"version https://git-lfs", "Git LFS pointer"),
)
_BASELINE_EXTENDED_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_FRAMES = tuple(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC))


class BadImage(Exception):
    """An image file that cannot be used; the message is the reason."""


class SizeMismatch(BadImage):
    """A mask of another size than its image."""


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an image file say of it.

    `kind` is `"RGB"`, `"grey"`, `"grey and alpha"`, `"RGBA"`, `"CMYK"` or `"palette"`; `height` and `width` are as stored, before
    the turn that the EXIF `orientation` (1 to 8) asks for.
    """

    format: str
    height: int
    width: int
    kind: str
    channels: int
    bits: int
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) after the EXIF turn."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def check_image(path: Path) -> ImageHeader:
    """Reads and decodes a whole image file.

    Returns:
        Its header.

    Raises:
        BadImage: if it is empty, truncated, damaged, too large, of another format than JPEG, PNG or BMP, or not 8-bit RGB.
    """
    header, data = read_file(path)
    require_rgb(header)
    decode_rgb(data, header)
    return header


def check_mask(path: Path, image: ImageHeader | None) -> ImageHeader:
    """Reads and decodes a whole mask file of any depth and compares its size with its image's, both after their EXIF turn.

    Raises:
        SizeMismatch: if the mask has another size than `image`.
        BadImage: if it cannot be decoded.
    """
    header, data = read_file(path)
    decode_levels(data, header)
    if image is not None:
        require_size_of(header, image)
    return header


def require_rgb(header: ImageHeader) -> None:
    """Refuses an image that is not 8-bit RGB.

    Raises:
        BadImage: with what it is.
    """
    if header.bits != 8:
        raise BadImage(f"{header.bits}-bit {header.kind} image, expected 8-bit RGB")
    if header.kind != _RGB:
        plural = "" if header.channels == 1 else "s"
        raise BadImage(f"{header.kind} image with {header.channels} channel{plural}, expected 8-bit RGB")


def require_size_of(mask: ImageHeader, image: ImageHeader) -> None:
    """Refuses a mask of another size than its image's, both after their EXIF turn.

    Raises:
        SizeMismatch: with both sizes.
    """
    if mask.size != image.size:
        turned = " after its EXIF rotation" if image.orientation >= 5 else ""
        raise SizeMismatch(f"mask of {_size(mask)}, but its image has {_size(image)}{turned}")


def read_header(data: bytes) -> ImageHeader:
    """Header of a JPEG, PNG or BMP file, told by its content and not by its name; damage of the container is found on the way.

    Raises:
        BadImage: with the reason.
    """
    if not data:
        raise BadImage("empty file")
    if data[:3] == b"\xff\xd8\xff":
        header = _jpeg_header(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        header = _png_header(data)
    elif data[:2] == b"BM":
        header = _bmp_header(data)
    else:
        raise BadImage(f"{_other_format(data)}, expected JPEG, PNG or BMP")
    if header.height < 1 or header.width < 1:
        raise BadImage(f"{header.format} file without pixels")
    if header.height * header.width > MAX_PIXELS:
        raise BadImage(f"image of {_size(header)}, more than {MAX_PIXELS // 1_000_000} million pixels")
    return header


def read_file(path: Path) -> tuple[ImageHeader, bytes]:
    """Header and bytes of an image file.

    Raises:
        BadImage: if it cannot be read, or its header is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error
    return read_header(data), data


def decode_rgb(data: bytes, header: ImageHeader, minimum_size: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Decodes a whole image file as training and serving do, and refuses what they refuse.

    Args:
        data: bytes of the file.
        header: its header.
        minimum_size: (height, width) that is wanted in the end. A JPEG is decoded at a reduced size where that suffices; every
            coefficient of the file is read all the same.

    Returns:
        (H, W, 3) uint8, upright.

    Raises:
        BadImage: if TensorFlow cannot decode it.
    """
    pixels: np.ndarray = _decoded(header, _decode_image, tf.constant(data), tf.constant(minimum_size)).numpy()
    return pixels


def decode_levels(data: bytes, header: ImageHeader) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a whole mask file as training does: its brightest channel as stored, and the mask of 0 and 1; (H, W) uint8 both.

    Raises:
        BadImage: if TensorFlow cannot decode it.
    """
    levels, mask = _decoded(header, _decode_mask_levels, tf.constant(data))
    return levels.numpy()[..., 0], mask.numpy()[..., 0]


def _decoded(header: ImageHeader, decoder: tf.types.experimental.PolymorphicFunction, *arguments: tf.Tensor) -> Any:
    try:
        return decoder(*arguments)
    except tf.errors.OpError as error:
        raise BadImage(f"damaged {header.format}: it cannot be decoded") from error


_CONTENTS = tf.TensorSpec((), tf.string)
_decode_image = tf.function(decode_image, input_signature=(_CONTENTS, tf.TensorSpec((2,), tf.int32)), autograph=False)
_decode_mask_levels = tf.function(decode_mask_levels, input_signature=(_CONTENTS,), autograph=False)


def _size(header: ImageHeader) -> str:
    height, width = header.size
    return f"{width} x {height} pixels"


def _other_format(data: bytes) -> str:
    for magic, name in _OTHER_FORMATS:
        if data.startswith(magic):
            return f"{name} file"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP file"
    if not data[:512].strip(b"\0"):
        return "file of zeros"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:512]):
        return "text file"
    return "file of unknown format"


def _jpeg_header(data: bytes) -> ImageHeader:
    """Walks the segments up to the first scan, then asks for an end marker behind it (a thumbnail's own does not count)."""
    position, orientation, frame = 2, 1, None
    while True:
        if position + 4 > len(data):
            raise BadImage("truncated JPEG: it ends within its header")
        if data[position] != 0xFF:
            raise BadImage(f"damaged JPEG: no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        if marker == 0xE1 and segment[:6] == b"Exif\0\0":
            orientation = _exif_orientation(segment[6:])
        elif marker in _FRAMES:
            if marker not in _BASELINE_EXTENDED_PROGRESSIVE:
                raise BadImage("lossless or arithmetic-coded JPEG, expected baseline or progressive")
            if len(segment) < 6:
                raise BadImage("truncated JPEG: it ends within its header")
            frame = struct.unpack(">BHHB", segment[:6])
        elif marker == 0xDA:
            break
        position += 2 + length
    if frame is None:
        raise BadImage("damaged JPEG: no frame header")
    if data.find(b"\xff\xd9", position) < 0:
        raise BadImage("truncated JPEG: no end marker")
    bits, height, width, channels = frame
    kind = {1: _GREY, 3: _RGB, 4: _CMYK}.get(channels, "unknown")
    return ImageHeader("JPEG", height, width, kind, channels, bits, orientation)


def _exif_orientation(tiff: bytes) -> int:
    """The orientation tag of an EXIF block, 1 where there is none or it is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(entries):
            tag, kind, _count, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _png_header(data: bytes) -> ImageHeader:
    """Walks all chunks and checks their sums, so that a cut or altered file is found."""
    position, header, ended = 8, None, False
    while position < len(data) and not ended:
        if position + 12 > len(data):
            raise BadImage("truncated PNG: it ends within a chunk")
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data):
            raise BadImage(f"truncated PNG: it ends within a chunk of type {kind.decode('latin-1')!r}")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage(f"damaged PNG: wrong check sum of a chunk of type {kind.decode('latin-1')!r}")
        if header is None:
            if kind != b"IHDR" or length < 13:
                raise BadImage("damaged PNG: no image header")
            header = struct.unpack(">IIBB", data[position + 8 : position + 18])
        ended = kind == b"IEND"
        position = end
    if header is None or not ended:
        raise BadImage("truncated PNG: no end chunk")
    width, height, bits, colour = header
    kinds = {0: (_GREY, 1), 2: (_RGB, 3), 3: ("palette", 1), 4: ("grey and alpha", 2), 6: ("RGBA", 4)}
    if colour not in kinds:
        raise BadImage(f"damaged PNG: colour type {colour}")
    return ImageHeader("PNG", height, width, *kinds[colour], 8 if colour == 3 else bits)


def _bmp_header(data: bytes) -> ImageHeader:
    if len(data) < 54:
        raise BadImage("truncated BMP: it ends within its header")
    (offset, header_bytes) = struct.unpack_from("<II", data, 10)
    if header_bytes < 40:
        raise BadImage("BMP with the header of OS/2, expected that of Windows")
    width, height, _planes, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (0, 3):
        raise BadImage("compressed BMP, expected an uncompressed one")
    expected = offset + (width * depth + 31) // 32 * 4 * abs(height)
    if len(data) < expected:
        raise BadImage(f"truncated BMP: {len(data)} bytes, expected {expected}")
    palette = ("palette", 1, 8)
    kinds = {1: palette, 4: palette, 8: palette, 16: (_RGB, 3, 5), 24: (_RGB, 3, 8), 32: ("RGBA", 4, 8)}
    if depth not in kinds:
        raise BadImage(f"damaged BMP: {depth} bits per pixel")
    return ImageHeader("BMP", abs(height), width, *kinds[depth])

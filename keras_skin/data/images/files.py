"""Checks of image files before anything is trained on them: Pillow reads the header, TensorFlow decodes the whole file once.

The check decodes with the functions of `images.decode`, which training and serving use: what passes here decodes there.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from keras_skin.data.images.decode import MAX_PIXELS, decode_image, decode_mask_levels

# named one by one, so that Pillow tries no other decoder on a file that somebody uploaded
_READERS: dict[bytes, type[ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"BM": BmpImageFile,
}
_KINDS = {  # Pillow's raw mode: what a pixel is, and how many channels it has
    **dict.fromkeys(("1", "L", "I"), ("grey", 1)),
    **dict.fromkeys(("RGB", "BGR"), ("RGB", 3)),
    "P": ("palette", 1),
    "LA": ("grey and alpha", 2),
    "CMYK": ("CMYK", 4),
}
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
_EXIF_ORIENTATION = 0x0112
_BASELINE_EXTENDED_PROGRESSIVE = (0xC0, 0xC1, 0xC2)

warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of damaged EXIF blocks, which turn nothing


class BadImage(Exception):
    """An image file that cannot be used; the message is the reason."""


class SizeMismatch(BadImage):
    """A mask of another size than its image."""


@dataclass(frozen=True)
class ImageHeader:
    """Format, size and kind of pixels of an image file.

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

    Returns:
        Its header.

    Raises:
        BadImage: if it cannot be decoded.
        SizeMismatch: if the mask has another size than `image`.
    """
    try:
        header, data = read_file(path)
        decode_levels(data, header)
    except BadImage as error:
        raise BadImage(f"mask: {error}") from error
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
    if header.kind != "RGB":
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
    """Header of a JPEG, PNG or BMP file, recognised by its content and not by its name; no pixel is decoded.

    Raises:
        BadImage: if the file is empty, cut short, of another format or too large; with the reason.
    """
    if not data:
        raise BadImage("empty file")
    reader = next((reader for magic, reader in _READERS.items() if data.startswith(magic)), None)
    if reader is None:
        raise BadImage(f"{_other_format(data)}, expected JPEG, PNG or BMP")
    try:
        image = reader(io.BytesIO(data))
        header = _header(image)
        _require_whole(image, data)
    except BadImage:
        raise
    except Exception as error:  # Pillow raises many kinds of errors at damaged files
        raise BadImage(f"truncated or damaged {reader.format}: {error}") from error
    if header.height * header.width > MAX_PIXELS:
        raise BadImage(f"image of {_size(header)}, more than {MAX_PIXELS // 1_000_000} million pixels")
    return header


def _header(image: ImageFile) -> ImageHeader:
    layout: Any = image.tile[0].args
    raw_mode, _, suffix = (layout if isinstance(layout, str) else layout[0]).partition(";")
    kind, channels = _KINDS.get(raw_mode, ("RGBA", 4))
    digits = suffix.rstrip("BI") if kind != "palette" else ""
    bits = 1 if raw_mode == "1" else int(digits or 8)
    return ImageHeader(image.format or "", image.height, image.width, kind, channels, bits, _orientation(image))


def _orientation(image: ImageFile) -> int:
    """The EXIF orientation of a JPEG; 1 where there is none or it is damaged, and for other formats, which are not turned."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b"") if image.format == "JPEG" else b"")
        orientation = exif.get(_EXIF_ORIENTATION)
    except Exception:  # Pillow raises many kinds of errors at a damaged block
        return 1
    return int(orientation) if orientation is not None and orientation in range(1, 9) else 1


def _require_whole(image: ImageFile, data: bytes) -> None:
    """Refuses a file that ends too early or has a damaged chunk, and a BMP that TensorFlow does not read."""
    if image.format == "PNG":
        image.verify()
    elif isinstance(image, JpegImageFile):
        assert image.fp is not None
        scan = image.fp.tell()
        frame = struct.pack(">HBHHB", 8 + 3 * image.layers, image.bits, image.height, image.width, image.layers)
        if data[data.rindex(frame, 0, scan) - 1] not in _BASELINE_EXTENDED_PROGRESSIVE:
            raise BadImage("lossless or arithmetic-coded JPEG, expected baseline or progressive")
        if data.find(b"\xff\xd9", scan) < 0:  # behind the header: a thumbnail in it has an end marker of its own
            raise BadImage("truncated JPEG: no end marker")
    else:
        if int.from_bytes(data[14:18], "little") < 40:
            raise BadImage("BMP with the header of OS/2, expected that of Windows")
        if image.info["compression"] not in (BmpImageFile.COMPRESSIONS["RAW"], BmpImageFile.COMPRESSIONS["BITFIELDS"]):
            raise BadImage("compressed BMP, expected an uncompressed one")
        layout: Any = image.tile[0].args
        expected = image.tile[0].offset + layout[1] * image.height
        if len(data) < expected:
            raise BadImage(f"truncated BMP: {len(data)} bytes, expected {expected}")


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
    pixels: np.ndarray = _decoded(header, traced_decode_image, tf.constant(data), tf.constant(minimum_size)).numpy()
    return pixels


def decode_levels(data: bytes, header: ImageHeader) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a whole mask file as training does: its brightest channel as stored, and the mask of 0 and 1; (H, W) uint8 both.

    Raises:
        BadImage: if TensorFlow cannot decode it.
    """
    levels, mask = _decoded(header, traced_decode_mask_levels, tf.constant(data))
    return levels.numpy()[..., 0], mask.numpy()[..., 0]


def _decoded(header: ImageHeader, decoder: tf.types.experimental.PolymorphicFunction, *arguments: tf.Tensor) -> Any:
    try:
        return decoder(*arguments)
    except tf.errors.OpError as error:
        raise BadImage(f"damaged {header.format}: it cannot be decoded") from error


_CONTENTS = tf.TensorSpec((), tf.string)
# Traced once in a process: the check and the store's writer use the same graphs.
traced_decode_image = tf.function(decode_image, input_signature=(_CONTENTS, tf.TensorSpec((2,), tf.int32)), autograph=False)
traced_decode_mask_levels = tf.function(decode_mask_levels, input_signature=(_CONTENTS,), autograph=False)


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

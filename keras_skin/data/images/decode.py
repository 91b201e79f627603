"""The only functions that decode and turn an image for a model.

Pure TensorFlow with explicit control flow, so the same function gives the same numbers eagerly, inside tf.data and inside an
exported graph. Nothing here depends on the size of a batch or on the state of the process.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_skin.data.images.numpy_calls import numpy_call

Branch = Callable[[], tf.Tensor]

MAX_PIXELS = 100_000_000
"""Images that say they hold more pixels are refused before they are decoded (dermoscopic originals have up to 30 million)."""

_FORMATS = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("BMP", 0, b"BM"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("TIFF", 0, b"II+\0"),
    ("TIFF", 0, b"MM\0+"),
    ("GIF", 0, b"GIF8"),
    ("WebP", 8, b"WEBP"),
    ("HEIC or AVIF", 4, b"ftyp"),
    ("DICOM", 128, b"DICM"),
    ("PDF", 0, b"%PDF"),
    ("This file", 0, b""),
)
_BMP, _OTHER = 2, 3  # rows of `_FORMATS`; from `_OTHER` on they are refused
_MAGIC = np.full((len(_FORMATS), 132), -1, np.int64)  # the bytes that tell a format, -1 where any byte will do
for _row, (_, _start, _magic) in enumerate(_FORMATS):
    _MAGIC[_row, _start : _start + len(_magic)] = list(_magic)
_RATIOS = (1, 2, 4, 8)
_FRAMES = [marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)]
_SEGMENTS = 10_000  # a JPEG that puts its size behind more than that was made to keep a server busy


@tf.autograph.experimental.do_not_convert  # its control flow is explicit
def decode_image(contents: tf.Tensor, minimum_size: tuple[int, int] | None = None) -> tf.Tensor:
    """Decodes a JPEG, PNG or BMP file, upright and in RGB.

    The format follows from the content, never from the name. A JPEG is turned by its EXIF orientation; grey becomes three
    equal channels; 16-bit PNG keeps its high byte; CMYK and YCCK JPEG are converted without their ink profile. An alpha channel
    is dropped, not composited: what lies under a transparent pixel is shown, because no background is right for a lesion.

    Args:
        contents: scalar string, the bytes of the file.
        minimum_size: (height, width) that is wanted in the end. A JPEG that is far larger is decoded at 1/2, 1/4 or 1/8 of its
            size in the discrete cosine domain, such that it keeps at least 1.5 times this size both ways. `None` decodes in full.

    Returns:
        (H, W, 3) uint8.

    Raises:
        tf.errors.InvalidArgumentError: if the file is empty, damaged, of another format (which is named), or holds more than
            `MAX_PIXELS` pixels. In a batch, `decode_or_blank` keeps one such file from failing the others.
    """
    image = _by_format(
        contents,
        jpeg=lambda: _decode_jpeg(contents, minimum_size),
        png=lambda: _decode_png(contents),
        bmp=lambda: _decode_bmp(contents),
        other=lambda: tf.zeros((1, 1, 3), tf.uint8),
    )
    return tf.ensure_shape(image, (None, None, 3))


@tf.autograph.experimental.do_not_convert
def decode_mask(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a mask: PNG, JPEG, or BMP of any depth.

    A pixel of a PNG or JPEG is set from 128 on, so that the noise of lossy compression is not (if nothing is brighter than 1, the
    file holds 0 and 1, and 1 is set); a pixel of a BMP is set above 0.

    Returns:
        (H, W, 1) uint8, values 0 and 1 only.
    """
    return decode_mask_levels(contents)[1]


@tf.autograph.experimental.do_not_convert
def decode_mask_levels(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The brightest channel of a mask as stored, and the mask that `decode_mask` makes of it; (H, W, 1) uint8 both."""
    levels = _by_format(
        contents,
        jpeg=lambda: tf.reduce_max(_decode_jpeg(contents, None), axis=-1, keepdims=True),
        png=lambda: tf.reduce_max(_decode_png(contents, channels=0), axis=-1, keepdims=True),
        bmp=lambda: tf.ensure_shape(numpy_call(_opencv_brightest, [contents], tf.uint8), (None, None, 1)),
        other=lambda: tf.zeros((1, 1, 1), tf.uint8),
    )
    any_level = (_format(contents) == _BMP) | (tf.reduce_max(levels) <= 1)
    mask = tf.cast(levels >= tf.where(any_level, tf.constant(1, tf.uint8), tf.constant(128, tf.uint8)), tf.uint8)
    return tf.ensure_shape(levels, (None, None, 1)), tf.ensure_shape(mask, (None, None, 1))


@tf.autograph.experimental.do_not_convert
def image_shape(contents: tf.Tensor) -> tf.Tensor:
    """Height and width of the upright image, read from the header alone.

    Args:
        contents: scalar string, the bytes (or the first bytes) of a JPEG, PNG or BMP file.

    Returns:
        (2,) int64: height and width as `decode_image(contents)` gives them.
    """

    def jpeg() -> tf.Tensor:
        height, width, orientation = _jpeg_header(contents)
        return tf.where(orientation >= 5, tf.stack([width, height]), tf.stack([height, width]))

    shape = _by_format(
        contents,
        jpeg=jpeg,
        png=lambda: _png_header(contents),
        bmp=lambda: _bmp_header(contents)[:2],
        other=lambda: tf.zeros(2, tf.int64),
    )
    return tf.ensure_shape(shape, (2,))


# Formats


def _format(contents: tf.Tensor) -> tf.Tensor:
    """Index in `_FORMATS` of a file, from its first bytes."""
    equal = (_bytes(contents, 0, _MAGIC.shape[1]) == tf.maximum(_MAGIC, 0)) | (_MAGIC < 0)
    return tf.argmax(tf.cast(tf.reduce_all(equal, axis=-1), tf.int32), output_type=tf.int32)


def _by_format(contents: tf.Tensor, jpeg: Branch, png: Branch, bmp: Branch, other: Branch) -> tf.Tensor:
    """Takes the branch of a file's format.

    Any other format is refused; `other` gives a value of the branches' type, which a graph wants even there.
    """
    form = _format(contents)

    def refuse() -> tf.Tensor:
        name = tf.gather([name for name, _, _ in _FORMATS], form)
        with tf.control_dependencies([_require(False, [name, " is not supported: expected a JPEG, PNG or BMP image."])]):
            return other()

    return tf.switch_case(tf.minimum(form, _OTHER), [jpeg, png, bmp, refuse])


def _decode_jpeg(contents: tf.Tensor, minimum_size: tuple[int, int] | None) -> tf.Tensor:
    height, width, orientation = _jpeg_header(contents)

    def at(ratio: int) -> tf.Tensor:
        return tf.io.decode_jpeg(contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    with tf.control_dependencies(_bounded(height, width)):
        if minimum_size is None:
            image = at(1)
        else:
            wanted = tf.where(orientation >= 5, minimum_size[::-1], minimum_size)
            reduced = -(-tf.stack([height, width]) // tf.constant(_RATIOS[1:], tf.int64)[:, tf.newaxis])
            enough = tf.reduce_all(2 * reduced >= 3 * tf.cast(wanted, tf.int64), axis=-1)
            choice = tf.math.count_nonzero(enough, dtype=tf.int32)
            image = tf.switch_case(choice, [lambda ratio=ratio: at(ratio) for ratio in _RATIOS])
    return tf.cond(orientation > 1, lambda: _upright(image, orientation), lambda: image)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an (H, W, 3) image as the EXIF orientation 2..8 asks: transpose first, then the flips."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    upside_down = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8], tf.int64))
    mirrored = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7], tf.int64))
    return tf.reverse(image, tf.boolean_mask([0, 1], tf.stack([upside_down, mirrored])))


def _decode_png(contents: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """(H, W, 3) uint8, or with `channels=0` the file's own one or three channels; alpha is dropped."""
    height, width = tf.unstack(_png_header(contents))
    with tf.control_dependencies(_bounded(height, width)):
        image = tf.io.decode_png(contents, channels=channels)
    if channels:
        return image
    own = tf.shape(image)[-1]
    return image[..., : own - 1 + own % 2]


def _decode_bmp(contents: tf.Tensor) -> tf.Tensor:
    height, width, bits, compression, offset = tf.unstack(_bmp_header(contents))
    plain = tf.logical_and(compression == 0, tf.logical_or(bits == 24, bits == 32))
    kind = ["BMP with ", tf.strings.as_string(bits), " bits per pixel, compression ", tf.strings.as_string(compression)]
    checks = [
        *_bounded(height, width),
        _require(plain, [*kind, " is not supported: expected 24 or 32 bits without compression."]),
    ]
    with tf.control_dependencies(checks):
        # Some programs append padding, which the decoder refuses.
        size = offset + height * ((width * bits + 31) // 32 * 4)
        image = tf.io.decode_bmp(tf.strings.substr(contents, tf.constant(0, tf.int64), size))
    return image[..., :3]


def _opencv_brightest(contents: bytes) -> np.ndarray:
    """Brightest channel of a BMP of any depth: TensorFlow does not read 1-bit BMP."""
    import cv2

    data = contents if isinstance(contents, bytes) else contents.item()  # eagerly, a scalar array arrives
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("This BMP mask cannot be decoded.")
    return image.max(axis=-1, keepdims=True)


# Headers


def _bounded(height: tf.Tensor, width: tf.Tensor) -> list[tf.Operation | None]:
    size = [tf.strings.as_string(height), "x", tf.strings.as_string(width), " (height x width)"]
    # Each side is compared first: the product of two 32-bit sides of a damaged header may not fit.
    limit = tf.constant(MAX_PIXELS, tf.int64)
    bounded = tf.logical_and(tf.maximum(height, width) <= limit, height * tf.minimum(width, limit) <= limit)
    return [
        _require(tf.minimum(height, width) > 0, ["The image's header is damaged: it says ", *size, "."]),
        _require(bounded, ["An image of ", *size, f" is refused: more than {MAX_PIXELS} pixels."]),
    ]


def _png_header(contents: tf.Tensor) -> tf.Tensor:
    """(2,) int64: height and width."""
    return _numbers(_bytes(contents, 16, 8), [(4, 4), (0, 4)], big_endian=True)


def _bmp_header(contents: tf.Tensor) -> tf.Tensor:
    """(5,) int64: height, width, bits per pixel, compression and offset of the pixels."""
    header = _numbers(_bytes(contents, 0, 34), [(22, 4), (18, 4), (28, 2), (30, 4), (10, 4)])
    top_down = tf.logical_and(header >= 2**31, [True, False, False, False, False])  # a negative height
    return tf.where(top_down, 2**32 - header, header)


def _jpeg_header(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Stored height and width and the EXIF orientation (1 to 8), by walking the segments; no size if there is no frame header
    among the first `_SEGMENTS`."""

    def step(position: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        head = _bytes(contents, position, 10)
        first, marker = head[0], head[1]
        size, height, width = tf.unstack(_numbers(head, [(2, 2), (5, 2), (7, 2)], big_endian=True))
        fill = marker == 0xFF
        frame = tf.reduce_any(marker == _FRAMES)
        exif = tf.logical_and(orientation == 0, tf.reduce_all(tf.gather(head, [1, 4, 5, 6, 7, 8, 9]) == [0xE1, *b"Exif\0\0"]))
        orientation = tf.cond(exif, lambda: _exif_orientation(contents, position + 10, size - 8), lambda: orientation)
        end = frame | (first != 0xFF) | tf.reduce_any(marker == [0xD9, 0xDA]) | (~fill & (size < 2))
        return position + tf.where(fill, tf.ones_like(size), size + 2), tf.where(frame, [height, width], shape), orientation, end

    start = (tf.constant(2, tf.int64), tf.zeros(2, tf.int64), tf.constant(0, tf.int64), tf.constant(False))
    _, shape, orientation, _ = tf.while_loop(
        lambda *state: ~state[-1], step, start, parallel_iterations=1, maximum_iterations=_SEGMENTS
    )
    return shape[0], shape[1], tf.maximum(orientation, 1)


def _exif_orientation(contents: tf.Tensor, start: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Tag 0x0112 of the first directory of an EXIF segment; 1 if it is missing or anything is wrong with it."""
    tiff = _bytes(contents, start, tf.maximum(count, 12))
    big = tf.reduce_all(tiff[:2] == list(b"MM"))
    first, second = tiff[:-1], tiff[1:]
    words = tf.where(big, 256 * first + second, first + 256 * second)  # the 16-bit number at every byte
    last = tf.size(words, tf.int64) - 1
    directory = tf.where(big, 65536 * words[4] + words[6], words[4] + 65536 * words[6])
    fields = tf.minimum(directory, last) + 2 + 12 * tf.range(words[tf.minimum(directory, last)])
    fields = tf.boolean_mask(fields, fields + 8 <= last)
    orientation = tf.logical_and(tf.gather(words, fields) == 0x0112, tf.gather(words, fields + 2) == 3)
    values = tf.gather(words, tf.boolean_mask(fields, orientation) + 8)
    value = tf.concat([values, [1]], axis=0)[0]
    valid = (big | tf.reduce_all(tiff[:2] == list(b"II"))) & (value >= 1) & (value <= 8)
    return tf.where(valid, value, tf.ones_like(value))


def _bytes(contents: tf.Tensor, start: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """(count,) int64: the bytes from `start` on, zeros past the end."""
    start, count = tf.cast(start, tf.int64), tf.cast(count, tf.int64)
    chunk = tf.strings.substr(contents, tf.minimum(start, tf.cast(tf.strings.length(contents), tf.int64)), count)
    values = tf.cast(tf.io.decode_raw(chunk, tf.uint8), tf.int64)
    return tf.pad(values, [[0, count - tf.size(values, tf.int64)]])


def _numbers(values: tf.Tensor, places: list[tuple[int, int]], big_endian: bool = False) -> tf.Tensor:
    """(N,) int64: the unsigned numbers at N places (start, count) of a vector of bytes."""
    weights = np.zeros((len(places), max(start + count for start, count in places)), np.int64)
    for row, (start, count) in enumerate(places):
        powers = 256 ** np.arange(count)
        weights[row, start : start + count] = powers[::-1] if big_endian else powers
    return tf.reduce_sum(values[: weights.shape[1]] * weights, axis=-1)


def _require(condition: tf.Tensor | bool, message: list[tf.Tensor | str]) -> tf.Operation | None:
    return tf.debugging.Assert(condition, [tf.strings.join([tf.convert_to_tensor(part) for part in message])])

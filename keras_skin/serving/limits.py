"""Limits of a request: bytes while it is read, pixels before they are decoded, images, and concurrent calls of the model."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from starlette.requests import Request
from starlette.types import Message

from keras_skin.data.images.decode import image_shape

MAX_UPLOAD = 20 * 2**20
"""Bytes of an image file on the page; a dermoscopic original has 1 to 8 million."""
MAX_JSON = 32 * 2**20
"""Bytes of a JSON body; base64 makes files a third longer."""
MAX_FIELDS = 2**16
"""Bytes of everything else in a form."""
MAX_PIXELS = 60_000_000
"""Pixels of all images in one request: decoding and resizing 60 million needs about 1 GB."""
MAX_INSTANCES = 16
"""Images in one request."""
MAX_SEGMENTS = 2000
"""Segments in a JPEG's header; cameras write a few dozen. The graph takes 35 microseconds for each and gives up after 10,000."""
CONCURRENT_CALLS = 2
"""Calls of the model at the same time; further requests wait."""

_DISCARDED = 8  # times the limit: so much of a body that is too long is read and thrown away

_ENDS = tuple(bytes([code]) for code in (*range(0xC0, 0xD0), 0xD9, 0xDA) if code not in (0xC4, 0xC8, 0xCC))

_shape = tf.function(image_shape, input_signature=[tf.TensorSpec((), tf.string)])


class Refused(Exception):
    """A refused request; the message says what was wrong and what was expected.

    Attributes:
        status: the HTTP status code.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def bounded(request: Request, limit: int, what: str) -> Request:
    """Limits the size of a request's body.

    The bytes after the limit are read and thrown away, because a client that is still sending would not read the answer.

    Args:
        request: an unread request.
        limit: largest size of its body in bytes.
        what: name of the body in the message, for example `"The image"`.

    Returns:
        The request; reading its body raises `Refused` (413) if it is larger.
    """
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size <= limit:
            return message
        while message.get("more_body") and size <= _DISCARDED * limit:
            message = await request.receive()
            size += len(message.get("body", b""))
        raise Refused(413, f"{what} is larger than {limit / 2**20:.0f} MiB, the largest size accepted.")

    return Request(request.scope, receive)


def check_pixels(contents: Sequence[bytes]) -> None:
    """Counts the pixels of image files from their headers, before anything is decoded; skips files that are no images.

    Raises:
        Refused: 413 if the images have more than `MAX_PIXELS` together, 400 if a JPEG has more than `MAX_SEGMENTS`.
    """
    total = 0
    for content in contents:
        if content.startswith(b"\xff\xd8\xff") and _has_endless_header(content):
            raise Refused(
                400,
                f"A JPEG with over {MAX_SEGMENTS} segments in its header is refused. Save it again and send the new file.",
            )
        try:
            height, width = map(int, _shape(tf.constant(content)).numpy())
        except tf.errors.InvalidArgumentError:
            continue
        total += height * width
        if total > MAX_PIXELS:
            limit = f"the limit is {MAX_PIXELS // 10**6} million pixels"
            if len(contents) == 1:
                raise Refused(413, f"An image of {width} x {height} pixels is refused: {limit}. Send a smaller one.")
            raise Refused(413, f"{len(contents)} images of {total} pixels and more are refused: {limit} per request. Send fewer.")


def _has_endless_header(jpeg: bytes) -> bool:
    position = 2
    for _ in range(MAX_SEGMENTS):
        marker, size = jpeg[position : position + 2], int.from_bytes(jpeg[position + 2 : position + 4], "big")
        if marker == b"\xff\xff":
            position += 1  # a fill byte
        elif marker[:1] != b"\xff" or marker[1:] in _ENDS or size < 2:
            return False
        else:
            position += 2 + size
    return True

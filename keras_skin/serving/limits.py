"""What a request may cost: bytes while it is read, pixels before they are decoded, images, and calls of the model at once."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from starlette.requests import Request
from starlette.types import Message

from keras_skin.data import images

MAX_UPLOAD = 20 * 2**20
"""Bytes of an image file on the page; a dermoscopic original has 1 to 8 million."""
MAX_JSON = 32 * 2**20
"""Bytes of a JSON body, in which base64 makes files a third longer."""
MAX_FIELDS = 2**16
"""Bytes of everything else in a form."""
MAX_PIXELS = 60_000_000
"""Of all images of one request together: decoding and resizing 60 million needs about 1 GB."""
MAX_INSTANCES = 16
"""Images in one request."""
AT_ONCE = 2
"""Calls of the model at the same time; further requests wait."""

_DISCARDED = 8  # how many times its limit of a body that is too long is read and thrown away

_shape = tf.function(images.image_shape, input_signature=[tf.TensorSpec((), tf.string)])


class Refused(Exception):
    """A request that cannot be answered; the message says what was wrong and what was expected.

    Attributes:
        status: the HTTP status code.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def bounded(request: Request, limit: int, what: str) -> Request:
    """The same request, whose body is counted while it is read.

    What comes after the limit is thrown away as it comes: a client that is still sending would not read the answer.

    Args:
        request: of which nothing was read yet.
        limit: most bytes of its body.
        what: how the body is called in the message, for example `"The image"`.

    Returns:
        A request whose reading raises `Refused` (413) if the body is longer.
    """
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        message = await request.receive()
        taken += len(message.get("body", b""))
        if taken <= limit:
            return message
        while message.get("more_body") and taken <= _DISCARDED * limit:
            message = await request.receive()
            taken += len(message.get("body", b""))
        raise Refused(413, f"{what} is larger than {limit / 2**20:.0f} MiB, the most that is taken.")

    return Request(request.scope, receive)


def check_pixels(contents: Sequence[bytes]) -> None:
    """Reads the headers of image files, before anything is decoded; what is no image is left to the model.

    Raises:
        Refused: 413 if the images hold more than `MAX_PIXELS` together.
    """
    total = 0
    for content in contents:
        try:
            height, width = map(int, _shape(tf.constant(content)).numpy())
        except tf.errors.InvalidArgumentError:
            continue
        total += height * width
        if total > MAX_PIXELS:
            most = f"at most {MAX_PIXELS // 10**6} million pixels are taken"
            if len(contents) == 1:
                raise Refused(413, f"An image of {width} x {height} pixels is refused: {most}. Send a smaller one.")
            raise Refused(413, f"{len(contents)} images of {total} pixels and more are refused: {most} at once. Send fewer.")

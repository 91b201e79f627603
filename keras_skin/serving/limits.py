"""Limits of a request: bytes while it is read, images by their structure before they are decoded, time, and concurrent calls."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.types import Message

from keras_skin.serving.headers import TooComplex, read_size

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
MAX_SCANNED = 400_000_000
"""Pixels of a request times the scans of their JPEG: 40 million pixels of an ordinary progressive JPEG."""
MAX_ASPECT = 20
"""The longer side of an image divided by the shorter one."""
HEAVY = 16_000_000
"""Cost in decoded pixels from which a request is heavy. Heavy requests leave one call of the model to the others."""
CONCURRENT_CALLS = 2
"""Calls of the model at the same time; further requests wait."""
CONCURRENT_CHECKS = 4
"""Bodies that are parsed and checked at the same time."""
CALLS_OF_CLIENT = 32
"""Requests of one client that wait for the model or use it."""
REQUEST_SECONDS = 60.0
"""Time of a request from its last byte to its answer; then its slot is free again."""
MAX_ABANDONED = 2
"""Calls that may still run behind requests that were given up, before new ones are refused."""

CONNECTIONS = 48
"""Connections at the same time; each may hold a body in memory."""
HEAD_SECONDS = 10.0
"""Time for the head of a request, from the connection or its first byte."""
BODY_SECONDS = 60.0
"""Time for the body of a request."""
ANSWER_SECONDS = 60.0
"""Time for the client to take the answer."""

_LONGEST = 2000  # characters of a message, which may quote the request
_DISCARDED = 8  # times the limit: so much of a body that is too long is read and thrown away


class Refused(Exception):
    """A refused request; the message says what was wrong and what was expected.

    Attributes:
        status: the HTTP status code.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message if len(message) <= _LONGEST else message[:_LONGEST] + "...")


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


def check_images(contents: Sequence[bytes]) -> int:
    """Bounds image files by their structure, before anything is decoded; skips files that are no images.

    Returns:
        What they cost to decode, in pixels: each scan costs as much as the whole image, each segment as much as 100,000 pixels.

    Raises:
        Refused: 400 if a file has too many segments, scans or chunks, or is too narrow; 413 if the images have more than
            `MAX_PIXELS` together, or more than `MAX_SCANNED` in all their scans.
    """
    total = scanned = cost = 0
    for content in contents:
        try:
            size = read_size(content)
        except TooComplex as error:
            raise Refused(400, f"{error} is refused. Save it again and send the new file.") from None
        if size is None:
            continue
        image = f"An image of {size.width} x {size.height} pixels"
        total += size.height * size.width
        if total > MAX_PIXELS:
            limit = f"the limit is {MAX_PIXELS // 10**6} million pixels"
            if len(contents) == 1:
                raise Refused(413, f"{image} is refused: {limit}. Send a smaller one.")
            raise Refused(413, f"{len(contents)} images of {total} pixels and more are refused: {limit} per request. Send fewer.")
        if max(size.height, size.width) > MAX_ASPECT * min(size.height, size.width):
            raise Refused(
                400, f"{image} is refused: one side is over {MAX_ASPECT} times as long as the other. Send a wider part."
            )
        scanned += size.height * size.width * size.scans
        if scanned > MAX_SCANNED:
            limit = f"{MAX_SCANNED // 10**6} million pixels in all scans"
            raise Refused(413, f"{image} in {size.scans} scans is refused: the limit is {limit}. Save it as a baseline JPEG.")
        cost += 100_000 * size.segments
    return scanned + cost

"""Small files whose headers declare large images."""

import struct
import zlib

import cv2
import numpy as np

MAGIC = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height):
    """A PNG of a few bytes whose header declares this size."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(width, height):
    """A JPEG of 8 x 8 pixels whose frame header declares this size."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    start = data.find(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def commented_jpeg(comments, width=64, height=64):
    """A JPEG with this many comment segments before its frame header."""
    data = cv2.imencode(".jpg", np.full((height, width, 3), 128, np.uint8))[1].tobytes()
    return data[:2] + (b"\xff\xfe\x00\x16" + b"x" * 20) * comments + data[2:]


def progressive_jpeg(scans, width=2000, height=2000):
    """A progressive JPEG whose last scan is repeated until it has this many."""
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 50]
    data = cv2.imencode(".jpg", np.full((height, width, 3), 128, np.uint8), settings)[1].tobytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def thin_png(width, height):
    """A whole PNG of this size."""
    return cv2.imencode(".png", np.full((height, width, 3), 128, np.uint8))[1].tobytes()


def chunked_png(kind, count):
    """A PNG of 64 x 64 pixels with empty chunks of this kind before its end."""
    return thin_png(64, 64)[:-12] + chunk(kind, b"") * count + chunk(b"IEND", b"")

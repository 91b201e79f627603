"""The structure of image files as decoders see it, in linear time."""

import time

import cv2
import numpy as np
import pytest

from keras_skin.data.images.decode import decode_image
from keras_skin.serving.headers import ImageSize, TooComplex, read_size
from tests.serving.bombs import commented_jpeg, jpeg, png, progressive_jpeg


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp"])
def test_the_size_is_that_of_the_decoder(kind):
    data = cv2.imencode(kind, np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    size = read_size(data)
    assert (size.height, size.width) == tuple(decode_image(data).shape[:2]) == (30, 50)
    assert size.scans == 1


def test_other_files_have_no_size():
    for data in (b"", b"words", b"GIF89a" + bytes(50), b"\xff\xd8\xff", b"BM", png(0, 5), jpeg(8, 8)[:20]):
        assert read_size(data) is None


def test_scans_and_segments_are_counted():
    assert read_size(progressive_jpeg(17, 64, 48))[:3] == (48, 64, 17)
    plain = read_size(commented_jpeg(0)).segments
    assert read_size(commented_jpeg(50)).segments == plain + 50
    real = jpeg(8, 8)
    assert read_size(real[:2] + b"\xff" * 50 + real[2:]).segments == read_size(real).segments + 50


def test_a_segment_between_garbage_hides_nothing():
    """Decoders look for the next marker behind a scan, whatever lies between."""
    data = progressive_jpeg(40, 64, 64)
    with pytest.raises(TooComplex, match="over 30 scans"):
        read_size(data.replace(b"\xff\xda", b"\x12\x34\xff\xda"))


@pytest.mark.parametrize("filler", [b"\xff\xe5\x00\x02", b"\xff", b"\xff\x01", b"\xff\xd8", b"\xff\x00", b"\xff\xd0", b"\x00"])
@pytest.mark.parametrize("place", [2, -2])
def test_twenty_megabytes_of_anything_take_no_time(filler, place):
    real = jpeg(8, 8)
    data = real[:place] + filler * (20_000_000 // len(filler)) + real[place:]
    start = time.process_time()
    try:
        size = read_size(data)
    except TooComplex:
        size = None
    assert time.process_time() - start < 1.5
    assert size is None or isinstance(size, ImageSize)

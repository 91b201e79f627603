"""What is refused before it costs anything."""

import re

import anyio
import cv2
import numpy as np
import pytest
from starlette.requests import Request

from keras_skin.serving import limits
from keras_skin.serving.limits import MAX_PIXELS, Refused, bounded, check_images
from tests.serving.bombs import chunked_png, commented_jpeg, jpeg, png, progressive_jpeg, thin_png


@pytest.mark.parametrize("encode", [png, jpeg])
def test_a_bomb_is_known_by_its_header(encode):
    with pytest.raises(Refused, match="An image of 10000 x 10001 pixels is refused: the limit is 60 million") as refusal:
        check_images([encode(10000, 10001)])
    assert refusal.value.status == 413
    check_images([encode(6000, MAX_PIXELS // 6000)])
    with pytest.raises(Refused):
        check_images([encode(6000, MAX_PIXELS // 6000 + 1)])


def test_images_count_together_and_others_not_at_all():
    check_images([png(5000, 5000), png(5000, 5000), b"no image", b""])
    with pytest.raises(Refused, match="3 images of 75000000 pixels and more are refused"):
        check_images([png(5000, 5000)] * 3)


ATTACKS = [
    (commented_jpeg(1900), 400, "A JPEG with over 200 segments is refused"),
    (progressive_jpeg(500, 64, 64), 400, "A JPEG with over 30 scans is refused"),
    (jpeg(5000, 10000).replace(b"\xff\xd9", b"") + b"\xff\xda\0\2" * 9, 413, "An image of 5000 x 10000 pixels in 10 scans"),
    (thin_png(1, 2000), 400, "An image of 1 x 2000 pixels is refused: one side is over 20 times as long as the other"),
    (chunked_png(b"IDAT", 20_000), 400, "A PNG with over 10000 chunks is refused"),
    (chunked_png(b"zTXt", 100), 400, "A PNG with over 32 chunks beside its pixels is refused"),
]


@pytest.mark.parametrize(("content", "status", "words"), ATTACKS)
def test_an_attack_is_refused_with_its_own_sentence(content, status, words):
    with pytest.raises(Refused, match=re.escape(words)) as refusal:
        check_images([content])
    assert refusal.value.status == status


def test_the_cost_of_a_file_follows_pixels_scans_and_segments():
    assert check_images([thin_png(100, 50), b"no image"]) == 5000
    assert check_images([progressive_jpeg(20, 100, 100)]) == pytest.approx(20 * 100 * 100, abs=100_000 * 60)
    few, many = (check_images([commented_jpeg(count)]) for count in (10, 110))
    assert many - few == 100 * 100_000
    assert check_images([progressive_jpeg(10, 64, 64)]) < limits.HEAVY < check_images([png(5000, 5000)])


def test_photographs_of_today_are_taken():
    for settings in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]):
        picture = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
        check_images([cv2.imencode(".jpg", picture, settings)[1].tobytes()])
    check_images([cv2.imencode(".png", picture)[1].tobytes(), cv2.imencode(".bmp", picture)[1].tobytes()])


def test_a_message_that_quotes_a_request_is_cut():
    assert len(str(Refused(400, "x" * 10**6))) < 2100


def request_of(chunks):
    """A request whose body comes in chunks; counts what was taken of it."""
    waiting = list(chunks)

    async def receive():
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    return Request({"type": "http", "method": "POST", "headers": []}, receive), waiting


def test_a_body_within_its_limit_arrives_whole():
    request, _ = request_of([b"ab", b"cd", b""])
    assert anyio.run(bounded(request, 4, "The body").body) == b"abcd"


def test_a_long_body_is_thrown_away_as_it_comes_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(limits, "_DISCARDED", 3)
    request, waiting = request_of([b"x" * 2**20] * 10)
    with pytest.raises(Refused, match="The body is larger than 2 MiB") as refusal:
        anyio.run(bounded(request, 2 * 2**20, "The body").body)
    assert refusal.value.status == 413
    assert len(waiting) == 3  # ten, less six MiB and the one that goes beyond

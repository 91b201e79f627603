"""What is refused before it costs anything."""

import anyio
import pytest
from starlette.requests import Request

from keras_skin.serving import limits
from keras_skin.serving.limits import MAX_PIXELS, Refused, bounded, check_pixels
from tests.serving.bombs import jpeg, png


@pytest.mark.parametrize("encode", [png, jpeg])
def test_a_bomb_is_known_by_its_header(encode):
    with pytest.raises(Refused, match="An image of 10000 x 10001 pixels is refused: the limit is 60 million") as refusal:
        check_pixels([encode(10000, 10001)])
    assert refusal.value.status == 413
    check_pixels([encode(6000, MAX_PIXELS // 6000)])
    with pytest.raises(Refused):
        check_pixels([encode(6000, MAX_PIXELS // 6000 + 1)])


def test_images_count_together_and_others_not_at_all():
    check_pixels([png(5000, 5000), png(5000, 5000), b"no image", b""])
    with pytest.raises(Refused, match="3 images of 75000000 pixels and more are refused"):
        check_pixels([png(5000, 5000)] * 3)


@pytest.mark.parametrize("filler", [b"\xff\xe5\x00\x02", b"\xff"])
def test_a_jpeg_whose_header_does_not_end_is_refused_at_once(filler):
    real = jpeg(8, 8)
    check_pixels([real[:2] + filler * (limits.MAX_SEGMENTS // 2) + real[2:]])
    with pytest.raises(Refused, match="over 2000 segments"):
        check_pixels([real[:2] + filler * 5_000_000 + real[2:]])


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

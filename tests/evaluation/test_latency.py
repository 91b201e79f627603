import time

import numpy as np
import pytest

from keras_skin.evaluation import latency
from keras_skin.evaluation.latency import describe_latency, measure_latency

IMAGES = {"image": np.arange(3 * 4 * 5 * 3, dtype=np.float32).reshape(3, 4, 5, 3)}


class Clock:
    """A clock that only moves while the model works, so that the numbers are exact."""

    def __init__(self, monkeypatch, *seconds):
        self.now, self.seconds, self.batches = 0.0, list(seconds), []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def predict(self, inputs):
        self.batches.append(inputs["image"])
        self.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]


def test_median_and_p95_per_image_after_the_warm_up(monkeypatch):
    counted = np.linspace(0.01, 0.21, 21)
    clock = Clock(monkeypatch, 900.0, 0.3, *counted, 0.5)  # the first call traces the graph: it is neither counted nor limited
    result = measure_latency(clock.predict, IMAGES, batch_sizes=(2,), seconds=counted.sum() - 1e-6)
    assert result["unit"] == "ms per image"
    assert result["skipped"] == []
    (item,) = result["measured"]
    assert item == {
        "batch_size": 2,
        "median": pytest.approx(np.median(counted) * 500),
        "p95": pytest.approx(np.percentile(counted, 95) * 500),
        "calls": 21,
    }


def test_batches_repeat_the_images_that_there_are(monkeypatch):
    clock = Clock(monkeypatch, 0.001)
    result = measure_latency(clock.predict, IMAGES, batch_sizes=(1, 7), seconds=0.1)
    assert [item["batch_size"] for item in result["measured"]] == [1, 7]
    assert {len(batch) for batch in clock.batches} == {1, 7}
    np.testing.assert_array_equal(clock.batches[-1], IMAGES["image"][[0, 1, 2, 0, 1, 2, 0]])


def test_many_fast_calls_end():
    calls = []
    result = measure_latency(calls.append, IMAGES, batch_sizes=(1,), seconds=60)
    assert result["measured"][0]["calls"] == latency.CALLS[1]
    assert len(calls) == latency.CALLS[1] + latency.WARM_UP


def test_what_takes_too_long_is_left_out_and_said(monkeypatch):
    clock = Clock(monkeypatch, 0.1)
    result = measure_latency(clock.predict, IMAGES, batch_sizes=(1, 32), seconds=2)
    assert [item["batch_size"] for item in result["measured"]] == [1]
    assert result["skipped"] == [{"batch_size": 32, "reason": "it would take more than 2 s"}]
    assert {len(batch) for batch in clock.batches} == {1}, "a batch that cannot end in time is not begun"
    clock = Clock(monkeypatch, 1.0)
    result = measure_latency(clock.predict, IMAGES, batch_sizes=(1,), seconds=2)
    assert result["measured"] == []
    assert result["skipped"] == [{"batch_size": 1, "reason": "fewer than 5 calls fit into 2 s"}]
    assert clock.now == latency.WARM_UP, "it is not begun, either"


def test_too_large_batches_are_not_made(monkeypatch):
    clock = Clock(monkeypatch, 0.001)
    monkeypatch.setattr(latency, "MAX_INPUT_VALUES", 100)
    result = measure_latency(clock.predict, IMAGES, batch_sizes=(1, 2), seconds=1)
    assert [item["batch_size"] for item in result["measured"]] == [1]
    assert result["skipped"] == [{"batch_size": 2, "reason": "its input alone holds 120 values"}]


class ResourceExhaustedError(Exception):
    """Stands for TensorFlow's."""


@pytest.mark.parametrize("error", [MemoryError, ResourceExhaustedError])
def test_memory_that_does_not_suffice_is_said(error):
    def predict(inputs):
        if len(inputs["image"]) > 1:
            raise error("no memory")

    result = measure_latency(predict, IMAGES, seconds=0.2)
    assert [item["batch_size"] for item in result["measured"]] == [1]
    assert result["skipped"] == [{"batch_size": 32, "reason": "it does not fit into memory"}]


def test_other_failures_are_not_hidden():
    def predict(inputs):
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        measure_latency(predict, IMAGES)
    with pytest.raises(ValueError, match="at least one image; empty: image"):
        measure_latency(predict, {"image": np.zeros((0, 4, 4, 3))})


def test_lines_for_the_summary():
    measured = {
        "device": "a processor",
        "unit": "ms per image",
        "measured": [{"batch_size": 1, "median": 12.3456, "p95": 15.0, "calls": 99}],
        "skipped": [{"batch_size": 32, "reason": "it does not fit into memory"}],
    }
    assert describe_latency(measured) == {
        "Latency, batch 1": "12.35 ms per image (p95 15.00), 99 calls",
        "Latency, batch 32": "not measured: it does not fit into memory",
        "Latency measured on": "a processor",
    }
    assert describe_latency({**measured, "measured": [], "skipped": []}) == {}

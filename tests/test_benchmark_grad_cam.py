"""The benchmark against tf-explain runs, and counts what it says."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

FILE = Path(__file__).resolve().parent.parent / "tools" / "benchmark_grad_cam.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("benchmark_grad_cam", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_way_is_timed(tool):
    image = keras.Input((16, 24, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="cam_features")(image)
    model = keras.Model({"image": image}, {"label": keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))})
    rows = tool.compare(model, np.random.default_rng(0).uniform(0, 255, (3, 16, 24, 3)).astype("float32"), 2, 1)
    assert len(rows) == 4
    assert all(value.clock > 0 and value.processor > 0 for value in rows.values())


def test_the_first_call_is_not_counted_and_the_fastest_is(tool, monkeypatch):
    moments, work = iter([0.0, 5.0, 5.0, 7.0]), iter([0.0, 1.0, 1.0, 4.0])
    monkeypatch.setattr(tool.time, "perf_counter", lambda: next(moments))
    monkeypatch.setattr(tool.time, "process_time", lambda: next(work))
    calls = []
    assert tool.seconds(lambda: calls.append(1), 2) == (2.0, 1.0)
    assert len(calls) == 3

"""The program that prints a model's size, on a network that can be counted by hand."""

import importlib.util
import sys
from pathlib import Path

import keras
import pytest

FILE = Path(__file__).resolve().parent.parent / "tools" / "model_footprint.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("model_footprint", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counted_by_hand(tool):
    image = keras.Input((4, 4, 3), name="image")
    x = keras.layers.ReLU()(keras.layers.Conv2D(2, 3, padding="same")(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    shared = keras.layers.Dense(2)
    model = keras.Model(image, shared(shared(x)))
    weights, convolution, dense = 3 * 3 * 3 * 2 + 2 + 2 * 2 + 2, 4 * 4 * 2, 2 + 2
    sizes = tool.footprint(model)
    assert sizes["parameters"] == weights
    in_megabytes = {
        "weights": weights,
        "outputs of all layers": convolution + convolution + 2 + dense,
        "outputs of layers with weights": convolution + dense,
        "weights + outputs of layers with weights": weights + convolution + dense,
        "torchinfo": 4 * 4 * 3 + weights + 2 * (convolution + dense),
    }
    for name, numbers in in_megabytes.items():
        assert sizes[name] == pytest.approx(numbers * 4 / 1e6), name


@pytest.mark.slow
def test_printed_for_the_outputs_asked_for(tool, monkeypatch, capsys):
    arguments = '{"backbone": "resnet18", "filters": [4, 4, 8, 8, 8], "features": 8}'
    command = ["model_footprint.py", "deep_unet", "--image-size", "64", "64", "--arguments", arguments]
    counts = []
    for more in ([], ["--outputs", "mask"]):
        monkeypatch.setattr(sys, "argv", command + more)
        tool.main()
        counts.append(int(capsys.readouterr().out.splitlines()[0].split()[-1].replace(",", "")))
    assert counts[0] - counts[1] == (4 + 1) + (8 + 1), "the two auxiliary heads"

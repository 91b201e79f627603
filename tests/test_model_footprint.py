"""The program that prints a model's size."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "tools" / "model_footprint.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("model_footprint", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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

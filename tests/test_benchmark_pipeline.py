"""The data benchmark runs on rendered images, and PyTorch's loader does the same work as ours."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_skin.data.datasets.readers.isic2016 import render
from keras_skin.data.pipeline.augment import FlipsRotations

TOOLS = Path(__file__).resolve().parent.parent / "tools"
HAS_TORCH = importlib.util.find_spec("torch") is not None
OURS = {"decode_full", "decode_reduced", "epoch_cold", "epoch_warm"}


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    spec = importlib.util.spec_from_file_location("benchmark_pipeline", TOOLS / "benchmark_pipeline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    render(folder / "isic2016", counts={"train": 6, "test": 0}, size=(60, 80))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("torch", [False, pytest.param(True, marks=pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch"))])
def test_every_row_is_measured(tool, data, tmp_path, capsys, monkeypatch, torch):
    monkeypatch.setattr(tool, "has_torch", lambda: torch)
    command = ["--data", str(data), "--size", "16", "24", "--batch", "4", "--repeats", "2", "--json", str(tmp_path / "a.json")]
    extra = [] if torch else ["--memory", "--wait", "--tiny"]
    assert tool.main([*command, "--markdown", *extra]) == 0
    result = json.loads((tmp_path / "a.json").read_text())
    assert {row["row"] for row in result["rows"]} == OURS | ({"torch", "torch_reduced"} if torch else set())
    for row in result["rows"]:
        assert len(row["values"]) == 2
        assert 0 < row["min"] <= row["median"] <= row["max"]
    assert result["settings"]["images"] == 6
    assert result["machine"]["cores"] >= 1
    assert {"python", "tensorflow", "keras"} <= set(result["versions"])
    printed = capsys.readouterr().out
    assert all(f"| {row['title']} | " in printed for row in result["rows"])
    if not torch:
        assert len(result["memory"]["resident_mib"]) == 11
        assert result["memory"]["growth_mib"] == result["memory"]["resident_mib"][-1] - result["memory"]["resident_mib"][0]
        assert 0 < result["wait"]["median"] < 1


def test_pytorch_side_changes_images_as_our_policy_does(tool):
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    mask = (image[..., 0] > 128).astype(np.uint8)
    policy = FlipsRotations()
    for seed in range(4):
        ours = policy(image, mask, 0, np.random.default_rng(seed))
        theirs = tool.augmentation()
        theirs.set_random_seed(int(np.random.default_rng(seed).integers(2**31)))
        changed = theirs(image=image, mask=mask)
        np.testing.assert_array_equal(changed["image"], ours[0])
        np.testing.assert_array_equal(changed["mask"], ours[1])


@pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch")
def test_a_picture_of_pytorch_side(tool, data):
    pairs = tool.files("isic2016", data, None)
    assert len(pairs) == 6
    image, mask = tool.TorchPictures(pairs, (16, 24), reduced=True)[0]
    assert tuple(image.shape) == (3, 16, 24)
    assert tuple(mask.shape) == (1, 16, 24)
    assert set(mask.unique().tolist()) == {0, 1}


def test_reduced_decoding_keeps_twice_the_size(tool, data):
    path = tool.files("isic2016", data, 1)[0][0]
    height, width = tool.cv2.imread(path).shape[:2]
    for size, ratio in (((height // 4, width // 4), 2), ((height // 8, width // 8), 4), ((height // 2 + 1, 8), 1)):
        decoded = tool.cv2.imread(path, tool.decoding_flag(path, size))
        assert abs(decoded.shape[0] - height / ratio) <= 1

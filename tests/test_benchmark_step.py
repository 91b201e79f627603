"""The step benchmark runs with a tiny network, and its U-Net in PyTorch is the package's."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_skin.losses.dice_binary_crossentropy import DiceBinaryCrossentropy
from keras_skin.models.unet import FILTERS, UNet

TOOLS = Path(__file__).resolve().parent.parent / "tools"
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch")


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    spec = importlib.util.spec_from_file_location("benchmark_step", TOOLS / "benchmark_step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(TOOLS))


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "torch"), [("jrl", False), pytest.param("unet", True, marks=needs_torch)], ids=["jrl alone", "unet and PyTorch"]
)
def test_every_row_is_measured(tool, tmp_path, capsys, monkeypatch, model, torch):
    monkeypatch.setattr(tool, "has_torch", lambda: torch)
    command = [
        "--models",
        model,
        "--size",
        "16",
        "24",
        "--filters",
        "4",
        "4",
        "8",
        "--batch",
        "2",
        "--repeats",
        "2",
        "--steps",
        "1",
    ]
    assert tool.main([*command, "--json", str(tmp_path / "a.json")]) == 0
    result = json.loads((tmp_path / "a.json").read_text())
    tasks = {("training", 2), ("inference", 2), ("inference", 1)}
    sides = {("keras", model)} | ({("torch", "unet")} if torch else set())
    rows = {(row["side"], row["model"], row["task"], row["batch"], row["precision"]) for row in result["rows"]}
    assert rows == {
        (side, name, task, batch, precision) for side, name in sides for task, batch in tasks for precision in tool.PRECISIONS
    }
    for row in result["rows"]:
        assert len(row["values"]) == 2
        assert 0 < row["min"] <= row["median"] <= row["max"]
    assert result["machine"]["cores"] >= 1
    printed = capsys.readouterr().out
    assert all(row["title"] in printed for row in result["rows"])


@needs_torch
@pytest.mark.parametrize("filters", [FILTERS, (4, 4, 8)], ids=str)
def test_both_unets_have_the_same_number_of_parameters(tool, filters):
    ours = sum(int(np.prod(weight.shape)) for weight in UNet((64, 64), filters).trainable_weights)
    assert sum(parameter.numel() for parameter in tool.torch_unet(filters).parameters()) == ours


@needs_torch
def test_the_unet_of_pytorch_gives_a_mask_of_the_image_size(tool):
    import torch

    assert tuple(tool.torch_unet((4, 4, 8))(torch.zeros(2, 3, 16, 24)).shape) == (2, 1, 16, 24)


@needs_torch
def test_both_losses_are_the_same(tool):
    import torch

    logits = np.random.default_rng(0).normal(size=(2, 8, 12, 1)).astype("float32")
    masks = tool.images_and_masks(2, (8, 12))[1]
    theirs = tool.torch_loss(*(torch.from_numpy(array).permute(0, 3, 1, 2) for array in (logits, masks)))
    assert float(theirs) == pytest.approx(float(DiceBinaryCrossentropy()(masks, logits)), rel=1e-5)

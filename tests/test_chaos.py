"""tools/chaos.py notices what differs."""

import json
import shutil

import cv2
import h5py
import numpy as np
import pytest

from tools import chaos
from tools.chaos import differences


@pytest.fixture
def folders(tmp_path):
    """Two equal folders with a file of every kind."""
    folder = tmp_path / "a"
    (folder / "checkpoints").mkdir(parents=True)
    with h5py.File(folder / "checkpoints" / "best.weights.h5", "w") as file:
        file["layer/kernel"] = np.arange(6.0).reshape(2, 3)
    np.savez(folder / "state.npz", epoch=np.array(2), values=np.array([1.0, np.nan]))
    (folder / "metrics.json").write_text(json.dumps({"test": {"dsc": 0.9, "seconds": 3.0}}))
    (folder / "history.csv").write_text("epoch,seconds,loss\n1,2.5,0.7\n")
    (folder / "latency.json").write_text("{}")
    shutil.copytree(folder, tmp_path / "b")
    return folder, tmp_path / "b"


def test_times_are_no_difference(folders):
    a, b = folders
    (b / "metrics.json").write_text(json.dumps({"test": {"dsc": 0.9, "seconds": 4.0}}))
    (b / "history.csv").write_text("epoch,seconds,loss\n1,9.9,0.7\n")
    (b / "latency.json").write_text('{"milliseconds": 1}')
    assert list(differences(a, b)) == []


def test_the_time_in_a_card_is_no_difference_and_its_agreement_is(folders):
    a, b = folders
    (a / "model_card.md").write_text("DSC 1.0000; 4.1 ms per image")
    (b / "model_card.md").write_text("DSC 1.0000; 3.2 ms per image")
    assert list(differences(a, b)) == []
    (b / "model_card.md").write_text("DSC 0.9999; 4.1 ms per image")
    assert list(differences(a, b)) == ["model_card.md differs"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("metrics.json", lambda path: path.write_text(json.dumps({"test": {"dsc": 0.9000001}}))),
        ("history.csv", lambda path: path.write_text("epoch,seconds,loss\n1,2.5,0.8\n")),
        ("state.npz", lambda path: np.savez(path, epoch=np.array(2), values=np.array([1.1, np.nan]))),
    ],
)
def test_other_contents_are_found(name, change, folders):
    a, b = folders
    change(b / name)
    assert list(differences(a, b)) == [f"{name} differs"]


def test_other_weights_are_found(folders):
    a, b = folders
    with h5py.File(b / "checkpoints" / "best.weights.h5", "r+") as file:
        file["layer/kernel"][0, 0] = 1e-7
    assert list(differences(a, b)) == ["checkpoints/best.weights.h5 differs"]


@pytest.mark.parametrize(("levels", "expected"), [(2, []), (3, ["figures/curves.png differs"])])
def test_figures_may_differ_by_rounding_only(levels, expected, folders):
    for folder, value in zip(folders, (100, 100 + levels), strict=True):
        (folder / "figures").mkdir()
        cv2.imwrite(str(folder / "figures" / "curves.png"), np.full((4, 5, 3), value, np.uint8))
    assert list(differences(*folders)) == expected


def test_missing_and_stray_files_are_found(folders):
    a, b = folders
    (b / "metrics.json").unlink()
    (b / ".x-report.html").touch()
    assert list(differences(a, b)) == ["metrics.json is missing", ".x-report.html is a stray file"]


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, capsys):
    """The short form: one run, killed in its second epoch and in its export."""
    assert chaos.main(["--out", str(tmp_path), "--kinds", "joint", "--kills", "1", "--per-run", "2", "--seed", "30"]) == 0
    (trial,) = json.loads((tmp_path / "chaos.json").read_text())
    assert [(kill["phase"], kill["signal"]) for kill in trial["kills"]] == [("train on", "SIGKILL"), ("export", "SIGTERM")]
    assert any(kill["hit"] for kill in trial["kills"])
    assert "1 runs, seed 30: 0 runs differ" in capsys.readouterr().out

"""The compare command as its user meets it: what it says, with which exit code, and what it writes."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keras_skin.compare import main
from keras_skin.data.datasets import readers
from keras_skin.run import main as run
from tests.evaluation.run_folders import images, write_run
from tests.tiny_run import TINY, arguments

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_data_of_the_machine(monkeypatch):
    monkeypatch.delenv("KERAS_SKIN_DATA", raising=False)


@pytest.fixture
def pair(tmp_path):
    table = images()
    return [
        str(write_run(tmp_path / f"{name}-20260131-101500", table, seed=seed, overrides=[f"train.epochs={3 + seed}"]))
        for seed, name in enumerate(("first", "second"))
    ]


def errors(capsys) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return captured.err


def test_two_runs_are_compared_on_the_terminal(pair, capsys):
    assert main(pair) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "Differences: each run minus first." in captured.out
    assert captured.out.count("second") >= 8


def test_against_names_the_side_that_is_subtracted(tmp_path, capsys):
    table = images()
    runs = {
        name: [
            str(
                write_run(
                    tmp_path / f"{name}{seed}", table, skill=skill, seed=10 * skill + seed, overrides=[f"train.seed={seed}"]
                )
            )
            for seed in range(2)
        ]
        for name, skill in (("good", 3), ("plain", 0))
    }
    assert main([*runs["good"], "--against", *runs["plain"], "--out", str(tmp_path / "out")]) == 0
    assert "each run minus plain0 (2 runs)" in capsys.readouterr().out
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (macro,) = [row for row in comparison["rows"] if row["metric"] == "f1_macro"]
    assert macro["verdicts"] == ["better", ""]
    assert macro["differences"][0]["ci95"][0] > 0


def test_misuse_is_told_without_a_traceback(pair, tmp_path, capsys):
    other = str(write_run(tmp_path / "other", images().iloc[1:]))
    for command, expected in (
        (pair[:1], "at least two runs"),
        ([pair[0], pair[0]], "is given twice"),
        ([pair[0], str(tmp_path)], "is not a run folder"),
        ([*pair, other], "ISIC_0000000"),
        ([*pair, "--split", "validation"], "measured no 'validation'"),
        ([*pair, "--html", str(tmp_path)], "is a folder, expected a file"),
        ([*pair, "--out", pair[0]], "nothing is overwritten"),
        ([pair[0], "--against", pair[0]], "is given twice"),
    ):
        assert main(command) == 2, command
        assert expected in errors(capsys)


def test_without_the_images_all_but_the_outlines_is_drawn(pair, tmp_path, capsys):
    assert main([*pair, "--html", str(tmp_path / "page.html"), "--data", str(tmp_path)]) == 0
    assert "Outlines are not drawn: " in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().count("<figure>") == 3
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".html"]


def test_rendered_images_that_were_given_as_data_are_marked(tmp_path, capsys):
    """A run on a rendered data set that was given by --data is no demo, but its page must say SYNTHETIC all the same."""
    data = tmp_path / "data"
    readers.get("isic2016").info["render"](data / "isic2016", seed=0, counts={"train": 2, "test": 8})
    table = images(8).assign(image_id=[f"ISIC_{10_000 + number:07d}" for number in range(8)])
    runs = [
        str(write_run(tmp_path / name, table, record={"data_dir": str(data)}, seed=seed, experiment=f"jrl_isic2016_{name}"))
        for seed, name in enumerate(("mtl1", "mtl2"))
    ]
    assert main(runs) == 0
    assert "SYNTHETIC DATA" in capsys.readouterr().out
    shutil.rmtree(data)
    assert main(runs) == 0
    assert "SYNTHETIC" not in capsys.readouterr().out


def test_the_command_is_thin_and_needs_no_tensorflow_without_outlines(pair):
    assert len((ROOT / "keras_skin" / "compare.py").read_text().splitlines()) < 150
    code = (
        "import sys, keras_skin.compare as command; assert not {'numpy', 'pandas'} & set(sys.modules); "
        f"assert command.main({pair!r}) == 0; assert not {{'tensorflow', 'keras'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "keras_skin.compare", "--help"], check=True, cwd=ROOT, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, seconds


@pytest.mark.slow
def test_two_demo_runs_and_a_cross_validation_are_compared(tiny_run, crossval_run, tmp_path, capsys):
    overrides = [*TINY, "train.epochs=1", "train.batch_size=2"]
    assert run(arguments("jrl_ph2", "--out", str(tmp_path / "other"), overrides=overrides)) == 0
    (other,) = (tmp_path / "other").iterdir()
    capsys.readouterr()
    assert main([str(tiny_run), str(other), "--out", str(tmp_path / "out"), "--html", str(tmp_path / "page.html")]) == 0
    assert "SYNTHETIC DATA" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out" / "figures").iterdir()) == [
        "box_plots.png",
        "curves.png",
        "differences.png",
        "embeddings.png",
        "grad_cam.png",
        "outlines.png",
    ]
    assert "SYNTHETIC" in (tmp_path / "page.html").read_text()
    own = json.loads((other / "metrics.json").read_text())["test"]["segmentation"]["dsc"]
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert next(row for row in rows if row["metric"] == "dsc")["values"][1] == own

    # the folds' test parts together are the data set, and so is the test part of the other run
    assert main([str(crossval_run), str(tiny_run), "--html", str(tmp_path / "folds.html")]) == 0
    assert "20 images" in capsys.readouterr().out
    assert (tmp_path / "folds.html").read_text().count("<figure>") == 5  # with outlines, from the folds' masks

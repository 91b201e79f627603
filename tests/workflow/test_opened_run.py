"""Run folders with a damaged file: every command names the file and says what to do."""

import json
import os
import shutil

import pytest
from PIL import Image

from keras_skin.compare import main as compare
from keras_skin.explain.__main__ import main as explain
from keras_skin.export.__main__ import main as export
from keras_skin.predict import main as predict
from keras_skin.report import main as report
from keras_skin.run import main as run
from keras_skin.serve import main as serve
from tests.evaluation.run_folders import write_run

REPORT = {"summary": {}, "notes": [], "evaluation_notes": {}, "figures": {}, "explanations": {}, "explanation_warnings": []}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two finished run folders without weights."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("run", "other"):
        path = write_run(folder / name)
        (path / "checkpoints").mkdir()
        (path / "report.json").write_text(json.dumps(REPORT))
        (path / "environment.json").write_text("{}")
        (path / "excluded.csv").write_text("dataset,image_id,file,reason\n")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "runs")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    return tmp_path / "runs" / "run"


def commands(folder):
    picture = str(folder.parent.parent / "a.png")
    out = ["--out", str(folder.parent.parent / "out")]
    return {
        "resume": (run, ["--resume", str(folder)]),
        "report": (report, [str(folder)]),
        "compare": (compare, [str(folder), str(folder.parent / "other")]),
        "explain": (explain, [str(folder), picture, "--html", str(folder.parent.parent / "page.html")]),
        "export": (export, [str(folder), "--editions", "float32", *out]),
        "predict": (predict, [str(folder), picture, *out]),
        "serve": (serve, [str(folder), "--port", "0"]),
    }


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def text(content):
    return lambda path: path.write_text(content)


def entry(key, value):
    def damage(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return damage


def a_file(path):
    shutil.rmtree(path)
    path.write_text("")


ALL = ("resume", "report", "compare", "explain", "export")
DAMAGES = {
    "run.json missing": ("run.json", os.unlink, (*ALL, "predict", "serve")),
    "run.json empty": ("run.json", text(""), ("resume", "report", "compare")),
    "run.json a list": ("run.json", text("[]"), ("resume", "report", "compare")),
    "run.json truncated": ("run.json", truncate, ("resume", "report", "compare")),
    "run.json nested": ("run.json", text("[" * 100_000), ("resume", "report", "compare")),
    "run.json with other types": ("run.json", entry("finished", {"a": 1}), ("resume", "report", "compare")),
    "experiment.json empty": ("experiment.json", text(""), ("report", "compare")),
    "metrics.json empty": ("metrics.json", text(""), ("report", "compare")),
    "metrics.json a list": ("metrics.json", text("[1]"), ("report", "compare")),
    "metrics.json truncated": ("metrics.json", truncate, ("report", "compare")),
    "metrics.json with other types": ("metrics.json", text('{"test": {"segmentation": {"dsc": 5}}}'), ("report", "compare")),
    "metrics.json of numbers": ("metrics.json", text('{"test": 5}'), ("report", "compare")),
    "report.json a list": ("report.json", text("[]"), ("report",)),
    "report.json without entries": ("report.json", text("{}"), ("report",)),
    "predictions.csv empty": ("predictions.csv", text(""), ("compare",)),
    "predictions.csv of zeros": ("predictions.csv", text("\0\0\0"), ("compare",)),
    "splits.csv empty": ("splits.csv", text(""), ("report", "compare")),
    "checkpoints a file": ("checkpoints", a_file, ("explain", "export")),
}


@pytest.mark.parametrize(
    ("damage", "command"), [(damage, command) for damage, (*_, names) in DAMAGES.items() for command in names]
)
def test_a_damaged_file_gets_a_sentence(folder, damage, command, capsys):
    name, change, _ = DAMAGES[damage]
    change(folder / name)
    main, arguments = commands(folder)[command]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    if damage == "run.json missing" and command in ("predict", "serve"):
        assert "is neither a run with an exported model nor such a model" in captured.err
    else:
        assert name.split()[0] in captured.err
        assert str(folder) in captured.err
    assert len(captured.err) < 2000


def test_a_file_in_the_place_of_the_checkpoints_is_not_resumed(folder, capsys):
    entry("finished", False)(folder / "run.json")
    a_file(folder / "checkpoints")
    assert run(["--resume", str(folder)]) == 2
    assert "checkpoints is a file, expected the folder of a training's state and weights. Restore it" in capsys.readouterr().err


def test_whole_folders_are_reported_and_compared(folder):
    for command in ("report", "compare"):
        main, arguments = commands(folder)[command]
        assert main(arguments) == 0

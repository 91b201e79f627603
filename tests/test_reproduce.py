"""The reproduce command as its user meets it: a row that fails, Ctrl-C within a run, continuing, and misuse."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_skin.experiment.tables import shipped_tables
from keras_skin.reproduce import main
from tests.tiny_run import TINY_UNET

ROOT = Path(__file__).resolve().parent.parent


def row(label, **changes):
    """A tiny row of unet_isic2016 on ISIC 2016 alone."""
    texts = dict(text.split("=", 1) for text in TINY_UNET)
    values = {key: text if text == "float32" else json.loads(text) for key, text in texts.items()}
    values |= {"explain.images": 0, "explain.measured": 0, "export.enabled": False, "data.external": []}
    return {"label": label, "experiment": "unet_isic2016", "set": values | changes}


def write(path, rows):
    values = {"title": "Tiny ladder", "paper": "Somebody, 2026, table 1", "metrics": {"segmentation": ["dsc"]}, "rows": rows}
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture
def data(tmp_path):
    """A drawn ISIC 2016 in a folder of data sets."""
    from keras_skin.data.datasets import readers

    readers.get("isic2016").info["render"](tmp_path / "data" / "isic2016", counts={"train": 24, "test": 8}, size=(60, 80))
    return tmp_path / "data"


@pytest.mark.slow
def test_a_table_whose_first_row_fails_is_interrupted_and_continued(data, tmp_path):
    out = tmp_path / "out"
    rows = [
        row("Broken", **{"data.train.folder": "nowhere"}),
        row("U-Net", **{"train.epochs": 30, "train.save_every_seconds": 0.01}),
    ]
    arguments = [write(tmp_path / "ladder.json", rows), "--data", str(data), "--out", str(out)]
    command = [sys.executable, "-m", "keras_skin.reproduce", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 400
        while not list(out.glob("*/history.csv")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "the same command" in errors
    assert "Traceback" not in errors
    broken, interrupted = read(out)
    assert "nowhere" in broken["missing"]
    assert interrupted["missing"] == "u-net-seed0: interrupted"

    assert main(arguments) == 3, "the broken row still fails"
    (run,) = out.glob("u-net-seed0-*")
    assert "continuing in epoch" in (run / "run.log").read_text()
    broken, finished = read(out)
    assert "nowhere" in broken["missing"]
    assert (finished["published"], finished["seeds"], finished["n"], finished["missing"]) == ("0.9104", "1", "8", "")
    assert "30 epochs instead of 50" in finished["training"]
    assert "Tiny ladder" in (out / "table.html").read_text()

    before = (run / "run.log").read_text()
    assert main(arguments) == 3
    assert (run / "run.log").read_text() == before, "a finished row is not repeated"


def read(out):
    with (out / "table.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_tables_are_listed(capsys):
    for arguments in ([], ["--list"]):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == shipped_tables()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["jlr", "--data", "."], "Did you mean 'jrl'?"),
        (["jrl"], "Where are the data sets?"),
        (["jrl", "--data", ".", "--seeds", "0"], "at least 1"),
    ],
)
def test_misuse_is_reported_without_a_traceback(arguments, expected, capsys, monkeypatch):
    monkeypatch.delenv("KERAS_SKIN_DATA", raising=False)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert "Traceback" not in captured.err


def test_two_commands_cannot_work_in_one_folder(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert main([write(tmp_path / "ladder.json", [row("U-Net")]), "--data", str(tmp_path), "--out", str(out)]) == 2
        holder.kill()
    assert "Another process works in" in capsys.readouterr().err

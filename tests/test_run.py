"""The run command as its user meets it: what it says, and with which exit code."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin import workflow
from keras_skin.evaluation.measured_run import explained_images
from keras_skin.run import main
from keras_skin.workflow.exporting import export_finished
from keras_skin.workflow.run_log import run_log
from tests.tiny_run import TINY, arguments

ROOT = Path(__file__).resolve().parent.parent


def error_output(capsys) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Which experiment?"),
        (["jrl_ph3"], "Did you mean 'jrl_ph2'?"),
        (["jrl_ph2", "--set", "train.epochs"], "--set takes KEY=VALUE"),
        (["jrl_ph2", "--set", "train.epochz=3"], "train.epochz = 3: unknown key. Did you mean 'epochs'?"),
        (["jrl_ph2", "--demo", "--data", "somewhere"], "--demo renders its own data"),
        (["--resume", "nowhere"], "'nowhere' is not a run folder"),
        (["jrl_ph2", "--resume", "nowhere"], "--resume continues a run as it was started"),
    ],
)
def test_misuse_is_told_without_a_traceback(arguments, expected, capsys, monkeypatch):
    monkeypatch.delenv("KERAS_SKIN_DATA", raising=False)
    assert main(arguments) == 2
    assert expected in error_output(capsys)


def test_missing_data_says_where_it_looked_what_it_expected_and_that_there_is_a_demo(tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(["jrl_ph2", "--data", str(tmp_path), "--out", str(out)]) == 2
    message = error_output(capsys)
    for part in (str(tmp_path), "ISBI2016_ISIC_Part1_Training_Data", "CC-0", "--demo"):
        assert part in message
    assert not list(out.iterdir()), "a run that never began leaves no folder behind"


def test_a_builder_that_refuses_is_told_in_its_own_words(tmp_path, capsys):
    overrides = [*TINY, "image.size=[33, 64]"]
    assert main(arguments("jrl_ph2", "--out", str(tmp_path), overrides=overrides)) == 2
    assert "32" in error_output(capsys)


def test_run_folder_is_complete(tiny_run):
    expected = [
        "experiment.json",
        "environment.json",
        "splits.csv",
        "excluded.csv",
        "history.csv",
        "metrics.json",
        "predictions.csv",
        "masks",
        "figures/samples.png",
        "explain/sheet_grad_cam.png",
        "explain/faithfulness.csv",
        "checkpoints/best.weights.h5",
        "saved_model/1/saved_model.pb",
        "report.json",
        "report.html",
        "run.log",
        "SYNTHETIC.txt",
    ]
    assert not [name for name in expected if not (tiny_run / name).exists()]
    assert json.loads((tiny_run / "run.json").read_text())["finished"] is True
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert set(metrics) == {"validation", "test", "explanations"}
    for part in ("validation", "test"):
        split = metrics[part]
        for name, task in (("dsc", "segmentation"), ("f1_weighted", "classification")):
            assert {"value", "ci95", "n"} <= set(split[task][name])
    predictions = pd.read_csv(tiny_run / "predictions.csv")
    assert {"image_id", "label", "probability_benign", "probability_malignant", "dsc", "iou", "mcc"} <= set(predictions)
    assert predictions[["probability_benign", "probability_malignant"]].sum(axis=1).to_numpy() == pytest.approx(1)
    for _, row in predictions.iterrows():
        assert (tiny_run / "masks" / row["split"] / f"{row['image_id']}.png").is_file()


def test_everything_a_demo_writes_says_synthetic(tiny_run):
    assert "SYNTHETIC" in (tiny_run / "report.html").read_text()
    assert "SYNTHETIC" in (tiny_run / "run.log").read_text()
    assert "SYNTHETIC" in (tiny_run / "saved_model" / "1" / "assets" / "model.json").read_text()


def test_a_finished_run_is_not_resumed(tiny_run, capsys):
    assert main(["--resume", str(tiny_run)]) == 2
    assert "is finished" in error_output(capsys)


def test_loaded_run_predicts_what_the_run_wrote(tiny_run):
    import keras_skin
    from keras_skin.data.images.load import load_image

    run = keras_skin.load_run(tiny_run)
    assert run.classes == ("benign", "malignant")
    splits = pd.read_csv(tiny_run / "splits.csv", dtype=str)
    row = splits[splits["split"] == "test"].iloc[0]
    (path,) = (tiny_run / "demo_data" / row["dataset"]).rglob(f"{row['image_id']}.bmp")
    logits = run.model({"image": load_image(str(path), (32, 64))[None]})["label"][0]
    written = pd.read_csv(tiny_run / "predictions.csv").set_index("image_id").loc[row["image_id"]]
    odds = float(np.exp(logits[1] - logits[0]))
    assert odds / (1 + odds) == pytest.approx(written["probability_malignant"], abs=1e-5)


@pytest.mark.slow
def test_the_same_demo_twice_gives_the_same_metrics(tiny_run, tmp_path):
    assert main(arguments("jrl_ph2", "--out", str(tmp_path))) == 0
    (again,) = tmp_path.iterdir()
    assert (again / "metrics.json").read_text() == (tiny_run / "metrics.json").read_text()
    assert (again / "splits.csv").read_text() == (tiny_run / "splits.csv").read_text()


@pytest.mark.slow
def test_dry_run_goes_through_export_with_preprocessing_and_a_supervised_first_mask(tmp_path):
    supervised = ["model.initial_mask=true", 'losses.mask_aux_1={"name": "dice", "weight": 0.2}']
    overrides = [*TINY, *supervised, 'image.preprocessing=[{"name": "shades_of_grey"}]', "balancing.class_weights=true"]
    assert main(arguments("jrl_ph2", "--dry-run", "--out", str(tmp_path), overrides=overrides)) == 0
    (run,) = tmp_path.iterdir()
    assert "dry-run" in run.name
    history = pd.read_csv(run / "history.csv")
    assert len(history) == 1
    assert "mask_aux_1_loss" in history
    assert "ShadesOfGrey" in (run / "saved_model" / "1" / "assets" / "model.json").read_text()


@pytest.mark.slow
def test_a_run_without_validation_images_keeps_the_last_epoch_and_shows_test_images(tmp_path):
    """From data to report and to a further export; the per-image scaling is part of the exported model."""
    overrides = [*TINY, "model.scaling=min_max", "augmentation.copies.malignant=level"]
    assert main(arguments("jrl_isic2016_paper_protocol", "--out", str(tmp_path), overrides=overrides)) == 0
    (run,) = tmp_path.iterdir()
    assert list(json.loads((run / "metrics.json").read_text())) == ["test", "external/ph2", "explanations"]
    splits = pd.read_csv(run / "splits.csv", dtype=str)
    assert set(splits["split"]) == {"train", "test", "external/ph2"}
    explained = {path.name for path in (run / "explain").iterdir() if path.is_dir()}
    assert explained
    assert explained <= set(splits[splits["split"] == "test"]["image_id"])
    assert not [name for name in pd.read_csv(run / "history.csv") if name.startswith("val_")]
    report = (run / "report.html").read_text()
    for text in ("There are no validation images", "2 test images", "the weights are those of the last epoch", "the last one"):
        assert text in report
    assert list(export_finished(run, ["float32"])) == [("float32", run / "saved_model" / "2", None)]
    for version in ("1", "2"):
        about = json.loads((run / "saved_model" / version / "assets" / "model.json").read_text())
        assert about["agreement"]["split"] == "test"
        assert about["agreement"]["probabilities"] < 1e-5
    assert "test images; same class in 100.0%" in (run / "saved_model" / "1" / "model_card.md").read_text()
    assert explained_images(run).keys() == explained


@pytest.mark.slow
def test_cross_validation_tests_every_image_once(crossval_run):
    predictions = pd.read_csv(crossval_run / "predictions.csv")
    assert len(predictions) == predictions["image_id"].nunique() == 20
    assert json.loads((crossval_run / "metrics.json").read_text())["test"]["segmentation"]["dsc"]["n"] == 20
    for fold in ("fold_1", "fold_2"):
        assert (crossval_run / fold / "report.html").is_file()
    assert (crossval_run / "report.html").is_file()


def start(out: Path, *more: str) -> subprocess.Popen:
    overrides = [*TINY, "train.save_every_seconds=0.01", "train.epochs=3", "train.steps_per_epoch=12", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "keras_skin.run", *arguments("jrl_ph2", "--out", str(out), overrides=overrides)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for_state_within_an_epoch(out: Path, process: subprocess.Popen) -> Path:
    """Returns the run's folder once its first epoch is written and a later state was saved."""
    start = time.monotonic()
    while time.monotonic() - start < 400 and process.poll() is None:
        history = list(out.glob("*/history.csv"))
        states = list(out.glob("*/checkpoints/run_state.npz"))
        if history and states and states[0].stat().st_mtime > history[0].stat().st_mtime + 0.05:
            return history[0].parent
        time.sleep(0.005)
    raise AssertionError(f"no state was saved: {process.communicate()}")


WITHOUT_EXPORT = ("export.enabled=false", "explain.images=0", "explain.measured=0")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [WITHOUT_EXPORT, pytest.param((), marks=pytest.mark.nightly)], ids=["without_export", "through_export"]
)
def test_killed_and_resumed_run_equals_the_undisturbed_one(tmp_path, more):
    with start(tmp_path / "whole", *more) as undisturbed:
        undisturbed.communicate()
    assert undisturbed.returncode == 0
    with start(tmp_path / "killed", *more) as process:
        run = wait_for_state_within_an_epoch(tmp_path / "killed", process)
        process.kill()
    assert not (run / "metrics.json").exists(), "it was killed too late to prove anything"
    result = subprocess.run(
        [sys.executable, "-m", "keras_skin.run", "--resume", str(run)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "continuing in epoch" in result.stdout
    (whole,) = (tmp_path / "whole").iterdir()
    assert (run / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    columns = [name for name in pd.read_csv(whole / "history.csv") if name != "seconds"]
    assert pd.read_csv(run / "history.csv")[columns].equals(pd.read_csv(whole / "history.csv")[columns])
    assert pd.read_csv(run / "predictions.csv").equals(pd.read_csv(whole / "predictions.csv"))


@pytest.mark.slow
def test_ctrl_c_saves_says_how_to_continue_and_exits_130(tmp_path):
    with start(tmp_path) as process:
        run = wait_for_state_within_an_epoch(tmp_path, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"--resume {run}" in errors
    assert "Traceback" not in errors


@pytest.fixture
def unfinished(tiny_run, tmp_path):
    """A copy of the tiny run that has all but ended."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    change(run / "run.json", lambda record: record.update(finished=False))
    return run


def change(path, edit):
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def files(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.name not in ("run.log", ".lock"))


def test_a_run_without_its_state_does_not_start_over_and_loses_nothing(unfinished, capsys):
    (unfinished / "checkpoints" / "run_state.npz").unlink()
    before = files(unfinished)
    assert main(["--resume", str(unfinished)]) == 2
    message = error_output(capsys)
    assert "run_state.npz is missing" in message
    assert "start a new run" in message
    assert files(unfinished) == before


def test_resuming_with_the_wrong_data_loses_nothing(unfinished, tmp_path, capsys):
    change(unfinished / "run.json", lambda record: record.update(demo=False, data_dir=str(unfinished / "demo_data")))
    before = files(unfinished)
    assert main(["--resume", str(unfinished), "--data", str(tmp_path / "elsewhere")]) == 2
    assert "elsewhere" in error_output(capsys)
    assert files(unfinished) == before


def test_what_has_changed_is_listed_and_refused(unfinished, capsys):
    def faster(values):
        values["train"]["optimizer"]["learning_rate"] = 0.5

    change(unfinished / "experiment.json", faster)
    images = sorted((unfinished / "demo_data").rglob("*Training_Data/*.jpg"))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    masks = list((unfinished / "demo_data").rglob(f"{images[0].stem}_Segmentation.png"))
    with Image.open(masks[0]) as mask:
        Image.fromarray(pixels).resize(mask.size).save(images[0])
    before = files(unfinished)
    assert main(["--resume", str(unfinished)]) == 2
    message = error_output(capsys)
    assert "experiment.train.optimizer.learning_rate was" in message
    assert "and is 0.5" in message
    assert "data.images was" in message
    assert files(unfinished) == before


def test_a_missing_splits_csv_is_refused(unfinished, capsys):
    (unfinished / "splits.csv").unlink()
    assert main(["--resume", str(unfinished)]) == 2
    assert "splits.csv is missing" in error_output(capsys)


def test_two_processes_cannot_work_in_one_run(unfinished, capsys):
    code = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(unfinished / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert main(["--resume", str(unfinished)]) == 2
        holder.kill()
    assert f"Another process works in '{unfinished}'" in error_output(capsys)


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


FAILURES = [
    (
        OSError(errno.ENOSPC, "x", "masks/a.png"),
        ["masks/a.png cannot be read or written: No space left on device. The disk is full"],
    ),
    (OSError(errno.EROFS, "x", "run.log"), ["run.log cannot be read or written: Read-only file system"]),
    (OSError(errno.EACCES, "x", "report.html"), ["report.html cannot be read or written: Permission denied"]),
    (MemoryError(), ["not enough memory.", "train.batch_size is 4 and image.size is [32, 64]", "--set train.batch_size=2"]),
    (
        ResourceExhaustedError("OOM when allocating tensor with shape[4,64,512,512] on device:GPU:0"),
        ["not enough memory of the GPU.", "train.batch_size is 4 and image.size is [32, 64]"],
    ),
]


@pytest.mark.parametrize(("error", "words"), FAILURES, ids=lambda value: type(value).__name__)
def test_where_the_machine_fails_the_folder_is_kept_and_the_sentence_says_how_to_resume(
    error, words, tmp_path, monkeypatch, capsys
):
    def fail(folder, data_dir, resume):
        raise error

    monkeypatch.setattr(workflow, "_execute", fail)
    assert main(arguments("jrl_ph2", "--out", str(tmp_path))) == 3
    message = error_output(capsys)
    (run,) = tmp_path.iterdir()
    for text in [*words, f"The folder of the run is kept. Resume it: python -m keras_skin.run --resume {run}"]:
        assert text in message
    assert main(["--resume", str(run)]) == 3
    assert f"--resume {run}" in error_output(capsys)
    assert {"experiment.json", "run.json"} <= {path.name for path in run.iterdir()}


def test_the_smallest_batch_needs_smaller_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workflow, "_execute", lambda *_, **__: bytearray(2**62))
    overrides = [*TINY, "train.batch_size=1"]
    assert main(arguments("jrl_ph2", "--out", str(tmp_path), overrides=overrides)) == 3
    assert "train.batch_size is 1 and image.size is [32, 64] (height, width)" in (message := error_output(capsys))
    assert "--set image.size=[16,32]" in message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("name", ["experiment.json", "run.json", "run.log", "SYNTHETIC.txt"])
def test_a_folder_that_cannot_be_written_gets_a_sentence(number, name, tmp_path, monkeypatch, capsys):
    """The first files of a run. The folder is kept if it holds what --resume needs."""
    replace, opened = os.replace, logging.FileHandler._open

    def full(source, target):
        if Path(target).name == name:
            raise OSError(number, "x", str(target))
        replace(source, target)

    def full_log(handler):
        if name == "run.log":
            raise OSError(number, "x", handler.baseFilename)
        return opened(handler)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(logging.FileHandler, "_open", full_log)
    assert main(arguments("jrl_ph2", "--out", str(tmp_path))) == 3
    message = error_output(capsys)
    assert name in message
    assert os.strerror(number) in message
    runs = list(tmp_path.iterdir())
    assert len(runs) == (name in ("run.log", "SYNTHETIC.txt"))
    assert ("--resume" in message) == bool(runs)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_folder_of_runs_that_cannot_be_made_gets_a_sentence(number, tmp_path, monkeypatch, capsys):
    def refuse(path, *_, **__):
        raise OSError(number, "x", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(arguments("jrl_ph2", "--out", str(tmp_path / "runs"))) == 3
    message = error_output(capsys)
    assert str(tmp_path / "runs") in message
    assert os.strerror(number) in message


def test_a_log_on_a_full_disk_stays_silent(tmp_path, monkeypatch, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, "x")

    with run_log(tmp_path / "run.log"):
        monkeypatch.setattr(logging.FileHandler, "flush", full)
        logging.getLogger("keras_skin").info("a message")
        monkeypatch.undo()
    assert "a message" in capsys.readouterr().out
    assert error_output(capsys) == ""

"""The tool that records a finished run as one small file."""

import importlib.util
import json
from pathlib import Path

import pytest

from keras_skin.evaluation.recorded import RecordedRun
from keras_skin.experiment import load_experiment, shipped_experiments
from tests.recorded_runs import write_recordable

FILE = Path(__file__).resolve().parent.parent / "tools" / "record_result.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("record_result", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_becomes_one_small_file(tool, tmp_path, capsys):
    run = write_recordable(tmp_path / "some-run", "jrl_isic2016_mtl0", ["train.epochs=8"], seed=2, missing=3)
    assert tool.main([str(run), "--results", str(tmp_path / "results")]) == 0
    file = tmp_path / "results" / "jrl_isic2016_mtl0-epochs-8-seed2.json"
    assert capsys.readouterr().out == f"Recorded: {file}\n"
    assert file.stat().st_size < 20_000
    recorded = RecordedRun.read(file)
    assert (recorded.experiment, recorded.overrides, recorded.seed) == ("jrl_isic2016_mtl0", {"train.epochs": "8"}, 2)
    assert (recorded.trained_on, recorded.missing_images) == ({"isic2016": 40}, {"isic2016": 3})
    assert (recorded.epochs, recorded.training_minutes, recorded.peak_memory_mib) == (2, 15.0, 2048)
    assert recorded.machine == {"processor": "A processor", "cpus": 2, "gpus": []}
    assert set(recorded.versions) == {"keras_skin", "python", "tensorflow", "keras", "numpy"}
    assert recorded.commit == "0123456789abcdef"
    written = json.loads((run / "metrics.json").read_text())["test"]["segmentation"]["dsc"]
    assert recorded.splits["test"].metrics["segmentation"]["dsc"]["value"] == pytest.approx(written["value"], abs=1e-6)
    resampled = {"segmentation/dsc", "segmentation/iou", "segmentation/mcc", "classification/f1_weighted", "classification/auc"}
    assert set(recorded.splits["test"].resamples) >= resampled


def test_the_same_run_can_be_recorded_again_and_another_one_does_not_replace_it(tool, tmp_path, capsys):
    first = write_recordable(tmp_path / "first", "jrl_isic2016_mtl0")
    other = write_recordable(tmp_path / "another", "jrl_isic2016_mtl0")
    results = ["--results", str(tmp_path / "results")]
    assert tool.main([str(first), *results]) == tool.main([str(first), *results]) == 0
    assert tool.main([str(other), *results]) == 2
    assert "holds another run. Remove it, or choose a name with --name." in capsys.readouterr().err
    assert tool.main([str(other), *results, "--name", "second"]) == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["jrl_isic2016_mtl0-seed0.json", "second.json"]
    assert tool.main([str(first), str(other), *results, "--name", "x"]) == 2


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"record": {"demo": True}}, "a demo on drawn images"),
        ({"record": {"dry_run": True}}, "a dry run"),
        ({"finished": False}, "has not finished"),
        ({"overrides": ["title=Mine"]}, "a run of no shipped experiment"),
    ],
)
def test_what_says_nothing_about_real_images_is_refused(tool, tmp_path, capsys, more, expected):
    run = write_recordable(tmp_path / "run", "jrl_isic2016_mtl0", **more)
    assert tool.main([str(run), "--results", str(tmp_path / "results")]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_run_that_was_started_with_another_title_is_found_by_its_folder(tool, tmp_path):
    run = write_recordable(tmp_path / "jrl_isic2016_mtl0-20260131-101500", "jrl_isic2016_mtl0", ["title=Mine"])
    assert tool.record_result(run, results=tmp_path / "results").name == "jrl_isic2016_mtl0-seed0.json"


def test_titles_of_shipped_experiments_differ():
    titles = [load_experiment(name).title for name in shipped_experiments()]
    assert len(set(titles)) == len(titles)

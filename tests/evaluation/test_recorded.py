"""What is recorded of a run: what is lost, and that pairs survive."""

import json

import numpy as np
import pytest

from keras_skin.evaluation.measured_run import read_run
from keras_skin.evaluation.recorded import RESAMPLES, RecordedRun, overrides, record
from keras_skin.evaluation.seeds import difference, pool, run_samples
from keras_skin.experiment import load_experiment
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder
from tests.recorded_runs import write_recordable

METRICS = {"segmentation": ["dsc"], "classification": ["auc", "mcc", "tpr"]}


def settings(name, *changes):
    return json.loads(load_experiment(name, changes).to_json())


def recorded(path):
    return record(RunFolder(path), "jrl_isic2016_mtl0", settings("jrl_isic2016_mtl0"), METRICS)


def random():
    return np.random.default_rng(0)


def test_a_file_holds_the_same_resamples_to_four_decimals(tmp_path):
    path = write_recordable(tmp_path / "run", "jrl_isic2016_mtl0")
    file = tmp_path / "result.json"
    file.write_text(recorded(path).to_json())
    result = RecordedRun.read(file)
    assert result == recorded(path)
    for (task, metric), sample in run_samples(read_run(path, "test"), METRICS, RESAMPLES).items():
        stored = result.splits["test"].sample(task, metric)
        assert stored.value == pytest.approx(sample.value, abs=1e-6)
        assert stored.resamples == pytest.approx(sample.resamples, abs=2e-5, nan_ok=True)
        assert (stored.n, stored.images) == (sample.n, sample.images)


def test_files_of_runs_on_the_same_images_are_compared_in_pairs(tmp_path):
    paths = [write_recordable(tmp_path / name, "jrl_isic2016_mtl0", seed=seed) for seed, name in enumerate(("first", "other"))]
    samples = [recorded(path).splits["test"].sample("segmentation", "dsc") for path in paths]
    exact = [run_samples(read_run(path, "test"), METRICS, RESAMPLES)["segmentation", "dsc"] for path in paths]
    between, expected = (difference(*(pool([item], random()) for item in pair), random()) for pair in (samples, exact))
    assert between.paired
    assert between.ci95 == pytest.approx(expected.ci95, abs=1e-4)


def test_a_metric_without_resamples_has_no_interval_and_an_unmeasured_one_no_sample(tmp_path):
    split = recorded(write_recordable(tmp_path / "run", "jrl_isic2016_mtl0")).splits["test"]
    assert pool([split.sample("segmentation", "iou")], random()).ci95 is None
    assert split.sample("segmentation", "nothing") is None


def test_no_path_of_the_machine_is_recorded(tmp_path):
    changes = ["data.train.folder=/home/me/skin/isic", "segmenter.run=/home/me/runs/my_unet"]
    run, base = settings("tdbn_ham10000", *changes), settings("tdbn_ham10000")
    assert overrides(run, base) == {"segmenter.run": "my_unet"}  # the hashes of the splits identify the images
    text = recorded(write_recordable(tmp_path / "run", "jrl_isic2016_mtl0", record={"data_dir": "/home/me/skin"})).to_json()
    assert "/home" not in text
    assert str(tmp_path) not in text


def test_settings_that_change_no_number_are_no_overrides():
    run = settings("jrl_isic2016", "title=x", "train.seed=3", "explain.images=0", "model.variant=mtl1")
    assert overrides(run, settings("jrl_isic2016")) == {"model.variant": "mtl1"}


@pytest.mark.parametrize("text", ["nothing", "[]", '{"experiment": "x"}', '{"splits": {"test": {}}}'])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json is not the file of a recorded run"):
        RecordedRun.read(tmp_path / "a.json")

"""A finished run that cuts lesions out for another one: searched, copied and opened."""

import json
import shutil
from dataclasses import replace

import pytest

from keras_skin.data.datasets.readers import isic2019
from keras_skin.evaluation.measured_run import read_runs
from keras_skin.experiment import SegmenterSettings, load_experiment
from keras_skin.presets.files import RUN_FILES
from keras_skin.registry import UserError
from keras_skin.run import main
from keras_skin.run_folder import BEST_WEIGHTS, RunFolder
from keras_skin.workflow import segmenter
from keras_skin.workflow.opened_run import build_model
from keras_skin.workflow.prepare import prepare_data
from tests.tiny_run import SHORT, arguments


def finished(folder, name):
    path = folder / name
    (path / "checkpoints").mkdir(parents=True)
    for file in RUN_FILES:
        (path / file).write_text("{}")
    return path


def test_the_newest_finished_run_of_a_name_is_found(tmp_path):
    finished(tmp_path, "unet-20260101-120000")
    newest = finished(tmp_path, "unet-20260203-110000")
    for other in ("unet-20260301-110000", "unet-demo-20260401-110000", "unetpp-20260401-110000"):
        finished(tmp_path, other)
    (tmp_path / "unet-20260301-110000" / "metrics.json").unlink()
    assert segmenter.find_run(str(tmp_path / "unet")) == newest
    demo = tmp_path / "unet-demo-20260401-110000"
    assert segmenter.find_run(str(demo)) == demo


def test_a_run_that_is_not_there_or_not_finished(tmp_path):
    with pytest.raises(UserError, match="there is no run") as error:
        segmenter.find_run(str(tmp_path / "nowhere" / "unet"))
    assert "python -m keras_skin.run deep_unet_isic2018" in str(error.value)
    finished(tmp_path, "jrl-20260101-120000")
    with pytest.raises(UserError, match="there are: jrl-20260101-120000"):
        segmenter.find_run(str(tmp_path / "unet"))
    path = finished(tmp_path, "unet-20260101-120000")
    (path / "metrics.json").unlink()
    with pytest.raises(UserError, match=f"no run of .* has finished.*\n.*--resume {path}"):
        segmenter.find_run(str(tmp_path / "unet"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs" / "chained").mkdir(parents=True)
    return RunFolder(tmp_path / "runs" / "chained")


def test_a_run_keeps_its_segmenter(tmp_path, folder):
    source = finished(tmp_path, "unet-20260101-120000")
    settings = SegmenterSettings(run=str(tmp_path / "unet"))
    copy = segmenter.adopt_segmenter(folder, settings)
    files = sorted(str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file())
    assert files == sorted([*RUN_FILES, "record.json"])
    assert folder.segmenter_record["run"] == source.name
    finished(tmp_path, "unet-20270101-120000")
    for file in sorted(source.rglob("*"), reverse=True):  # a later run, and the first one gone: nothing changes
        file.unlink() if file.is_file() else file.rmdir()
    assert segmenter.adopt_segmenter(folder, settings) == copy
    fold = RunFolder(folder / "fold_1")
    fold.path.mkdir()
    segmenter.adopt_segmenter(fold, settings)
    assert fold.segmenter_record == folder.segmenter_record
    (copy / "checkpoints" / BEST_WEIGHTS).unlink()
    (copy / "checkpoints" / BEST_WEIGHTS).write_text("others")
    with pytest.raises(UserError, match="other weights than when this run started"):
        segmenter.adopt_segmenter(folder, settings)


def test_a_preset_cuts_lesions_out(preset, folder):
    copy = segmenter.adopt_segmenter(folder, SegmenterSettings(preset=str(preset)))
    assert sorted(str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()) == sorted(
        [*RUN_FILES, "record.json"]
    )
    assert folder.segmenter_record == {"run": "tiny", "weights_sha256": RunFolder(preset).weights_sha256}
    fitted = segmenter.fitted_images(RunFolder(copy))
    assert set(fitted["split"]) == {"train", "validation"}
    assert len(fitted) == 54
    assert {"image_id", "group_id", "label", "dataset"} <= set(fitted)


def test_a_preset_that_is_none(folder, tmp_path):
    with pytest.raises(UserError, match=r"is no preset: it has no preset.json"):
        segmenter.adopt_segmenter(folder, SegmenterSettings(preset=str(tmp_path)))
    assert not (folder / "segmenter").exists()


def test_one_source_of_masks():
    for values in ({}, {"run": "runs/unet", "preset": "jrl_isic"}, {"preset": "jrl_isic", "masks": "dataset"}):
        with pytest.raises(ValueError, match='set one of "run"'):
            SegmenterSettings(**values)
    assert SegmenterSettings(preset="jrl_isic").has_model
    assert not SegmenterSettings(preset="jrl_isic", exclude_only=True).has_model
    with pytest.raises(ValueError, match='name it in "run" or "preset"'):
        SegmenterSettings(masks="dataset", exclude_only=True)


@pytest.fixture(scope="module")
def opened(tiny_run):
    return segmenter.open_segmenter(tiny_run)


@pytest.mark.slow
def test_a_classifier_is_no_segmenter(opened, monkeypatch):
    classifier = build_model(load_experiment("msfa_ham10000", ["image.size=[32, 32]"]), 7)
    monkeypatch.setattr(segmenter, "load_run", lambda path: replace(opened, model=classifier))
    with pytest.raises(UserError, match="'jrl' predicts label from image; expected a model that predicts a mask"):
        segmenter.open_segmenter(opened.path)


SMALL = ["image.size=[64, 64]", "model.backbone=resnet18", "model.weights=null"]


def test_model_and_segmenter_must_go_together():
    with pytest.raises(UserError, match="takes the lesion cut out of its image, but the experiment has no segmenter"):
        build_model(load_experiment("tdbn_ham10000", ["segmenter=null", "metadata=null", *SMALL]), 7)
    with pytest.raises(UserError, match=r"takes no lesion cut out.*segmenter.exclude_only to true"):
        build_model(load_experiment("tdbn_ham10000_image", ["segmenter.exclude_only=false", *SMALL]), 7)
    with pytest.raises(UserError, match=r"segmenter\.exclude_only must be false"):
        build_model(load_experiment("tdbn_ham10000_segmented", ["segmenter.exclude_only=true", *SMALL]), 7)


def test_a_missing_segmenter_that_only_excludes_can_be_left_out(folder, tmp_path):
    with pytest.raises(UserError, match=r"there is no run(.|\n)*To exclude none: --set segmenter=null"):
        segmenter.adopt_segmenter(folder, SegmenterSettings(run=str(tmp_path / "unet"), exclude_only=True))


@pytest.mark.slow
def test_a_baseline_is_measured_on_the_images_of_the_model_that_uses_the_segmenter(tiny_run, tmp_path, monkeypatch):
    """A segmenter that was fitted on images of ISIC 2019; all runs are measured, and hashed, on what is not among them."""
    monkeypatch.delenv("KERAS_SKIN_DATA", raising=False)
    counts = {"MEL": 9, "NV": 30, "BCC": 9, "AK": 6, "BKL": 6, "DF": 6, "VASC": 6, "SCC": 6}
    isic2019.render(tmp_path / "data" / "isic2019", seed=0, counts=counts)
    without = prepare_data(load_experiment("tdbn_isic2019", ["segmenter=null"]), tmp_path / "data")
    fitted = without.table[without.table["split"] == "test"].iloc[::3]
    shutil.copytree(tiny_run, tmp_path / "segmenter")
    rows = fitted[["image_id", "group_id", "label", "dataset"]].assign(split="train")
    RunFolder(tmp_path / "segmenter").write_table("splits.csv", rows)

    small = [*SMALL, *SHORT, "train.batch_size=16", "train.epochs=1", "explain.images=0", "explain.measured=0"]
    small += [f"segmenter.run={tmp_path / 'segmenter'}"]
    runs = {}
    for name, more in (("tdbn_isic2019", ["model.feed_forward=32", "export.enabled=false"]), ("tdbn_isic2019_image", [])):
        options = [item for text in [*small, *more] for item in ("--set", text)]
        assert main([name, "--dry-run", "--data", str(tmp_path / "data"), "--out", str(tmp_path / name), *options]) == 0
        (runs[name],) = (tmp_path / name).iterdir()
    measured = read_runs(list(runs.values()), "test")
    assert len({run.images_sha256 for run in measured}) == 1
    assert len(measured[0].predictions) > 5
    for run in measured:
        assert set(fitted["image_id"]).isdisjoint(run.predictions["image_id"])
        leaks = run.folder.excluded[run.folder.excluded["reason"].str.contains("the segmenter was fitted on")]
        assert set(leaks["image_id"]) >= set(fitted["image_id"])
    baseline = RunFolder(runs["tdbn_isic2019_image"])
    assert "excluded from the measured splits: segmenter, weights" in (baseline / "report.html").read_text()
    assert "lesion cut out by" not in next(baseline.path.glob("saved_model/1/*.md")).read_text()


@pytest.mark.slow
def test_the_data_sets_own_masks_cut_out_without_an_export(tmp_path):
    overrides = [*SMALL, "model.branches=segmented", "model.feed_forward=32", *SHORT, "metadata=null"]
    overrides += ['segmenter={"masks": "dataset", "run": null}', "export.enabled=false"]
    assert main(arguments("tdbn_ham10000", "--dry-run", "--out", str(tmp_path), overrides=overrides)) == 0
    (run,) = tmp_path.iterdir()
    assert (run / "figures" / "lesions.png").is_file()
    assert not (run / "saved_model").exists()
    assert "the data set&#39;s own masks" in (run / "report.html").read_text()


@pytest.mark.nightly
def test_a_demo_trains_its_segmenter_first(tmp_path):
    overrides = [*SMALL, "model.feed_forward=32", *SHORT]
    assert main(arguments("tdbn_isic2019", "--dry-run", "--out", str(tmp_path), overrides=overrides)) == 0
    (run,) = tmp_path.iterdir()
    (first,) = (run / "segmenter_demo").iterdir()
    assert (first / "report.html").is_file()
    assert json.loads((run / "segmenter" / "record.json").read_text())["run"] == first.name
    assert (run / "saved_model" / "1").is_dir()

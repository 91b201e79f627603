"""A finished run's further editions: measured against its model, told in their cards, asked for on the command line."""

import json
import shutil
from types import SimpleNamespace
from typing import get_args

import pytest

from keras_skin.experiment import load_experiment
from keras_skin.experiment.fields import ExportSettings
from keras_skin.export.__main__ import main
from keras_skin.export.contract import EDITIONS
from keras_skin.export.saved_model import WRITERS
from keras_skin.registry import UserError
from keras_skin.run_folder import EXPORTS, RunFolder
from keras_skin.workflow import exporting, load_run, steps
from keras_skin.workflow.exporting import add_agreement, export_finished
from keras_skin.workflow.opened_run import ActiveRun
from keras_skin.workflow.prediction import open_exported


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the tiny run, to write into."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("copy") / "run")


def test_every_edition_has_a_writer_a_folder_and_a_place_in_experiments():
    (choices,) = get_args(ExportSettings.model_fields["editions"].annotation)
    assert set(EDITIONS) == set(WRITERS) == set(EXPORTS) == set(get_args(choices))


def test_the_run_tells_its_card_what_was_measured(run):
    card = (run / "saved_model" / "1" / "model_card.md").read_text()
    metrics = load_run(run).metrics
    for text in ("Research software, not a medical device", "SYNTHETIC", "isic2016", "CC-0", "Bioengineering 11(11):1173"):
        assert text in card
    dsc = metrics["test"]["segmentation"]["dsc"]
    assert f"| Test split | DSC | {dsc['value']:.3f} | {dsc['ci95'][0]:.3f} to {dsc['ci95'][1]:.3f} | {dsc['n']} |" in card
    assert "Against the trained model in float32: " in card
    assert "same class in 100.0%" in card
    assert "no better than a Gaussian" in card


@pytest.mark.slow
def test_further_editions_are_written_and_measured(run, capsys):
    assert main([str(run), "--editions", "bfloat16", "litert"]) == 0
    output = capsys.readouterr().out
    for edition, probabilities in (("bfloat16", 0.05), ("litert", 1e-3)):
        assert f"{edition}: {run / EXPORTS[edition] / '1'}" in output
        about = json.loads((run / EXPORTS[edition] / "1" / "assets" / "model.json").read_text())
        assert about["edition"] == edition
        assert about["agreement"]["images"] == 7
        assert 0 < about["agreement"]["probabilities"] < probabilities
        assert 0 < about["agreement"]["mask"] < probabilities
        assert f"probabilities within {about['agreement']['probabilities']:.1e}" in output
    assert open_exported(run / "saved_model_bfloat16").about["classes"] == ["benign", "malignant"]
    assert not list(run.rglob("*.tmp"))


@pytest.mark.slow
def test_a_new_version_stands_beside_the_old_one(run):
    assert list(export_finished(run, ["float32"])) == [("float32", run / "saved_model" / "2", None)]
    assert open_exported(run).folder == run / "saved_model" / "2"


@pytest.mark.slow
def test_without_the_data_agreement_is_not_measured_and_that_is_said(run, capsys):
    (run / "demo_data").rename(run / "moved")
    try:
        assert main([str(run), "--editions", "images"]) == 0
    finally:
        (run / "moved").rename(run / "demo_data")
    assert "agreement not measured: " in capsys.readouterr().out
    assert "Against the trained model" not in (run / "saved_model_images" / "1" / "model_card.md").read_text()


def test_where_no_validation_image_is_left_that_is_said(run, monkeypatch):
    monkeypatch.setattr(exporting, "read_rows", lambda experiment, data, wanted: wanted[:0])
    monkeypatch.setattr(exporting, "export_run", lambda run, edition, validation, out: (edition, validation))
    ((edition, written, why),) = exporting.export_finished(run, ["litert"])
    assert (edition, written) == ("litert", ("litert", None))
    assert why.startswith("no validation image of the run exists in ")


def test_a_preset_is_exported_beside_the_reader(preset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_SKIN_DATA", raising=False)
    assert main([str(preset), "--editions", "images"]) == 0
    output = capsys.readouterr().out
    assert "images: tiny-export/saved_model_images/1" in output
    assert "agreement not measured: a preset holds no images; name its data sets with KERAS_SKIN_DATA" in output
    assert "isic2016" in (tmp_path / "tiny-export" / "saved_model_images" / "1" / "model_card.md").read_text()
    assert main([str(preset), "--editions", "images", "--out", "elsewhere"]) == 0
    assert (tmp_path / "elsewhere" / "saved_model_images" / "1").is_dir()


def test_mistakes_are_named_before_anything_heavy(run, tmp_path, capsys):
    assert main([str(run), "--editions", "float16", "lite"]) == 2
    output = capsys.readouterr().err
    assert "--editions float16: unknown edition. Did you mean 'bfloat16'?" in output
    assert "--editions lite: unknown edition." in output
    assert main([str(tmp_path / "nothing"), "--editions", "litert"]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.slow  # needs the edition that a slow test writes
def test_what_cannot_be_asked_with_files_is_said(run, tmp_path):
    with pytest.raises(UserError, match=r"holds the edition 'litert', which takes no image files: .*Name the run"):
        open_exported(run / "litert" / "1")
    old = shutil.copytree(run / "saved_model" / "1", tmp_path / "1")
    about = json.loads((old / "assets" / "model.json").read_text())
    del about["contract"]
    (old / "assets" / "model.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"contract 1; this version of keras_skin uses 2.*keras_skin\.export RUN"):
        open_exported(tmp_path)


def test_an_edition_that_cannot_be_leaves_the_run_its_report(run, tmp_path, monkeypatch, caplog):
    editions = []

    def refuse(finished, edition, validation):
        editions.append(edition)
        raise UserError("LiteRT cannot run this model.")

    monkeypatch.setattr(steps, "export_run", refuse)
    monkeypatch.setattr(steps.log, "propagate", True)
    copy = RunFolder(shutil.copytree(run, tmp_path / "run"))
    experiment = load_experiment(run / "experiment.json", ['export.editions=["float32","litert"]'])
    copy.write_text("experiment.json", experiment.to_json())
    copy.update_record(dry_run=True)
    for edition in ("saved_model", "litert"):
        shutil.rmtree(copy / edition, ignore_errors=True)
    steps.export(ActiveRun(copy.path, None, data=None))
    assert editions == ["float32", "litert"]
    assert "The edition 'litert' was not exported: LiteRT cannot run this model." in caplog.text


def test_agreement_is_measured_after_a_kill_and_once(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write_text("experiment.json", load_experiment("jrl_ph2").to_json())
    folder.write_json("run.json", {"finished": False})
    folder.write_text("saved_model/1/assets/model.json", "{}")
    calls = []
    monkeypatch.setattr(steps, "export_run", lambda *_: pytest.fail("exported again"))
    monkeypatch.setattr(steps, "add_agreement", lambda version, edition, run, rows: calls.append((version, edition, rows)))
    data = SimpleNamespace(shown_rows="rows")
    steps.export(ActiveRun(folder.path, None, data=data))
    assert calls == [(folder / "saved_model" / "1", "float32", "rows")]
    folder.update_record(dry_run=True)
    steps.export(ActiveRun(folder.path, None, data=data))
    assert len(calls) == 1, "a dry run measures no agreement"


def test_measured_agreement_is_kept_and_a_damaged_card_is_named(tmp_path):
    about = tmp_path / "assets" / "model.json"
    about.parent.mkdir()
    about.write_text('{"agreement": {"images": 3}}')
    add_agreement(tmp_path, "float32", None, None)
    assert json.loads(about.read_text()) == {"agreement": {"images": 3}}
    about.write_text('{"agreement"')
    with pytest.raises(UserError, match=r"model\.json is damaged: .* Remove the folder"):
        add_agreement(tmp_path, "float32", None, None)

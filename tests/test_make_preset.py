"""The tool that makes presets: what it refuses, what the card says, chained and clinical runs."""

import json
import shutil

import keras
import pandas as pd
import pytest

from keras_skin.experiment import load_experiment
from keras_skin.presets.files import CARD, check_preset
from keras_skin.registry import UserError
from keras_skin.run_folder import METADATA, PRESET, SEGMENTER, RunFolder
from keras_skin.workflow import load_run
from keras_skin.workflow.opened_run import build_model
from keras_skin.workflow.prediction import open_exported
from tests.tiny_preset import load_tool
from tests.tiny_run import tiny


@pytest.fixture(scope="module")
def tool():
    return load_tool()


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run that says it was trained on real images."""
    copy = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("demo_data", "saved_model", "masks"))
    (copy / "SYNTHETIC.txt").unlink()
    RunFolder(copy).update_record(demo=False)
    table = RunFolder(copy).splits
    table["image_id"] = [f"ISIC_{8_000_000 + row}" for row in range(len(table))]
    RunFolder(copy).write_table("splits.csv", table)
    return copy


def edit_splits(run, change):
    table = RunFolder(run).splits
    change(table)
    RunFolder(run).write_table("splits.csv", table)


def refused(tool, run, tmp_path, **options):
    with pytest.raises(UserError) as error:
        tool.make_preset(run, "small", tmp_path / "out", **options)
    assert not (tmp_path / "out" / "small").exists()
    return str(error.value)


def test_a_fine_tuned_preset_needs_no_other_model_and_lists_all_images(tool, run, tmp_path):
    start = shutil.copytree(run, tmp_path / "start")
    edit_splits(start, lambda table: table.update(table["image_id"].str.replace("ISIC_8", "ISIC_7")))
    settings = json.loads((run / "experiment.json").read_text())
    settings["model"]["init"] = str(start)
    RunFolder(run).write_json("experiment.json", settings)
    RunFolder(run).update_record(init={"name": "start", "weights_sha256": "0" * 64, "copied": 1, "new": []})
    folder = RunFolder(tool.make_preset(run, "small", tmp_path / "out"))
    assert folder.experiment.model.init is None
    own, initial = RunFolder(run).splits, RunFolder(start).splits
    fitted = initial.loc[initial["split"].isin(["train", "validation"]), "image_id"]
    assert set(folder.splits["image_id"]) == {*own["image_id"], *fitted}
    card = (folder / CARD).read_text()
    assert "from the weights of start" in card
    assert str(tmp_path) not in card

    def change(table):
        table["dataset"] = "ham10000"

    edit_splits(start, change)
    assert "was trained on ham10000, whose terms forbid it" in refused(tool, run, tmp_path / "again")


def test_demos_and_dry_runs_need_an_option(tool, tiny_run, tmp_path):
    text = refused(tool, tiny_run, tmp_path)
    assert "cannot become a preset" in text
    assert "it is a SYNTHETIC demo: its predictions mean nothing" in text


@pytest.mark.parametrize("dataset", ["ham10000", "isic2019", "isic2018_task3", "ph2"])
def test_images_whose_terms_forbid_it(tool, run, tmp_path, dataset):
    def change(table):
        table.loc[table.index[table["split"] == "validation"][0], "dataset"] = dataset

    edit_splits(run, change)
    text = refused(tool, run, tmp_path, own_data=True, for_tests=True)
    assert f"it was trained on {dataset}, whose terms forbid it" in text


def test_measured_images_may_have_any_terms(tool, run):
    assert set(RunFolder(run).splits.query("split == 'test'")["dataset"]) == {"ph2"}
    assert not [*tool._problems(RunFolder(run), False, False)]


def test_own_images_need_an_option(tool, run, tmp_path):
    def change(table):
        table.loc[table["dataset"] == "isic2017", "dataset"] = "csv_folder"

    edit_splits(run, change)
    text = refused(tool, run, tmp_path)
    assert "trained on csv_folder: only you know its terms. If the images are yours, add --own-data" in text
    assert not [*tool._problems(RunFolder(run), True, False)]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("image_id", ["ISIC_0000003", "ISIC_0011402", "ISIC_0000012_downsampled"])
def test_test_images_of_isic_2016(tool, run, tmp_path, image_id, split):
    numbers = tool.TEST_IDS.read_text().split()
    assert len(set(numbers)) == 379

    def change(table):
        table.loc[table.index[table["split"] == split][0], "image_id"] = image_id

    edit_splits(run, change)
    bare = image_id.removesuffix("_downsampled")
    if str(int(bare.removeprefix("ISIC_"))) in numbers:
        assert f"it was fitted on 1 test images of ISIC 2016 ({bare})" in refused(tool, run, tmp_path)
    else:
        assert not [*tool._problems(RunFolder(run), False, False)]


def test_cross_validations_and_unfinished_runs(tool, crossval_run, run, tmp_path):
    assert "it is a cross-validation; a preset has one model" in refused(tool, crossval_run, tmp_path)
    RunFolder(run).update_record(finished=False)
    assert "has not finished. Resume it" in refused(tool, run, tmp_path)


def test_names(tool, run, tmp_path):
    with pytest.raises(UserError, match=r"The name '\.\./a' is invalid"):
        tool.make_preset(run, "../a", tmp_path)
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken exists, and nothing is overwritten"):
        tool.make_preset(run, "taken", tmp_path)


def test_a_preset_is_no_run_to_make_one_of(tool, preset, tmp_path):
    assert "is a preset, which has no predictions of single images" in refused(tool, preset, tmp_path)


def test_the_card(preset, tiny_run):
    card, metrics = (preset / CARD).read_text(), RunFolder(tiny_run).metrics
    dsc = metrics["test"]["segmentation"]["dsc"]
    for text in (
        "Research software, not a medical device",
        "a SYNTHETIC demo: the predictions of this preset mean nothing",
        "| isic2016 | 41 | CC-0 (public domain) |",
        f"| Test split | DSC | {dsc['value']:.3f} | {dsc['ci95'][0]:.3f} to {dsc['ci95'][1]:.3f} | {dsc['n']} |",
        "2 of 2 epochs of 3 batches of 4 images",
        "The experiment is `jrl_ph2`, with other settings.",
        "- `train.epochs`: 2 (shipped: 50)",
        "Rounding them changes label probabilities by at most",
        "No measured image was trained on.",
        "Skin tones",
    ):
        assert text in card
    assert "\n\n\n" not in card


def test_a_preset_holds_no_path_of_this_machine_and_no_image(preset, tiny_run):
    for file in preset.rglob("*"):
        if file.is_file():
            assert str(tiny_run.parent).encode() not in file.read_bytes()
    assert {file.suffix for file in preset.rglob("*") if file.is_file()} == {".json", ".csv", ".md", ".h5"}


@pytest.mark.slow
def test_rounding_that_changes_too_much(tool, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "MOST_ROUNDING", -1.0)
    text = refused(tool, tiny_run, tmp_path, for_tests=True)
    assert "Half precision changes the predictions too much: label probabilities" in text


def test_the_command(tool, tiny_run, tmp_path, capsys):
    assert tool.main([str(tiny_run), "small", "--out", str(tmp_path)]) == 2
    assert "--for-tests" in capsys.readouterr().err


@pytest.fixture(scope="module")
def chained(tiny_run, tmp_path_factory):
    """A run of an untrained TDBN that cuts lesions out with the tiny run and takes clinical fields."""
    from keras_skin.data.datasets.readers import ham10000
    from keras_skin.data.metadata import fit_metadata

    folder = tmp_path_factory.mktemp("chained") / "tdbn"
    experiment = load_experiment("tdbn_ham10000", [*tiny("tdbn_ham10000"), "segmenter.run=runs/unet"])
    table = pd.DataFrame({"age": ["20", "60"], "sex": ["female", "male"], "localization": ["back", "face"]})
    encoder = fit_metadata(table, ham10000.METADATA, missing="mask", inputs=list(table))
    classes = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    arguments = {
        "class_counts": [1] * len(classes),
        "metadata_width": encoder.width,
        "metadata_fields": [len(field.column_names) for field in encoder.fields],
    }
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copytree(tiny_run, folder / SEGMENTER, ignore=shutil.ignore_patterns("demo_data", "saved_model", "masks", "figures"))
    for name in ("splits.csv", "metrics.json", "predictions.csv", "history.csv", "environment.json"):
        shutil.copyfile(tiny_run / name, folder / name)
    run = RunFolder(folder)
    run.write_table("splits.csv", run.splits.assign(dataset="ham10000"))
    run.write_text("experiment.json", experiment.to_json())
    run.write_json("run.json", {"classes": classes, "model_arguments": arguments, "demo": True, "finished": True})
    run.write_text(METADATA, encoder.to_json())
    digest = RunFolder(folder / SEGMENTER).weights_sha256
    run.write_json(f"{SEGMENTER}/record.json", {"run": "unet-1", "weights_sha256": digest})
    keras.utils.set_random_seed(7)
    build_model(experiment, len(classes), arguments).save_weights(run.best_weights)
    return folder


@pytest.mark.slow
def test_a_chained_run_with_clinical_fields(tool, chained, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "cache"))
    folder = tool.make_preset(chained, "chain", tmp_path, for_tests=True)
    files = check_preset(folder)["files"]
    assert {METADATA, f"{SEGMENTER}/experiment.json", f"{SEGMENTER}/checkpoints/best.weights.h5"} <= set(files)
    run = load_run(folder)
    assert run.segmenter is not None
    assert RunFolder(folder).segmenter_record == {
        "run": "unet-1",
        "weights_sha256": files[f"{SEGMENTER}/checkpoints/best.weights.h5"]["sha256"],
    }
    assert "resized to" in (folder / CARD).read_text()
    assert "; age, sex, localization |" in (folder / CARD).read_text()
    assert "lesion cut out by | unet-1" in (folder / CARD).read_text()
    assert list(open_exported(folder).fields) == ["age", "sex", "localization"]


@pytest.mark.slow
def test_the_segmenters_terms_count_too(tool, chained, tmp_path):
    copy = shutil.copytree(chained, tmp_path / "copy")
    RunFolder(copy / SEGMENTER).update_record(demo=False)
    (copy / SEGMENTER / "SYNTHETIC.txt").unlink()
    edit_splits(copy / SEGMENTER, lambda table: table.__setitem__("dataset", "isic2018_task1"))
    assert "its segmenter was trained on isic2018_task1" in refused(tool, copy, tmp_path, for_tests=True)
    shutil.rmtree(copy / SEGMENTER)
    assert f"its folder lacks {SEGMENTER}/" in refused(tool, copy, tmp_path, for_tests=True)
    overrides = [*tiny("tdbn_ham10000"), 'segmenter={"masks": "dataset", "run": null}', "export.enabled=false"]
    RunFolder(copy).write_text("experiment.json", load_experiment("tdbn_ham10000", overrides).to_json())
    assert "cut out with the data set's own masks" in refused(tool, copy, tmp_path, for_tests=True)
    assert json.loads((chained / "run.json").read_text())["finished"]
    assert not (chained / PRESET).exists()

"""The run folder: its typed contents, and its lock."""

import csv

import pandas as pd
import pytest

from keras_skin.data.datasets.records import ExclusionKind
from keras_skin.data.splits.splits import read_splits, write_splits
from keras_skin.experiment import load_experiment
from keras_skin.registry import UserError
from keras_skin.run_folder import MISSING_IMAGE, RunFolder, RunOptions


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "run")


def test_the_data_of_a_demo_lie_in_the_run_or_beside_the_fold(folder):
    folder.write_json("run.json", {"demo": True, "data_dir": None})
    (folder / "demo_data").mkdir()
    assert folder.data_dir == folder / "demo_data"
    fold = RunFolder(folder / "fold_2")
    fold.path.mkdir()
    fold.write_json("run.json", {"demo": True, "data_dir": None})
    assert fold.data_dir == folder / "demo_data"


def test_real_data_lie_where_the_run_recorded_it(folder, tmp_path):
    folder.write_json("run.json", {"demo": False, "data_dir": str(tmp_path / "skin")})
    assert folder.data_dir == tmp_path / "skin"
    folder.write_json("run.json", {"demo": False, "data_dir": None})
    assert folder.data_dir is None


def test_the_lock_is_held_and_released(folder):
    with folder.locked(), pytest.raises(UserError, match=f"Another process works in '{folder.path}'"), folder.locked():
        pytest.fail("two have the lock")
    with folder.locked():
        pass
    with pytest.raises(KeyError), folder.locked():
        raise KeyError
    with folder.locked():
        pass


def test_what_was_written_is_read_with_its_type(folder):
    folder.write_text("experiment.json", load_experiment("jrl_ph2").to_json())
    folder.write_json("run.json", {"data_dir": "skin", "demo": False, "dry_run": True, "finished": False})
    folder.update_record(classes=["nevus", "melanoma"], finished=True)
    assert folder.experiment.model.name == folder.settings["model"]["name"] == "jrl"
    assert (folder.options, folder.finished) == (RunOptions("skin", demo=False, dry_run=True), True)
    assert (folder.classes, folder.warning, folder.synthetic) == (("nevus", "melanoma"), "", False)
    table = pd.DataFrame({"image_id": ["007"], "dataset": ["ph2"], "split": ["test"], "label": [""], "dsc": [0.1 + 0.2]})
    folder.write_table("predictions.csv", table)
    pd.testing.assert_frame_equal(folder.predictions, table, check_exact=True)
    folder.write_table("history.csv", pd.DataFrame({"epoch": [1, 2], "loss": [0.1 + 0.2, float("nan")]}))
    assert folder.history["loss"][0] == 0.1 + 0.2
    assert folder.history["loss"].isna().tolist() == [False, True]


def test_a_missing_file_is_a_mistake_with_its_name(folder):
    for name in ("record", "metrics", "splits", "history", "predictions", "segmenter_record"):
        with pytest.raises(UserError, match=f"{folder.path}.* cannot be read"):
            getattr(folder, name)


def test_an_unfinished_run_is_opened_but_not_as_a_finished_one(folder):
    with pytest.raises(UserError, match=r"has no experiment\.json and run\.json\. It holds: nothing"):
        RunFolder.open(folder.path)
    folder.write_text("experiment.json", "{}")
    folder.write_json("run.json", {"finished": False})
    assert RunFolder.open(str(folder.path)) == folder
    with pytest.raises(UserError, match=f"has not finished. Resume it: .* --resume {folder.path}"):
        RunFolder.open_finished(folder.path)


def test_folds_are_in_the_order_of_their_numbers(folder):
    for number in (10, 2, 1):
        (folder / f"fold_{number}").mkdir()
    assert [fold.path.name for fold in folder.folds] == ["fold_1", "fold_2", "fold_10"]


def test_images_that_are_not_on_the_disk_are_counted(tmp_path):
    assert ExclusionKind.MISSING_IMAGE == MISSING_IMAGE
    rows = ["ph2,A,,no row,train,missing image", "ph2,A,,again,test,missing image", "ph2,B,,blurred,train,bad file"]
    headings = "dataset,image_id,file,reason,split,kind"
    (tmp_path / "excluded.csv").write_text("\n".join([headings, *rows, "isic2016,C,,no row,,missing image"]))
    assert RunFolder(tmp_path).missing_images == {"isic2016": 1, "ph2": 1}


def test_missing_images_of_an_earlier_version_are_unknown(tmp_path):
    (tmp_path / "excluded.csv").write_text("dataset,image_id,file,reason,split\nph2,A,,no row,train\n")
    assert RunFolder(tmp_path).missing_images == {}


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"finished": "yes"}, "finished is 'yes'"),
        ({"classes": [1, 2]}, "classes.0 is 1"),
        ({"model_arguments": []}, r"model_arguments is \[\]"),
        ({"data_dir": 3}, "data_dir is 3"),
    ],
)
def test_entries_of_other_types_are_named(folder, content, where):
    folder.write_json("run.json", content)
    with pytest.raises(UserError, match=rf"run\.json is damaged: {where}\. Restore it from a backup"):
        _ = folder.record


def test_entries_that_a_training_needs_are_named_where_they_are_missing(folder):
    folder.write_json("run.json", {})
    for name in ("classes", "model_arguments"):
        with pytest.raises(UserError, match=rf"run\.json has no '{name}'.* Restore it"):
            getattr(folder, name)


def test_a_file_in_the_place_of_the_checkpoints_is_named(folder):
    (folder / "checkpoints").write_text("")
    for name in ("state", "best_weights", "weights_sha256"):
        with pytest.raises(UserError, match="checkpoints is a file"):
            getattr(folder, name)


NAMES = ["=1+1", "+a", "-b", "@c", "\tx", "'=quoted", "''=twice", "'plain", "plain", "-12.5", "+3e4", "1-2", "", "'"]


def test_no_spreadsheet_runs_a_cell_and_every_id_is_read_as_it_was(folder):
    labels = ["=HYPERLINK(0)"] * len(NAMES)
    table = pd.DataFrame({"image_id": NAMES, "dataset": "own", "split": "test", "label": labels, "=head": "1", "dsc": -0.5})
    folder.write_table("predictions.csv", table)
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.reader(file))
    assert cells[0][4] == "'=head"
    assert {cell for row in cells for cell in row if cell[:1] in set("=+-@\t\r")} == {"-12.5", "+3e4", "-0.5"}
    again = folder.read_table("predictions.csv")
    assert again["image_id"].tolist() == NAMES
    assert again["label"].tolist() == labels
    assert list(again) == list(table)
    assert again["dsc"].tolist() == ["-0.5"] * len(NAMES)


def test_splits_are_read_as_they_were(tmp_path):
    ids = sorted({*NAMES, "id"} - {""})
    table = pd.DataFrame({"image_id": ids, "group_id": ids, "label": "-x", "split": "test", "dataset": "own"})
    write_splits(table, tmp_path / "splits.csv")
    assert ",'-x," in (tmp_path / "splits.csv").read_text()
    assert sorted(read_splits(tmp_path / "splits.csv")["image_id"]) == ids

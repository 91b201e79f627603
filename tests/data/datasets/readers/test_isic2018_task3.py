"""ISIC 2018 task 3: HAM10000 as training split with its lesions, official validation and test splits."""

import shutil

import pandas as pd

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import read_dataset

GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"
TEST = "ISIC2018_Task3_Test_GroundTruth"


def read(folder):
    return read_dataset("isic2018_task3", None, str(folder), check_images=False)


def test_parts_and_lesions(stand_in):
    records = read(stand_in("isic2018_task3"))
    table = records.table
    assert table["split"].value_counts().to_dict() == {"train": 42, "validation": 14, "test": 14}
    train = table["split"] == "train"
    assert (table["group_id"] == table["lesion_id"])[train].all()
    assert (table["group_id"] == table["image_id"])[~train].all()
    assert table["group_id"][train].nunique() < train.sum()
    assert readers.get("isic2018_task3").info["never_inputs"] == ("diagnosis_confirm_type",)


def test_the_label_that_was_published_without_an_image(copy_of):
    folder = copy_of("isic2018_task3")
    table = folder / TEST / f"{TEST}.csv"
    table.write_text(table.read_text() + "ISIC_0035068,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n")
    records = read(folder)
    assert records.excluded[["image_id", "reason", "split", "label"]].to_numpy().tolist() == [
        ["ISIC_0035068", "a row without an image", "test", "NV"]
    ]
    assert "ISIC_0035068 was published with a label, but without an image." in records.notes


def test_tables_may_lie_beside_the_images(copy_of):
    folder = copy_of("isic2018_task3")
    before = read(folder).table
    (folder / TEST / f"{TEST}.csv").rename(folder / f"{TEST}.csv")
    (folder / TEST).rmdir()
    assert read(folder).table.equals(before)


def test_a_part_without_labels_or_without_images(copy_of):
    folder = copy_of("isic2018_task3")
    shutil.rmtree(folder / TEST)
    shutil.rmtree(folder / "ISIC2018_Task3_Validation_Input")
    records = read(folder)
    assert "The test split has no ISIC2018_Task3_Test_GroundTruth.csv: its 14 images have no label." in records.notes
    assert (records.table["label"] == "").sum() == 14
    assert records.excluded["split"].to_list() == ["validation"] * 14
    assert any(note.startswith("The validation split has no images") for note in records.notes)


def test_without_groupings_it_is_said(copy_of):
    folder = copy_of("isic2018_task3")
    (folder / GROUPINGS).unlink()
    records = read(folder)
    assert (records.table["group_id"] == records.table["image_id"]).all()
    assert any("cannot be kept together" in note for note in records.notes)


def test_an_image_of_two_parts_counts_once(copy_of):
    folder = copy_of("isic2018_task3")
    image_id = read(folder).table["image_id"][0]
    shutil.copy(folder / "ISIC2018_Task3_Training_Input" / f"{image_id}.jpg", folder / "ISIC2018_Task3_Test_Input")
    table = folder / TEST / f"{TEST}.csv"
    table.write_text(table.read_text() + f"{image_id},0.0,1.0,0.0,0.0,0.0,0.0,0.0\n")
    records = read(folder)
    assert records.excluded["image_id"].to_list() == [image_id]
    assert records.table["image_id"].is_unique


def test_the_lesions_of_the_real_table(real_data, tmp_path):
    """The training split is HAM10000: its real labels and lesions in the challenge's own layout."""
    source = pd.read_csv(real_data / "csv" / "ham10000" / "HAM10000_metadata.csv", dtype=str)
    source = source.rename(columns={"image_id": "image"})
    names = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    flags = {name: (source["dx"].str.upper() == name).map({True: "1.0", False: "0.0"}) for name in names}
    pd.DataFrame({"image": source["image"], **flags}).to_csv(tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv", index=False)
    source.rename(columns={"dx_type": "diagnosis_confirm_type"}).to_csv(tmp_path / GROUPINGS, index=False)
    (tmp_path / "ISIC2018_Task3_Training_Input").mkdir()
    for image_id in source["image"]:
        (tmp_path / "ISIC2018_Task3_Training_Input" / f"{image_id}.jpg").touch()
    table = read(tmp_path).table
    assert len(table) == 10_015
    assert table["group_id"].nunique() == 7470
    assert table["label"].value_counts().to_dict() == {
        "NV": 6705,
        "MEL": 1113,
        "BKL": 1099,
        "BCC": 514,
        "AKIEC": 327,
        "VASC": 142,
        "DF": 115,
    }

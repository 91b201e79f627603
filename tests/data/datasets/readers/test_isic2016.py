"""ISIC 2016: its layouts and tables, and the real copy where there is one."""

import shutil

import pytest

from keras_skin.data.datasets.records import read_dataset
from keras_skin.registry import UserError

TRAIN, TEST = "ISBI2016_ISIC_Part3_Training_GroundTruth.csv", "ISBI2016_ISIC_Part3_Test_GroundTruth.csv"


def read(folder, **arguments):
    return read_dataset("isic2016", folder, check_images=False, **arguments)


def test_parts_and_labels(stand_in):
    assert read(stand_in("isic2016")).table.groupby(["split", "label"]).size().to_dict() == {
        ("test", "benign"): 12,
        ("test", "malignant"): 4,
        ("train", "benign"): 36,
        ("train", "malignant"): 12,
    }


def test_the_images_of_part_3_do_as_well(copy_of):
    folder = copy_of("isic2016")
    expected = read(folder).table["image_id"].tolist()
    for word in ("Training", "Test"):
        (folder / f"ISBI2016_ISIC_Part1_{word}_Data").rename(folder / f"ISBI2016_ISIC_Part3_{word}_Data")
    assert read(folder).table["image_id"].tolist() == expected


def test_both_image_folders_are_no_duplicates_and_complete_each_other(copy_of):
    folder = copy_of("isic2016")
    before = read(folder)
    one, other = folder / "ISBI2016_ISIC_Part1_Training_Data", folder / "ISBI2016_ISIC_Part3_Training_Data"
    shutil.copytree(one, other)
    (one / "ISIC_0000005.jpg").unlink()
    after = read(folder)
    assert after.excluded.empty
    assert after.table["image_id"].equals(before.table["image_id"])
    assert "Part3" in after.table.set_index("image_id")["image"]["ISIC_0000005"]
    assert "Part1" in after.table.set_index("image_id")["image"]["ISIC_0000006"]


def test_doubled_folders_and_other_cases_of_names(copy_of):
    folder = copy_of("isic2016")
    before = read(folder).table
    images = folder / "ISBI2016_ISIC_Part1_Training_Data"
    images.rename(folder / "inner")
    images.mkdir()
    (folder / "inner").rename(images / "ISBI2016_ISIC_Part1_Training_Data")
    masks = folder / "ISBI2016_ISIC_Part1_Training_GroundTruth"
    for mask in masks.iterdir():
        mask.rename(masks / mask.name.replace("_Segmentation", "_segmentation"))
    (folder / TRAIN).rename(folder / TRAIN.lower())
    after = read(folder)
    assert after.excluded.empty
    assert after.table["label"].equals(before["label"])


@pytest.mark.parametrize("header", ["img_id,Label", "image_id,label"])
def test_a_copy_with_a_header(copy_of, header):
    folder = copy_of("isic2016")
    before = read(folder).table
    rows = (folder / TEST).read_text().replace(",0\n", ",0.0\n").replace(",1\n", ",1.0\n")
    (folder / TEST).write_text(f"\ufeff{header}\r\n" + rows.replace("\n", "\r\n"), encoding="utf-8")
    assert read(folder).table.equals(before)


def test_every_wrong_row_is_named_with_its_line(copy_of):
    folder = copy_of("isic2016")
    rows = ["ISIC_0000000,benign", "ISIC_0000001,good", "ISIC_0000002", "", "../secret,benign", "/etc/passwd,benign", ",benign"]
    (folder / TRAIN).write_text("\n".join(rows))
    with pytest.raises(UserError) as caught:
        read(folder)
    message = str(caught.value)
    for part in (
        TRAIN,
        "line 2: found label 'good'",
        "line 3: found 1 cells, expected 2",
        "line 5",
        "'../secret'",
        "line 6",
        "line 7",
        "expected one of benign, malignant, 0, 1",
    ):
        assert part in message


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"\xff\xfe\x00\x81,", "found UTF-16, expected UTF-8")])
def test_a_file_that_is_no_table(copy_of, content, reason):
    folder = copy_of("isic2016")
    (folder / TRAIN).write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read(folder)


def test_duplicate_ids(copy_of):
    folder = copy_of("isic2016")
    with (folder / TRAIN).open("a") as stream:
        stream.write("ISIC_0000000,benign\nISIC_0000004,malignant\n")
    records = read(folder)
    assert "ISIC_0000000" in set(records.table["image_id"])
    assert "ISIC_0000004" not in set(records.table["image_id"])
    assert records.excluded["reason"].tolist() == [
        "duplicate id: line 49 repeats line 1, which is used",
        "duplicate id with different labels: benign (line 5), malignant (line 50)",
    ]
    assert records.excluded["split"].tolist() == ["train", "train"]


def test_a_second_file_for_an_id_is_listed(copy_of):
    folder = copy_of("isic2016")
    images = folder / "ISBI2016_ISIC_Part1_Training_Data"
    shutil.copy(images / "ISIC_0000000.jpg", images / "ISIC_0000000.PNG")
    records = read(folder)
    assert records.excluded["reason"].tolist() == ["duplicate id: a second file, ISIC_0000000.jpg is used"]
    assert len(records.table) == 64


def test_a_part_without_images_is_noted_and_its_rows_listed(copy_of):
    folder = copy_of("isic2016")
    shutil.rmtree(folder / "ISBI2016_ISIC_Part1_Test_Data")
    records = read(folder)
    assert any("test split has no images" in note and "16 rows" in note for note in records.notes)
    assert (records.excluded["split"] == "test").all()
    assert records.excluded["label"].value_counts().to_dict() == {"benign": 12, "malignant": 4}


def test_without_masks_or_table_the_rest_is_read(copy_of):
    folder = copy_of("isic2016")
    shutil.rmtree(folder / "ISBI2016_ISIC_Part1_Training_GroundTruth")
    (folder / TEST).unlink()
    records = read(folder)
    assert (records.table.loc[records.table["split"] == "train", "mask"] == "").all()
    assert (records.table.loc[records.table["split"] == "test", "label"] == "").all()
    assert any("train split has no masks" in note for note in records.notes)
    assert any(f"test split has no {TEST}: its 16 images have no label" in note for note in records.notes)


def test_the_training_part_alone(copy_of):
    folder = copy_of("isic2016")
    for name in ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"):
        shutil.rmtree(folder / name)
    (folder / TEST).unlink()
    records = read(folder)
    assert "The test split is missing." in records.notes
    assert records.excluded.empty


def test_the_real_tables(real_data):
    records = read(real_data / "isic2016")
    expected_counts = [
        (*key, count)
        for table in (records.table, records.excluded)
        for key, count in table.groupby(["split", "label"]).size().items()
    ]
    sums = {}
    for split, label, count in expected_counts:
        sums[split, label] = sums.get((split, label), 0) + count
    assert sums == {("train", "benign"): 727, ("train", "malignant"): 173, ("test", "benign"): 304, ("test", "malignant"): 75}
    assert records.table["label"].value_counts().to_dict() == {"benign": 574, "malignant": 144}
    assert (records.table["mask"] != "").all()


@pytest.mark.slow
def test_the_real_images_pass_the_check(real_data):
    records = read_dataset("isic2016", real_data)
    assert len(records.table) == 718
    assert set(records.excluded["reason"]) == {"a row without an image"}
    assert len(records.excluded) == 182 + 379

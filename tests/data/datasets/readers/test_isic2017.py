"""ISIC 2017: three parts, three diagnoses, metadata, and the real copy where there is one."""

import shutil

import pandas as pd
import pytest

from keras_skin.data.datasets.records import read_dataset
from keras_skin.registry import UserError

LABELS, METADATA = "ISIC-2017_Training_Part3_GroundTruth.csv", "ISIC-2017_Training_Data_metadata.csv"


def read(folder):
    return read_dataset("isic2017", folder, check_images=False)


def test_labels_and_metadata(copy_of):
    folder = copy_of("isic2017")
    (folder / LABELS).write_text(
        "image_id,melanoma,seborrheic_keratosis\n"
        + "".join(
            f"{row.image_id},{melanoma},{keratosis}\n"
            for row, (melanoma, keratosis) in zip(
                read(folder).table.itertuples(), [("1.0", "0.0"), ("0.0", "1.0"), ("0", "0"), *[("0.0", "0.0")] * 13], strict=True
            )
        )
    )
    (folder / METADATA).write_text("image_id,age_approximate,sex\nISIC_0000001,55,female\nISIC_0000002,unknown,unknown\n")
    table = read(folder).table
    assert table["label"].tolist()[:3] == ["malignant", "benign", "benign"]
    assert table["diagnosis"].tolist()[:3] == ["melanoma", "seborrheic_keratosis", "nevus"]
    assert table["age_approximate"].tolist()[:3] == ["55", "", ""]
    assert table["sex"].tolist()[:3] == ["female", "", ""]


def test_the_metadata_may_lie_with_the_images_or_be_absent(copy_of):
    folder = copy_of("isic2017")
    before = read(folder).table
    (folder / METADATA).rename(folder / "ISIC-2017_Training_Data" / METADATA)
    assert read(folder).table.equals(before)
    (folder / "ISIC-2017_Training_Data" / METADATA).unlink()
    assert (read(folder).table[["age_approximate", "sex"]] == "").to_numpy().all()


def test_superpixels_are_ignored(copy_of):
    folder = copy_of("isic2017")
    images = folder / "ISIC-2017_Training_Data"
    shutil.copy(images / "ISIC_0000001.jpg", images / "ISIC_0000001_superpixels.png")
    assert read(folder).excluded.empty


def test_three_parts(copy_of):
    folder = copy_of("isic2017")
    for split, word, image_id in (("validation", "Validation", "ISIC_0000002"), ("test", "Test_v2", "ISIC_0000005")):
        for kind in ("Data", "Part1_GroundTruth"):
            (folder / f"ISIC-2017_{word}_{kind}").mkdir()
            for file in (folder / f"ISIC-2017_Training_{kind}").glob(f"{image_id}*"):
                file.rename(folder / f"ISIC-2017_{word}_{kind}" / file.name)
        lines = (folder / LABELS).read_text().splitlines(keepends=True)
        (folder / LABELS).write_text("".join(line for line in lines if image_id not in line))
        moved = [line for line in lines if image_id in line]
        (folder / f"ISIC-2017_{word}_Part3_GroundTruth.csv").write_text("".join([lines[0], *moved]))
        assert read(folder).table.set_index("image_id")["split"][image_id] == split
    assert read(folder).excluded.empty


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "image_id,melanoma\nISIC_0000001,1.0\n",
            "line 1: found no column seborrheic_keratosis in the header",
        ),
        (
            "image_id,melanoma,seborrheic_keratosis\nISIC_0000001,1.0,1.0\n",
            "line 2: found 2 columns that are 1.0, expected at most one of melanoma, seborrheic",
        ),
        ("image_id,melanoma,seborrheic_keratosis\nISIC_0000001,yes,0.0\n", "line 2: found melanoma 'yes'"),
        ("image_id,melanoma,seborrheic_keratosis\n..\\ISIC_0000001,1.0,0.0\n", "path separator"),
    ],
)
def test_wrong_tables(copy_of, content, reason):
    folder = copy_of("isic2017")
    (folder / LABELS).write_text(content)
    with pytest.raises(UserError, match=reason):
        read(folder)


def test_wrong_metadata(copy_of):
    folder = copy_of("isic2017")
    (folder / METADATA).write_text("image_id,age_approximate,sex\nISIC_0000001,55\n")
    with pytest.raises(UserError, match="line 2"):
        read(folder)


def test_the_real_tables(real_data):
    records = read(real_data / "isic2017")
    assert len(records.table) == 210
    assert records.table["label"].value_counts().to_dict() == {"benign": 156, "malignant": 54}
    labels = pd.concat([records.table, records.excluded])["label"]
    assert labels.value_counts().to_dict() == {"benign": 1626, "malignant": 374}
    assert set(records.table["sex"]) <= {"", "male", "female"}


def test_the_real_overlap_with_2016(real_data):
    """The figures that make or break a score: how much of 2017 is in the training and in the test part of 2016."""
    both = {name: read_dataset(name, real_data, check_images=False) for name in ("isic2016", "isic2017")}
    rows = {name: pd.concat([records.table, records.excluded]) for name, records in both.items()}
    old = rows["isic2016"].set_index("image_id")
    train, test = (old[old["split"] == split]["label"] for split in ("train", "test"))
    new = rows["isic2017"].set_index("image_id")["label"]
    assert (new.index.isin(train.index).sum(), new.index.isin(test.index).sum()) == (746, 305)
    melanomas = new[new == "malignant"].index
    assert (melanomas.isin(train.index).sum(), melanomas.isin(test.index).sum()) == (147, 63)
    assert (train.reindex(melanomas).dropna() == "benign").sum() == 3

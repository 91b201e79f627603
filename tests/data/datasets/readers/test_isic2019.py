"""ISIC 2019: the doubled folder, lesions that are not named, the class without images, and the real tables."""

import shutil

import pandas as pd
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import read_dataset
from keras_skin.registry import UserError

IMAGES, LABELS, METADATA = "ISIC_2019_Training_Input", "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv"
PUBLISHED = {"MEL": 4522, "NV": 12875, "BCC": 3323, "AK": 867, "BKL": 2624, "DF": 239, "VASC": 253, "SCC": 628}
COMPLETE = {"MEL": 4346, "NV": 10632, "BCC": 3245, "AK": 845, "BKL": 2333, "DF": 235, "VASC": 222, "SCC": 622}
FIELDS = ["age_approx", "anatom_site_general", "sex"]


def read(folder):
    return read_dataset("isic2019", None, str(folder), check_images=False)


def test_doubled_or_not(copy_of):
    folder = copy_of("isic2019")
    before = read(folder).table
    assert before["image"].str.contains(f"{IMAGES}/{IMAGES}/").all()
    for file in (folder / IMAGES / IMAGES).iterdir():
        file.rename(folder / IMAGES / file.name)
    for name in (LABELS, METADATA):
        (folder / name).rename(folder / IMAGES / name)
    assert read(folder).table.drop(columns="image").equals(before.drop(columns="image"))


def test_groups_are_lesions_or_single_images(stand_in):
    table = read(stand_in("isic2019")).table
    named = table["lesion_id"] != ""
    assert (table["group_id"] == table["lesion_id"])[named].all()
    assert table["group_id"][named].duplicated().any()
    assert (table["group_id"] == table["image_id"].str.removesuffix("_downsampled"))[~named].all()
    assert table["image_id"][~named].str.endswith("_downsampled").any()


def test_unk_is_a_class_only_where_an_image_has_it(copy_of):
    folder = copy_of("isic2019")
    assert read(folder).classes == ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    lines = (folder / LABELS).read_text().splitlines()
    lines[1] = lines[1].partition(",")[0] + ",0.0" * 8 + ",1.0"
    (folder / LABELS).write_text("\n".join(lines))
    records = read(folder)
    assert records.classes[-1] == "UNK"
    assert (records.table["label"] == "UNK").sum() == 1


def test_without_metadata(copy_of):
    folder = copy_of("isic2019")
    (folder / METADATA).unlink()
    records = read(folder)
    assert (records.table[[*FIELDS, "lesion_id"]] == "").to_numpy().all()
    assert any("cannot be kept together" in note for note in records.notes)


def test_without_labels(copy_of):
    folder = copy_of("isic2019")
    (folder / LABELS).unlink()
    with pytest.raises(UserError, match=f"has no {LABELS}"):
        read(folder)


def test_counts_and_a_table_are_not_both_taken(tmp_path):
    render = readers.get("isic2019").info["render"]
    with pytest.raises(UserError, match="not both"):
        render(tmp_path / "new", 0, {"MEL": 1}, (32, 40), table=pd.DataFrame())
    with pytest.raises(UserError, match="has no image, MEL"):
        render(tmp_path / "new", 0, None, (32, 40), table=pd.DataFrame({"UNK": []}))


def test_the_real_tables(real_data, tmp_path):
    """The publisher's figures, on the real tables with files of no content for images."""
    for name in (LABELS, METADATA):
        shutil.copy(real_data / "csv" / "isic2019" / name, tmp_path)
    (tmp_path / IMAGES).mkdir()
    without_images = read_tables(tmp_path)
    for image_id in pd.read_csv(tmp_path / LABELS)["image"]:
        (tmp_path / IMAGES / f"{image_id}.jpg").touch()
    records = read(tmp_path)
    table = records.table
    assert len(without_images.excluded) == len(table) == 25_331
    for labels in (without_images.excluded["label"], table["label"]):
        assert labels.value_counts().to_dict() == PUBLISHED
    assert records.excluded.empty
    blank = table[[*FIELDS, "lesion_id"]] == ""
    assert blank.sum().to_dict() == {"age_approx": 437, "anatom_site_general": 2631, "sex": 384, "lesion_id": 2084}
    complete = table[~blank[FIELDS].any(axis=1)]
    assert len(complete) == 22_480
    assert complete["label"].value_counts().to_dict() == COMPLETE
    assert table["anatom_site_general"].nunique() == 8 + 1
    assert table["lesion_id"][~blank["lesion_id"]].nunique() == 11_847
    assert table["group_id"].nunique() == 11_847 + 2084
    assert table["image_id"].str.endswith("_downsampled").sum() == 2074


def read_tables(folder):
    return readers.get("isic2019").builder(folder)


def test_real_images(real_data, tmp_path):
    """Four real images in the layout of ISIC 2019, decoded."""
    (tmp_path / IMAGES).mkdir()
    labels, metadata = (pd.read_csv(real_data / "csv" / "isic2019" / name, dtype=str) for name in (LABELS, METADATA))
    source = real_data / "isic2016" / "ISBI2016_ISIC_Part1_Training_Data"
    there = labels["image"].str.removesuffix("_downsampled").isin([file.stem for file in source.iterdir()])
    melanomas = labels["MEL"] == "1.0"
    chosen = pd.concat([labels[there & melanomas].head(2), labels[there & ~melanomas].head(2)])["image"]
    for image_id in chosen:
        shutil.copy(source / f"{image_id.removesuffix('_downsampled')}.jpg", tmp_path / IMAGES / f"{image_id}.jpg")
    labels[labels["image"].isin(chosen)].to_csv(tmp_path / LABELS, index=False)
    metadata[metadata["image"].isin(chosen)].to_csv(tmp_path / METADATA, index=False)
    records = read_dataset("isic2019", tmp_path)
    assert sorted(records.table["label"]) == ["MEL", "MEL", "NV", "NV"]
    assert records.excluded.empty

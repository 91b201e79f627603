"""HAM10000: three layouts, lesions, masks that may be missing, and the real table."""

import shutil

import pandas as pd
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import read_dataset
from keras_skin.registry import UserError

SIZE = (32, 40)
PUBLISHED = {"NV": 6705, "MEL": 1113, "BKL": 1099, "BCC": 514, "AKIEC": 327, "VASC": 142, "DF": 115}


def read(folder):
    return read_dataset("ham10000", None, str(folder), check_images=False)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    root = tmp_path_factory.mktemp("ham10000")
    for layout in ("dataverse", "kmader", "surajghuwalewala"):
        readers.get("ham10000").info["render"](root / layout, 2, dict.fromkeys(PUBLISHED, 4), SIZE, layout=layout)
    return root


@pytest.fixture
def copy_of_layout(layouts, tmp_path):
    return lambda layout: shutil.copytree(layouts / layout, tmp_path / layout)


def test_the_layouts_hold_the_same(layouts):
    tables = {layout: read(layouts / layout).table for layout in ("dataverse", "kmader", "surajghuwalewala")}
    for table in tables.values():
        assert table[["image_id", "label"]].equals(tables["dataverse"][["image_id", "label"]])
    assert tables["dataverse"]["source"].ne("").all()
    same = [column for column in tables["dataverse"] if column not in ("image", "mask", "source")]
    assert tables["kmader"][same].equals(tables["dataverse"][same])
    assert [tables[layout]["mask"].ne("").all() for layout in tables] == [True, False, True]
    assert tables["dataverse"]["group_id"].nunique() < len(tables["dataverse"])


def test_without_lesions_grouping_is_impossible_and_said_so(copy_of_layout, layouts):
    folder = copy_of_layout("surajghuwalewala")
    records = read(folder)
    assert (records.table["group_id"] == records.table["image_id"]).all()
    assert any("grouping is impossible" in note for note in records.notes)
    shutil.copy(layouts / "dataverse" / "HAM10000_metadata", folder)
    mended = read(folder)
    assert mended.table["group_id"].equals(read(layouts / "dataverse").table["group_id"])
    assert "GroundTruth.csv agrees in all 28 labels that both have." in mended.notes


def test_two_tables_that_disagree_are_an_error(copy_of_layout, layouts):
    folder = copy_of_layout("surajghuwalewala")
    shutil.copy(layouts / "dataverse" / "HAM10000_metadata", folder / "HAM10000_metadata.csv")
    text = (folder / "GroundTruth.csv").read_text().splitlines()
    text[1] = text[1].partition(",")[0] + ",0.0,0.0,0.0,0.0,0.0,0.0,1.0" if not text[1].endswith("1.0") else text[2]
    (folder / "GroundTruth.csv").write_text("\n".join(text) + "\n")
    with pytest.raises(UserError, match="disagree in 1 labels:\n  ISIC_"):
        read(folder)


def test_the_folders_that_are_there_twice_count_once(layouts):
    records = read(layouts / "kmader")
    assert records.excluded.empty
    assert records.table["image"].str.contains("HAM10000_images_part_").all()
    assert "14 second copies of images are ignored." in records.notes


@pytest.mark.parametrize("name", ["HAM10000_metadata.tab", "ham10000_metadata.CSV"])
def test_names_of_the_table(copy_of_layout, name):
    folder = copy_of_layout("dataverse")
    before = read(folder).table
    table = pd.read_csv(folder / "HAM10000_metadata", dtype=str, keep_default_na=False)
    (folder / "HAM10000_metadata").unlink()
    table.to_csv(folder / name, index=False, sep="\t" if "tab" in name else ",", quoting=2 if "tab" in name else 0)
    assert read(folder).table.equals(before)


def test_an_image_without_a_mask_is_used(copy_of_layout):
    folder = copy_of_layout("dataverse")
    image_id = read(folder).table["image_id"][3]
    (folder / "HAM10000_segmentations_lesion_tschandl" / f"{image_id}_segmentation.png").unlink()
    records = read(folder)
    assert records.table.set_index("image_id")["mask"][image_id] == ""
    assert (records.table["mask"] == "").sum() == 1
    assert "1 of 28 images have no mask." in records.notes


def test_unknown_is_nothing_and_dx_type_no_input(stand_in):
    table = read(stand_in("ham10000")).table
    assert not table[["sex", "localization"]].isin(["unknown"]).to_numpy().any()
    assert (table[["age", "sex", "localization"]] == "").any().all()
    info = readers.get("ham10000").info
    assert info["metadata"] == {"age": "numeric", "sex": "categorical", "localization": "categorical"}
    assert info["never_inputs"] == ("dx_type",)
    assert any("dx_type" in note and "never an input" in note for note in read(stand_in("ham10000")).notes)


def test_no_table_is_an_error(copy_of_layout):
    folder = copy_of_layout("dataverse")
    (folder / "HAM10000_metadata").unlink()
    with pytest.raises(UserError, match="has no table: expected HAM10000_metadata"):
        read(folder)


def test_unknown_layout(tmp_path):
    with pytest.raises(UserError, match="no layout 'zip'"):
        readers.get("ham10000").info["render"](tmp_path / "new", layout="zip")


def test_the_real_table(real_data, tmp_path):
    """The publisher's figures, on the real table with files of no content for images."""
    shutil.copy(real_data / "csv" / "ham10000" / "HAM10000_metadata.csv", tmp_path)
    ids = pd.read_csv(tmp_path / "HAM10000_metadata.csv")["image_id"]
    for part, chosen in (("1", ids[:5000]), ("2", ids[5000:])):
        (tmp_path / f"HAM10000_images_part_{part}").mkdir()
        for image_id in chosen:
            (tmp_path / f"HAM10000_images_part_{part}" / f"{image_id}.jpg").touch()
    records = read(tmp_path)
    table = records.table
    assert len(table) == 10_015
    assert records.excluded.empty
    assert table["label"].value_counts().to_dict() == PUBLISHED
    assert table["group_id"].nunique() == 7470
    assert (table[["age", "sex", "localization"]] == "").sum().to_list() == [57, 57, 234]
    assert (table["age"] == "0.0").sum() == 39
    assert "39 images have an age of 0.0." in records.notes
    assert table.loc[table["label"] == "MEL", "dx_type"].value_counts().to_dict() == {"histo": 1113}


def test_stand_ins_can_be_drawn_from_the_real_table(real_data, tmp_path):
    table = pd.read_csv(real_data / "csv" / "ham10000" / "HAM10000_metadata.csv")
    some = pd.concat([table[table["age"].isna()].head(2), table[table["lesion_id"] == table["lesion_id"][0]]])
    readers.get("ham10000").info["render"](tmp_path / "new", 0, None, SIZE, table=some)
    stand_in = read_dataset("ham10000", tmp_path / "new").table
    assert set(stand_in["image_id"]) == set(some["image_id"])
    assert set(stand_in["group_id"]) == set(some["lesion_id"])
    assert (stand_in["age"] == "").sum() == 2

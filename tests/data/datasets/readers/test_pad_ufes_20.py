"""PAD-UFES-20: text as published, patients as groups, images found in any folder, and the real table."""

import shutil

import pandas as pd
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import read_dataset
from keras_skin.registry import UserError

PUBLISHED = {"BCC": 845, "ACK": 730, "NEV": 244, "SEK": 235, "SCC": 192, "MEL": 52}


def read(folder, **arguments):
    return read_dataset("pad_ufes_20", None, str(folder), check_images=False, **arguments)


def metadata():
    return readers.get("pad_ufes_20").info["metadata"]


def test_images_are_found_in_any_folder(copy_of):
    folder = copy_of("pad_ufes_20")
    before = read(folder).table
    assert before["image"].str.contains("imgs_part_1/imgs_part_1/").any()
    assert before["image"].str.endswith(".png").all()
    for number in (2, 3):
        (folder / "images" / f"imgs_part_{number}").rename(folder / f"imgs_part_{number}")
    for file in (folder / "images" / "imgs_part_1" / "imgs_part_1").iterdir():
        file.rename(folder / "images" / file.name)
    assert read(folder).table.drop(columns="image").equals(before.drop(columns="image"))


def test_groups_are_patients(stand_in):
    table = read(stand_in("pad_ufes_20")).table
    assert (table["group_id"] == table["patient_id"]).all()
    lesions = table.groupby(["patient_id", "lesion_id"]).size()
    assert (lesions > 1).any()
    assert lesions.index.get_level_values("patient_id").has_duplicates


def test_biopsed_is_kept_but_no_input(stand_in):
    records = read(stand_in("pad_ufes_20"))
    info = readers.get("pad_ufes_20").info
    assert info["never_inputs"] == ("biopsed",)
    assert "biopsed" not in info["metadata"]
    assert records.table.loc[records.table["label"].isin(["BCC", "SCC", "MEL"]), "biopsed"].eq("True").all()
    assert any("biopsed" in note for note in records.notes)


def test_the_stand_in_has_gaps_and_unknowns(stand_in):
    table = read(stand_in("pad_ufes_20")).table
    assert 0 < (table["smoke"] == "").sum() < len(table)
    assert (table[["grew", "changed"]] == "UNK").to_numpy().any()
    unasked = table["smoke"] == ""
    assert (table.loc[unasked, ["diameter_1", "diameter_2", "gender", "fitspatrick"]] == "").to_numpy().all()


def test_a_row_without_a_patient_is_an_error(copy_of):
    folder = copy_of("pad_ufes_20")
    lines = (folder / "metadata.csv").read_text().splitlines()
    lines[4] = lines[4].partition(",")[1] + lines[4].partition(",")[2]
    (folder / "metadata.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match="line 5: found no patient_id"):
        read(folder)


@pytest.fixture(scope="module")
def real_folder(real_data, tmp_path_factory):
    """The real table with files of no content for images."""
    folder = tmp_path_factory.mktemp("pad_ufes_20")
    shutil.copy(real_data / "csv" / "pad_ufes_20" / "metadata.csv", folder)
    (folder / "images" / "imgs_part_1").mkdir(parents=True)
    for image in pd.read_csv(folder / "metadata.csv")["img_id"]:
        (folder / "images" / "imgs_part_1" / image).touch()
    return folder


def test_the_real_table(real_folder):
    records = read(real_folder)
    table = records.table
    assert len(table) == 2298
    assert records.excluded.empty
    assert table["label"].value_counts().to_dict() == PUBLISHED
    assert table["group_id"].nunique() == 1373
    assert (table["lesion_id"].nunique(), (table["patient_id"] + "/" + table["lesion_id"]).nunique()) == (1641, 1891)
    blank = (table == "").sum()
    asked_alike = [
        "smoke",
        "drink",
        "pesticide",
        "gender",
        "skin_cancer_history",
        "cancer_history",
        "has_piped_water",
        "has_sewage_system",
        "fitspatrick",
        "diameter_1",
        "diameter_2",
    ]
    assert (table.loc[table["smoke"] == "", asked_alike] == "").to_numpy().all()
    assert blank[asked_alike].to_list() == [804] * len(asked_alike)
    assert blank[["background_father", "background_mother", "age", "region"]].to_list() == [818, 822, 0, 0]
    unknown = (table == "UNK").sum()
    assert unknown[unknown > 0].to_dict() == {
        "itch": 6,
        "grew": 402,
        "hurt": 10,
        "changed": 396,
        "bleed": 6,
        "elevation": 2,
        "background_father": 95,
        "background_mother": 84,
    }
    assert (table["biopsed"] == "True").sum() == 1342


def test_the_real_table_encodes_81_wide(real_folder):
    """Three numbers, and a column for each other value that occurs; the two spellings of Brazil are two of them."""

    def width(table):
        values = {name: set(table[name]) - {""} for name, kind in metadata().items() if kind == "categorical"}
        return sum(kind == "numeric" for kind in metadata().values()) + sum(map(len, values.values()))

    assert len(metadata()) == 21
    published, unified = read(real_folder), read(real_folder, unify_countries=True)
    assert width(published.table) == 81
    assert width(unified.table) == 80
    assert (published.table["background_father"] == "BRASIL").sum() == 3
    assert (unified.table["background_father"] == "BRAZIL").sum() == 92
    assert any("BRASIL" in note and "kept as published" in note for note in published.notes)
    assert any("BRASIL" in note and "unified." in note for note in unified.notes)


def test_stand_ins_can_be_drawn_from_the_real_table(real_data, tmp_path):
    table = pd.read_csv(real_data / "csv" / "pad_ufes_20" / "metadata.csv", dtype=str, keep_default_na=False)
    some = table.groupby("diagnostic").head(2)
    readers.get("pad_ufes_20").info["render"](tmp_path / "new", 0, None, (32, 40), table=some)
    stand_in = read_dataset("pad_ufes_20", tmp_path / "new").table.set_index("image_id")
    expected = some.assign(image_id=some["img_id"].str.removesuffix(".png")).set_index("image_id").loc[stand_in.index]
    columns = [*metadata(), "patient_id", "lesion_id", "biopsed"]
    assert stand_in[columns].equals(expected[columns])

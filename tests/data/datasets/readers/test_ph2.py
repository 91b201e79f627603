"""PH2: two tables that must agree, 1-bit masks, and the real cases where there are some."""

import shutil

import cv2
import openpyxl
import pandas as pd
import pytest

from keras_skin.data.datasets.readers import ph2
from keras_skin.data.datasets.records import read_dataset
from keras_skin.registry import UserError

FINDINGS = {"pigment_network", "dots_globules", "streaks", "regression", "blue_whitish_veil"}


def read(folder):
    return read_dataset("ph2", folder, check_images=False)


def test_classes_subtypes_and_findings(stand_in):
    table = read(stand_in("ph2")).table
    assert table.groupby(["label", "subtype"]).size().to_dict() == {
        ("benign", "atypical"): 8,
        ("benign", "common"): 8,
        ("malignant", "melanoma"): 4,
    }
    assert set(table["asymmetry"]) <= {"0", "1", "2"}
    for column in FINDINGS:
        assert set(table[column]) <= {"absent", "present", "typical", "atypical"}
    assert set(" ".join(table["colors"]).split()) <= set(ph2.COLOURS.values())


def test_masks_are_1_bit_and_exact(stand_in):
    row = read(stand_in("ph2")).table.iloc[0]
    with open(row["mask"], "rb") as stream:
        header = stream.read(30)
    assert header[28] == 1
    mask = cv2.imread(row["mask"], cv2.IMREAD_GRAYSCALE)
    from keras_skin.data.datasets.stand_ins.drawing import picture

    image, expected = picture(3, 30_000, (48, 64), 0.0)
    assert ((mask > 0) == expected).all()
    assert (cv2.imread(row["image"])[..., ::-1] == image).all()


@pytest.mark.parametrize("table", ["PH2_dataset.xlsx", "PH2_dataset.txt"])
def test_one_table_is_enough(copy_of, table):
    folder = copy_of("ph2")
    before = read(folder).table
    (folder / "PH2Dataset" / table).unlink()
    after = read(folder)
    assert after.table.equals(before)
    assert any("alone" in note for note in after.notes)


def test_no_table_is_too_few(copy_of):
    folder = copy_of("ph2")
    for file in (folder / "PH2Dataset").glob("PH2_dataset.*"):
        file.unlink()
    with pytest.raises(UserError, match="has no table"):
        read(folder)


def test_tables_that_disagree(copy_of):
    folder = copy_of("ph2")
    text = folder / "PH2Dataset" / "PH2_dataset.txt"
    lines = text.read_bytes().decode().split("\r\n")
    changed = lines[1].replace("||                  0 ||", "||                  2 ||")
    assert changed != lines[1]
    text.write_text("\r\n".join([lines[0], changed, *lines[3:]]))
    with pytest.raises(UserError) as caught:
        read(folder)
    message = str(caught.value)
    assert "disagree in 2 places" in message
    assert "IMD002: subtype is 'common' in PH2_dataset.xlsx, 'melanoma' in PH2_dataset.txt" in message
    assert "IMD003: only in PH2_dataset.xlsx" in message


def test_the_header_may_be_on_row_1(copy_of):
    folder = copy_of("ph2")
    before = read(folder).table
    path = folder / "PH2Dataset" / "PH2_dataset.xlsx"
    workbook = openpyxl.load_workbook(path)
    workbook.active.delete_rows(1, 12)
    workbook.save(path)
    assert read(folder).table.equals(before)


def test_a_spreadsheet_without_header_or_column(copy_of):
    folder = copy_of("ph2")
    path = folder / "PH2Dataset" / "PH2_dataset.xlsx"
    workbook = openpyxl.load_workbook(path)
    workbook.active.cell(13, 8).value = "Something"
    workbook.save(path)
    with pytest.raises(UserError, match="row 13: the header has no dots/globules"):
        read(folder)
    workbook.active.delete_rows(13)
    workbook.save(path)
    with pytest.raises(UserError, match="no header row"):
        read(folder)
    path.write_bytes(b"not a spreadsheet")
    with pytest.raises(UserError, match="is not a spreadsheet"):
        read(folder)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("|| IMD002 || || 3 || 0 | T | A | A | A | A || 4 ||", "line 2: found clinical diagnosis '3'"),
        ("|| IMD002 || || 0 || 5 | T | A | A | A | A || 4 ||", "line 2: found asymmetry '5'"),
        ("|| IMD002 || || 0 || 0 | X | A | A | A | A || 4 ||", "line 2: found pigment_network 'X'"),
        ("|| IMD002 || || 0 || 0 | T | A | A | A || 4 ||", "line 2: found 9 cells, expected 10"),
        ("|| IMD/../2 || || 0 || 0 | T | A | A | A | A || 4 ||", "path separator"),
        (
            "|| IMD002 || || 0 || 0 | T | A | A | A | A || 4 ||\n|| IMD002 || || 0 || 0 | T | A | A | A | A || 4 ||",
            "line 3: found IMD002 a second time",
        ),
        ("nothing", "cannot be read"),
    ],
)
def test_wrong_text_tables(copy_of, row, reason):
    folder = copy_of("ph2")
    (folder / "PH2Dataset" / "PH2_dataset.xlsx").unlink()
    (folder / "PH2Dataset" / "PH2_dataset.txt").write_text(f"||   Name || ...\n{row}\n")
    with pytest.raises(UserError, match=reason):
        read(folder)


def test_regions_of_interest_are_ignored(copy_of):
    folder = copy_of("ph2")
    case = folder / "PH2Dataset" / "PH2 Dataset images" / "IMD002"
    (case / "IMD002_roi").mkdir()
    for name in ("IMD002_R1_Label4.bmp", "IMD002_R2_Label.bmp", "IMD002_R1_LabelStreaks.bmp"):
        shutil.copy(case / "IMD002_lesion" / "IMD002_lesion.bmp", case / "IMD002_roi" / name)
    assert read(folder).excluded.empty


def test_the_inner_folder_does_as_well(stand_in):
    assert len(read(stand_in("ph2") / "PH2Dataset").table) == 20


def test_the_real_tables_agree_and_count(real_data):
    root = real_data / "ph2_sample" / "PH2Dataset"
    sheet, text = ph2._read_sheet(root / "PH2_dataset.xlsx"), ph2._read_text(root / "PH2_dataset.txt")
    assert sheet == text
    table = pd.DataFrame(sheet.values())
    assert len(table) == 200
    assert table["subtype"].value_counts().to_dict() == {"common": 80, "atypical": 80, "melanoma": 40}
    assert table["asymmetry"].value_counts().to_dict() == {"0": 117, "1": 31, "2": 52}
    assert table["pigment_network"].value_counts().to_dict() == {"atypical": 116, "typical": 84}
    assert [(table[name] == "present").sum() for name in ("streaks", "regression", "blue_whitish_veil")] == [30, 25, 36]
    assert (min(sheet), max(sheet)) == ("IMD002", "IMD437")


def test_the_real_cases_pass_the_check(real_data):
    records = read_dataset("ph2", real_data, "ph2_sample")
    assert records.table["image_id"].tolist() == ["IMD002", "IMD003", "IMD004", "IMD009", "IMD058", "IMD061"]
    assert records.table["subtype"].value_counts().to_dict() == {"common": 2, "atypical": 2, "melanoma": 2}
    assert len(records.excluded) == 194
    assert "took the only one with its layout, 'ph2_sample'" in " ".join(read_dataset("ph2", real_data).notes)

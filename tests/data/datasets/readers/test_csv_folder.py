"""A user's own images: whatever classes, masks for some, patients kept together, and the table of a real data set laid out so."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from keras_skin.data.datasets.readers import csv_folder
from keras_skin.data.datasets.records import read_dataset
from keras_skin.data.splits.splits import make_splits
from keras_skin.registry import UserError


def read(folder, **arguments):
    return read_dataset("csv_folder", None, str(folder), **arguments)


@pytest.fixture
def own(tmp_path):
    """Gives a function that writes six small images and a table with these columns; it gives their folder."""

    def write(**columns):
        (tmp_path / "images" / "clinic").mkdir(parents=True)
        (tmp_path / "masks").mkdir()
        rng = np.random.default_rng(0)
        for number, name in enumerate("abcdef"):
            suffix = ".png" if number % 2 else ".jpg"
            cv2.imwrite(str(tmp_path / "images" / "clinic" / f"{name}{suffix}"), rng.integers(0, 255, (16, 20, 3), np.uint8))
            mask = np.zeros((16, 20), np.uint8)
            mask[4:9, 5 : 8 + number] = 255
            cv2.imwrite(str(tmp_path / "masks" / f"{name}_lesion.png"), mask)
        table = pd.DataFrame({"image_id": list("abcdef"), "label": ["wart", "mole", "scar"] * 2, **columns})
        table.to_csv(tmp_path / "metadata.csv", index=False)
        return tmp_path

    return write


def test_two_columns_are_enough(own):
    records = read(own())
    assert records.classes == ("mole", "scar", "wart")
    assert records.table["group_id"].tolist() == list("abcdef")
    assert (records.table[["mask", "split", "age", "sex", "localization"]] == "").to_numpy().all()
    assert records.excluded.empty
    text = " ".join(records.notes)
    assert "has no values for patient_id, lesion_id, mask, split, age, sex, localization" in text
    assert "6 of 6 images name no patient_id" in text
    assert "6 files in masks/ are named by no row" in text


def test_file_names_may_have_their_extensions(own):
    folder = own(mask=["a_lesion.png", "b_lesion", "", "", "", ""])
    text = (folder / "metadata.csv").read_text().replace("\na,", "\na.jpg,").replace("\nb,", "\nb.PNG,")
    (folder / "metadata.csv").write_text(text)
    table = read(folder).table
    assert table["image_id"].tolist() == list("abcdef")
    assert [bool(mask) for mask in table["mask"]] == [True, True, False, False, False, False]
    for image_id, mask in table.loc[:1, ["image_id", "mask"]].itertuples(index=False):
        assert mask == str(folder / "masks" / f"{image_id}_lesion.png")


def test_a_named_mask_that_is_not_there_leaves_the_image_out(own):
    records = read(own(mask=["a_lesion", "x", "", "", "", ""]))
    assert records.table["image_id"].tolist() == list("acdef")
    assert records.excluded[["image_id", "reason", "label"]].to_numpy().tolist() == [["b", "no mask: x is not in masks/", "mole"]]


def test_patients_else_lesions_stay_together(own):
    records = read(own(patient_id=["1", "1", "1", "", "", ""], lesion_id=["x", "y", "z", "w", "w", ""]))
    assert records.table["group_id"].tolist() == ["1", "1", "1", "w", "w", "f"]
    assert "1 of 6 images name no patient_id" in " ".join(records.notes)


def test_an_official_split_of_its_own(own):
    folder = own(split=["train", "train", "train", "validation", "test", "test"])
    records = read(folder)
    split = make_splits(records.table, "official", classes=records.classes)
    assert split.tolist() == ["train", "train", "train", "validation", "test", "test"]
    (folder / "metadata.csv").write_text((folder / "metadata.csv").read_text().replace("validation", "holdout"))
    with pytest.raises(UserError, match=r"line 5: found split 'holdout', expected one of train, validation, test, nothing"):
        read(folder)


def test_what_is_left_out_stays_in_its_split(own):
    folder = own(split=["train"] * 3 + ["validation", "test", "test"], mask=["a_lesion"] * 3 + ["", "x", ""])
    (folder / "images" / "clinic" / "f.png").unlink()
    excluded = read(folder).excluded
    assert excluded[["image_id", "split"]].to_numpy().tolist() == [["e", "test"], ["f", "test"]]


def test_the_order_of_classes_can_be_chosen(own):
    folder = own()
    assert read(folder, classes=["wart", "mole", "scar"]).classes == ("wart", "mole", "scar")
    with pytest.raises(UserError, match=r"line 4: found label 'scar', expected one of wart, mole"):
        read(folder, classes=["wart", "mole"])


def test_which_of_two_classes_is_the_positive_one_is_reported(stand_in):
    assert any(
        "benign and malignant, in alphabetical order; malignant is the positive" in note
        for note in read(stand_in("csv_folder")).notes
    )
    chosen = read(stand_in("csv_folder"), classes=["malignant", "benign"])
    assert chosen.classes == ("malignant", "benign")
    assert not any("alphabet" in note for note in chosen.notes)


def test_masks_without_labels(own):
    records = read(own(label=[""] * 6, mask=[f"{name}_lesion" for name in "abcdef"]))
    assert records.classes == ()
    assert (records.table["mask"] != "").all()


def test_one_class_teaches_nothing(own):
    with pytest.raises(UserError, match="found the one label 'mole', expected two classes or more"):
        read(own(label=["mole"] * 6))


def test_nothing_and_unknown_are_not_known(own):
    table = read(own(sex=["female", "unknown", "", "male", "Unknown", "male"], age=["3", "", "44.5", "", "", "90"])).table
    assert table["sex"].tolist() == ["female", "", "", "male", "", "male"]
    assert table["age"].tolist() == ["3", "", "44.5", "", "", "90"]


def test_it_is_found_by_its_layout_alone(own, tmp_path):
    folder = shutil.move(own(), tmp_path.parent / f"{tmp_path.name}_data" / "moles")
    assert len(read_dataset("csv_folder", folder.parent).table) == 6


def test_a_table_of_another_data_set_is_not_taken_for_one(stand_in, tmp_path):
    assert not csv_folder.recognises(stand_in("pad_ufes_20"))
    assert not csv_folder.recognises(stand_in("ham10000"))
    assert not csv_folder.recognises(tmp_path)


def test_real_images_laid_out_so(real_data, tmp_path):
    there = read_dataset("isic2016", real_data, check_images=False).table.head(40)
    for name, suffix in (("image", ".jpg"), ("mask", "_Segmentation.png")):
        (tmp_path / f"{name}s").mkdir()
        for image_id, file in zip(there["image_id"], there[name], strict=True):
            (tmp_path / f"{name}s" / f"{image_id}{suffix}").symlink_to(file)
    table = there[["image_id", "label"]].assign(mask=there["image_id"] + "_Segmentation.png")
    table.to_csv(tmp_path / "metadata.csv", index=False)
    records = read(tmp_path)
    assert records.classes == ("benign", "malignant")
    assert len(records.table) == 40
    assert records.table["label"].tolist() == there["label"].tolist()
    assert (records.table["mask"] != "").all()


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ("Mole", "'Mole'"),
        ("mo le", "'mo le'"),
        ("mo  le", "'mo  le'"),
        ("mo\u200ble", "'mo\\u200ble'"),
        ("\ufeffmole", "'\\ufeffmole'"),
        ("mo\u00adle", "'mo\\xadle'"),
        ("mo\u00a0le", "'mo\\xa0le'"),
        ("mole\ufe0f", "'mole\ufe0f'"),
        ("\uff4dole", "'\uff4dole'"),
    ],
)
def test_labels_that_look_alike_are_named_with_their_rows(own, other, shown):
    folder = own(label=["mole", "wart", other, "mole", "wart", "mole"])
    for arguments in ({}, {"classes": ["wart", "mole"]}):
        with pytest.raises(UserError, match="labels differ only in case, spaces or characters that nobody sees") as caught:
            read(folder, **arguments)
        assert "'mole' (in 3 rows, first in line 2)" in str(caught.value)
        assert f"{shown} (in 1 rows, first in line 4)" in str(caught.value)


def test_accents_in_two_forms_are_told_apart(own):
    with pytest.raises(UserError) as caught:
        read(own(label=["n\u00e9vus", "ne\u0301vus", "wart"] * 2))
    assert r"'ne\u0301vus' (in 2 rows, first in line 3) and 'n\xe9vus' (in 2 rows, first in line 2)" in str(caught.value)


def test_spaces_around_a_label_are_no_part_of_it(own):
    assert read(own(label=["mole", " mole", "mole\u00a0", "wart", "wart ", "wart"])).classes == ("mole", "wart")


def test_chosen_classes_that_look_alike(own):
    with pytest.raises(UserError, match=r"'Wart' \(in no row\) and 'wart' \(in 2 rows, first in line 2\)"):
        read(own(), classes=["Wart", "mole", "scar", "wart"])

"""Nothing that validates or tests is trained on, under whatever name; all that is left out is counted."""

import cv2
import pandas as pd
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import make_records, read_dataset
from keras_skin.data.splits.overlap import OverlapKind, add_training, without_fitted
from keras_skin.data.splits.splits import make_splits
from keras_skin.registry import UserError

CLASSES = ("benign", "malignant")


@pytest.fixture
def picture(tmp_path):
    """Gives the path of a file with that content."""

    def path(content, name=None):
        file = tmp_path / f"{name or content}.jpg"
        file.write_text(content)
        return str(file)

    return path


@pytest.fixture
def base(picture):
    rows = [
        {"image_id": image_id, "image": picture(image_id), "label": label, "split": split}
        for image_id, label, split in (
            ("train1", "malignant", "train"),
            ("train2", "benign", "train"),
            ("valid1", "malignant", "validation"),
            ("test1", "malignant", "test"),
            ("test2", "benign", "test"),
        )
    ]
    return make_records("base", rows, CLASSES).table


def extra_of(*rows):
    return make_records("extra", [{"label": "malignant", **row} for row in rows], CLASSES)


def test_what_is_taken_and_why_the_rest_is_not(base, picture):
    extra = extra_of(
        {"image_id": "new1", "image": picture("new1"), "split": "train", "age": "50"},
        {"image_id": "new2", "image": picture("new2"), "split": "validation"},
        {"image_id": "new3", "image": picture("new3"), "split": "test"},
        {"image_id": "new4", "image": picture("new4"), "label": "benign"},
        {"image_id": "train1_downsampled", "image": picture("smaller")},
        {"image_id": "train2", "image": picture("again", "train2b")},
        {"image_id": "valid1", "image": picture("valid", "valid1b")},
        {"image_id": "other1", "image": picture("test1", "renamed1")},
        {"image_id": "test2", "image": picture("test", "test2b")},
        {"image_id": "zzz", "image": picture("new1", "renamed2")},
        {"image_id": "absent", "image": picture("absent")},
    )
    held_out = pd.DataFrame({"image_id": ["absent"], "split": ["test"], "reason": ["a row without an image"]})
    table, notes, dropped = add_training(base, extra, ["malignant"], [held_out])
    assert table["image_id"].is_monotonic_increasing
    assert set(table["image_id"]) - set(base["image_id"]) == {"new1", "new2"}
    added = table[table["dataset"] == "extra"]
    assert added["split"].tolist() == ["train", "train"]
    assert added["age"].tolist() == ["50", ""]
    assert dict(zip(dropped["image_id"], dropped["reason"], strict=True)) == {
        "absent": "held out for validation or test",
        "new3": "in the test split of extra",
        "other1": "held out for validation or test",
        "test2": "held out for validation or test, label conflict: benign there, malignant here",
        "train1_downsampled": "already in the training split",
        "train2": "already in the training split, label conflict: benign there, malignant here",
        "valid1": "held out for validation or test",
        "zzz": "already in the training split",
    }
    assert (dropped["dataset"] == "extra").all()
    assert dropped["kind"].value_counts().to_dict() == {
        OverlapKind.HELD_OUT: 4,
        OverlapKind.IN_TRAINING: 3,
        OverlapKind.OTHER_SPLIT: 1,
    }
    assert dropped.loc[dropped["conflict"], "image_id"].tolist() == ["test2", "train2"]
    assert notes == [
        "extra: 10 images labelled malignant: 2 added to the training split, 8 left out.",
        "extra: 3 left out because already in the training split.",
        "extra: 4 left out because held out for validation or test.",
        "extra: 1 left out because in the test split of extra.",
        "extra: 2 of those have another label there: test2, train2.",
    ]
    assert table[table["dataset"] == "base"][base.columns].reset_index(drop=True).equals(base)
    assert table.map(lambda value: isinstance(value, str)).to_numpy().all()


def test_a_group_that_is_held_out_is_held_out_whole(base, picture):
    base = base.assign(group_id=["p1", "p2", "p3", "p3", "p4"])
    extra = extra_of(
        {"image_id": "a", "image": picture("a"), "group_id": base["group_id"][base["split"] == "test"].iloc[0]},
        {"image_id": "b", "image": picture("b"), "group_id": base["group_id"][base["split"] == "train"].iloc[0]},
    )
    table, _, dropped = add_training(base, extra)
    assert dropped["image_id"].tolist() == ["a"]
    assert "b" in set(table["image_id"])


def test_all_labels_and_nothing_to_add(base, picture):
    extra = extra_of({"image_id": "n", "image": picture("n"), "label": "benign"})
    table, notes, dropped = add_training(base, extra)
    assert len(table) == len(base) + 1
    assert dropped.empty
    assert notes == ["extra: 1 images: 1 added to the training split, 0 left out."]
    table, _, dropped = add_training(base, extra, ["malignant"])
    assert table.equals(base)
    assert dropped.columns.tolist() == ["image_id", "dataset", "label", "reason", "kind", "conflict"]


def test_an_unknown_label(base):
    with pytest.raises(UserError, match="extra has no label 'melanom'"):
        add_training(base, make_records("extra", [], CLASSES), ["melanom"])


def test_the_stand_ins_have_something_to_find(tmp_path):
    for name in ("isic2016", "isic2017"):
        readers.get(name).info["render"](tmp_path / name, 0, None, (48, 64))
    base, extra = (read_dataset(name, tmp_path, check_images=False) for name in ("isic2016", "isic2017"))
    table = base.table.assign(split=make_splits(base.table, "official", validation=0.15))
    whole, notes, dropped = add_training(table, extra, ["malignant"])
    assert dropped["image_id"].tolist() == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000005", "ISIC_0010001"]
    assert "label conflict: benign there, malignant here" in dropped["reason"][1]
    assert len(whole) == 64 + 6
    assert notes[-1] == "isic2017: 1 of those have another label there: ISIC_0000002."
    other_names = table.assign(image_id="x" + table["image_id"], group_id="x" + table["group_id"])
    by_content, _, renamed = add_training(other_names, extra, ["malignant"])
    assert renamed["image_id"].tolist() == dropped["image_id"].tolist()
    assert len(by_content) == len(whole)


def test_the_real_melanomas_of_2017(real_data):
    """Every one of the 54 that are here is in ISIC 2016 too: 16 in its training part, 38 in its test part."""
    base, extra = (read_dataset(name, real_data, check_images=False) for name in ("isic2016", "isic2017"))
    _, notes, dropped = add_training(base.table, extra, ["malignant"], [base.excluded[base.excluded["split"] == "test"]])
    assert notes[0] == "isic2017: 54 images labelled malignant: 0 added to the training split, 54 left out."
    assert (dropped["kind"] == OverlapKind.HELD_OUT).sum() == 38


def test_pictures_are_known_again_under_other_names_and_codings(tmp_path):
    """With ids and groups renamed and every file of the extra set re-encoded at half its size, the same images are left out."""
    for name in ("isic2016", "isic2017"):
        readers.get(name).info["render"](tmp_path / name, 0, None, (192, 256))
    base, extra = (read_dataset(name, tmp_path, check_images=False) for name in ("isic2016", "isic2017"))
    table = base.table.assign(split=make_splits(base.table, "official", validation=0.15))
    _, _, expected = add_training(table, extra)
    copies = extra.table.assign(image_id="x" + extra.table["image_id"], group_id="x" + extra.table["group_id"])
    for row, file in enumerate(extra.table["image"]):
        small = cv2.resize(cv2.imread(file), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        copies.loc[row, "image"] = str(tmp_path / f"{row}.jpg")
        cv2.imwrite(copies["image"][row], small, [cv2.IMWRITE_JPEG_QUALITY, 60])
    renamed = make_records("isic2017", copies.to_dict("records"), CLASSES)
    _, _, dropped = add_training(table, renamed)
    assert dropped["image_id"].str.removeprefix("x").tolist() == expected["image_id"].tolist()
    assert dropped["reason"].tolist() == expected["reason"].tolist()
    assert len(dropped) == 5


def test_a_group_is_held_out_over_a_picture_of_it(base, picture):
    """`copy` shows what is tested on, and `b` the same lesion as `copy`."""
    extra = extra_of(
        {"image_id": "copy", "image": picture("test1", "copy"), "group_id": "lesion"},
        {"image_id": "b", "image": picture("b"), "group_id": "lesion"},
    )
    _, _, dropped = add_training(base, extra)
    assert dropped["image_id"].tolist() == ["b", "copy"]


def test_numbers_are_no_names_outside_their_data_set(base, picture):
    extra = extra_of({"image_id": "17", "image": picture("n"), "group_id": "3"})
    base = base.assign(image_id=["17", *base["image_id"][1:]], group_id="3")
    _, _, dropped = add_training(base, extra)
    assert dropped.empty


FITTED = pd.DataFrame(
    [("test1", "g1", "", "train", "others"), ("elsewhere", "lesion_7", "", "train", "others")],
    columns=["image_id", "group_id", "label", "split", "dataset"],
)


def test_what_the_segmenter_was_fitted_on_is_not_measured(base):
    table = base.assign(dataset="base")
    table.loc[table["image_id"] == "valid1", "group_id"] = "lesion_7"
    table.loc[table["image_id"] == "train1", "group_id"] = "lesion_7"
    remaining, dropped, notes = without_fitted(table, FITTED, "The segmenter", "exclude")
    assert remaining["image_id"].tolist() == ["test2", "train1", "train2"]
    assert sorted(dropped["image_id"]) == ["test1", "valid1"]
    assert dropped["reason"].str.startswith("leak: the segmenter").all()
    assert notes == [
        "The segmenter was fitted on images, patients or lesions of the splits that are measured: 1 of test, 1 of validation; "
        "they are left out."
    ]


def test_a_segmenter_fitted_on_what_is_measured_is_an_error_by_default(base):
    with pytest.raises(UserError, match=r"1 of test \(test1\)") as error:
        without_fitted(base.assign(dataset="base"), FITTED, "The segmenter", "error")
    assert "data.leak_guard to 'exclude'" in str(error.value)


def test_an_image_that_the_other_model_was_only_chosen_on_may_validate_but_not_test(base):
    table = base.assign(dataset="base")
    table.loc[table["image_id"].isin(["valid1", "test2"]), "group_id"] = ["lesion_7", "lesion_8"]
    chosen = FITTED.assign(group_id=["lesion_8", "lesion_7"], image_id=["elsewhere1", "elsewhere2"], split="validation")
    remaining, dropped, _ = without_fitted(table, chosen, "The model of model.init", "exclude")
    assert dropped["image_id"].tolist() == ["test2"]
    assert "valid1" in set(remaining["image_id"])


def test_a_segmenter_of_other_images_changes_nothing(base):
    table = base.assign(dataset="base")
    remaining, dropped, notes = without_fitted(table, FITTED[1:], "The segmenter", "error")
    pd.testing.assert_frame_equal(remaining, table)
    assert dropped.empty
    assert notes == []

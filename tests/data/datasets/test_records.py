"""Finding a data set, and what becomes of its bad files."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets import records as records_module
from keras_skin.data.datasets.image_files import index_files
from keras_skin.data.datasets.records import (
    ExclusionKind,
    MissingData,
    bare_id,
    describe_excluded,
    excluded_rows,
    make_records,
    read_dataset,
)
from keras_skin.registry import UserError

ENTRY = readers.get("isic2016")
TRAIN = "ISBI2016_ISIC_Part1_Training"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "isic2016"
    ENTRY.info["render"](folder, 0, {"train": 12, "test": 0}, (48, 64))
    return folder


@pytest.fixture
def spoiled(stand_in, tmp_path):
    """A copy in which five images and two masks are bad in different ways."""
    folder = shutil.copytree(stand_in, tmp_path / "isic2016")
    images, masks = folder / f"{TRAIN}_Data", folder / f"{TRAIN}_GroundTruth"
    whole = (images / "ISIC_0000000.jpg").read_bytes()
    (images / "ISIC_0000000.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "ISIC_0000001.jpg").write_bytes(b"")
    (images / "ISIC_0000002.jpg").write_bytes(b"II*\0" + whole)
    cv2.imwrite(str(images / "ISIC_0000003.jpg"), np.zeros((48, 64), np.uint8))
    (images / "ISIC_0000004.jpg").unlink()
    cv2.imwrite(str(masks / "ISIC_0000005_Segmentation.png"), np.zeros((20, 30), np.uint8))
    (masks / "ISIC_0000006_Segmentation.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (masks / "ISIC_0000007_Segmentation.png").unlink()
    bmp = cv2.imencode(".bmp", cv2.imread(str(images / "ISIC_0000008.jpg")))[1]
    (images / "ISIC_0000008.jpg").write_bytes(bmp.tobytes())  # not what its name says, but good
    return folder


REASONS = {
    "ISIC_0000000": "truncated JPEG: no end marker",
    "ISIC_0000001": "empty file",
    "ISIC_0000002": "TIFF file, expected JPEG, PNG or BMP",
    "ISIC_0000003": "grey image with 1 channel, expected 8-bit RGB; mask of 64 x 48 pixels",
    "ISIC_0000004": "a row without an image",
    "ISIC_0000005": "mask of 30 x 20 pixels, but its image has 72 x 48 pixels",
    "ISIC_0000006": "mask: truncated or damaged PNG",
    "ISIC_0000007": "no mask: ISIC_0000007_Segmentation.png",
}


def test_bad_files_are_excluded_listed_and_counted(spoiled):
    records = read_dataset("isic2016", spoiled)
    assert records.table["image_id"].tolist() == [f"ISIC_{number:07d}" for number in (8, 9, 10, 11)]
    assert list(records.table.index) == [0, 1, 2, 3]
    reasons = dict(zip(records.excluded["image_id"], records.excluded["reason"], strict=True))
    assert reasons.keys() == REASONS.keys()
    for image_id, reason in REASONS.items():
        assert reasons[image_id].startswith(reason.split(";")[0]), reasons[image_id]
    assert (records.excluded["split"] == "train").all()
    assert (records.excluded["file"] != "").all()
    kinds = records.excluded["kind"].tolist()
    assert kinds == ["bad file"] * 4 + ["missing image", "bad file", "bad file", "missing mask"]


def test_bad_files_raise_with_the_whole_list(spoiled):
    with pytest.raises(UserError) as caught:
        read_dataset("isic2016", spoiled, on_bad_image="error")
    message = str(caught.value)
    assert "8 images that cannot be used" in message
    for image_id, reason in REASONS.items():
        assert f"{image_id}: {reason.split(';')[0]}" in message


def test_long_lists_are_cut_and_counted(spoiled):
    text = describe_excluded(read_dataset("isic2016", spoiled).excluded, limit=3)
    assert text.splitlines()[0] == "8 images that cannot be used:"
    assert len(text.splitlines()) == 5
    assert text.endswith("... and 5 more")


def test_without_the_check_only_what_is_absent_is_excluded(spoiled):
    records = read_dataset("isic2016", spoiled, check_images=False)
    assert records.excluded["image_id"].tolist() == ["ISIC_0000004", "ISIC_0000007"]


def test_nothing_left_is_an_error(spoiled):
    for image in (spoiled / f"{TRAIN}_Data").iterdir():
        image.write_bytes(b"")
    with pytest.raises(UserError, match=r"No image of the data set 'isic2016'.*\n.*empty file"):
        read_dataset("isic2016", spoiled)


def test_on_bad_image_is_one_of_two(stand_in):
    with pytest.raises(UserError, match="expected 'exclude' or 'error'"):
        read_dataset("isic2016", stand_in, on_bad_image="ignore")


def test_places_in_which_a_data_set_is_found(stand_in, tmp_path):
    expected = read_dataset("isic2016", stand_in.parent).table
    for data_dir, folder in ((stand_in, None), (stand_in.parent, "isic2016"), (None, str(stand_in)), (tmp_path, str(stand_in))):
        assert read_dataset("isic2016", data_dir, folder, check_images=False).table.equals(expected)
    (tmp_path / "download").symlink_to(stand_in, target_is_directory=True)
    records = read_dataset("isic2016", tmp_path, check_images=False)
    assert "isic2016: no folder of the usual name; took the only one with its layout, 'download'." in records.notes
    (tmp_path / "ISIC2016").symlink_to(stand_in, target_is_directory=True)
    assert "took the only one" not in " ".join(read_dataset("isic2016", tmp_path, check_images=False).notes)


def test_two_candidates_are_not_chosen_between(stand_in, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(stand_in, target_is_directory=True)
    with pytest.raises(MissingData, match=r"more than one folder has its layout.*one, two"):
        read_dataset("isic2016", tmp_path)


@pytest.mark.parametrize("folder", [None, "elsewhere"])
def test_a_data_set_that_is_not_there(tmp_path, folder):
    with pytest.raises(MissingData) as caught:
        read_dataset("isic2016", tmp_path, folder)
    message = str(caught.value)
    assert f"{tmp_path / (folder or 'isic2016')}: not there" in message
    for part in (f"{TRAIN}_Data", "CC-0", "challenge.isic-archive.com", "--demo"):
        assert part in message


def test_no_data_folder_at_all():
    with pytest.raises(MissingData, match=r"no data folder was given \(--data DIR or \$KERAS_SKIN_DATA\)"):
        read_dataset("isic2016", None)


def test_an_unknown_data_set():
    with pytest.raises(UserError, match="Did you mean 'isic2016'"):
        read_dataset("isic2106", Path())


def test_records_have_all_columns_in_order():
    rows = [{"image_id": "b", "image": "/b", "age": "5"}, {"image_id": "a_downsampled", "image": "/a"}]
    records = make_records("toy", rows, ["x", "y"])
    assert records.table.columns.tolist() == ["image_id", "group_id", "image", "mask", "label", "split", "dataset", "age"]
    assert records.table.to_numpy().tolist() == [
        ["a_downsampled", "a", "/a", "", "", "", "toy", ""],
        ["b", "b", "/b", "", "", "", "toy", "5"],
    ]
    with pytest.raises(ValueError, match="returned an id twice: b"):
        make_records("toy", [{"image_id": "b", "image": ""}] * 2, ["x"])


def test_bare_ids():
    assert bare_id("ISIC_0000001_downsampled") == bare_id("ISIC_0000001") == "ISIC_0000001"


def test_broken_files_are_listed_before_missing_ones():
    ids = [f"{number:02}" for number in range(30)]
    excluded = excluded_rows(ids, ExclusionKind.MISSING_IMAGE, "a row without an image")
    excluded.loc[25, ["kind", "reason"]] = ["bad file", "empty file"]
    text = describe_excluded(excluded, limit=3)
    assert text.splitlines()[1:3] == ["  25: empty file", "  00: a row without an image"]
    assert text.endswith("... and 27 more")


@pytest.fixture
def named(stand_in, tmp_path):
    """Gives a function that reads the images of a folder after one of them is renamed."""

    def read(name, classes=("a", "b")):
        folder = tmp_path / "data"
        (folder / "images").mkdir(parents=True)
        for number, path in enumerate(sorted((stand_in / f"{TRAIN}_Data").iterdir())[:3]):
            target = os.fsencode(folder / "images") + b"/" + (name if number == 0 else b"%d" % number) + b".jpg"
            shutil.copyfile(path, target)
        files = index_files([folder / "images"])
        rows = [{"image_id": item, "image": str(path), "label": "a"} for item, path in files.paths.items()]
        entry = replace(ENTRY, builder=lambda root: make_records("own", rows, classes, files.excluded()))
        monkeypatched.setattr(readers, "get", lambda _: entry)
        monkeypatched.setattr(records_module, "locate", lambda *_: (folder, []))
        return read_dataset("own", folder)

    with pytest.MonkeyPatch.context() as monkeypatched:
        yield read


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"x" * 241, "the id has 241 bytes in UTF-8, expected at most 240: rename the image"),
        ("\u00e9".encode() * 121, "the id has 242 bytes in UTF-8, expected at most 240"),
        (b"a\xff", "the path has bytes that are not UTF-8: rename the file or its folder"),
    ],
)
def test_ids_that_cannot_name_files_are_found_when_the_data_are_read(named, name, reason):
    records = named(name)
    assert sorted(records.table["image_id"]) == ["1", "2"]
    assert records.excluded["kind"].tolist() == [ExclusionKind.BAD_NAME]
    assert reason in records.excluded["reason"][0]
    records.excluded.to_csv().encode()


def test_an_id_of_240_bytes_is_used(named):
    assert len(named(b"x" * 240).table) == 3


@pytest.mark.parametrize(
    ("label", "words"), [("x" * 241, "has 241 bytes in UTF-8, expected at most 200"), ("a\ud800", r"'a\ud800' has a character")]
)
def test_classes_that_cannot_name_files_are_an_error(named, label, words):
    with pytest.raises(UserError, match="cannot be names of files") as caught:
        named(b"x", classes=("a", label))
    assert words in str(caught.value)
    str(caught.value).encode()

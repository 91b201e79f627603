"""What every reader must do, whatever the data set."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import COLUMNS, EXCLUDED_COLUMNS, MissingData, read_dataset
from keras_skin.data.splits.splits import make_splits
from keras_skin.registry import UserError

NAMES = readers.names()
INFO = {"title", "folders", "classes", "tree", "obtain", "terms", "render", "recognises"}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_its_description(name):
    info = readers.get(name).info
    assert set(info) >= INFO
    assert info["folders"][0] == name
    assert len(info["classes"]) != 1  # none where there are masks alone


def test_the_stand_in_is_read_whole(name, stand_in):
    records = read_dataset(name, stand_in(name).parent)
    table = records.table
    assert records.name == name
    assert records.classes == tuple(readers.get(name).info["classes"])
    assert tuple(table.columns[: len(COLUMNS)]) == COLUMNS
    assert tuple(records.excluded.columns) == EXCLUDED_COLUMNS
    assert records.excluded.empty
    assert table["image_id"].is_unique
    assert table["image_id"].is_monotonic_increasing
    assert list(table.index) == list(range(len(table)))
    assert set(table["label"]) <= {*records.classes, ""}
    assert table["label"].nunique() > 1 or not records.classes
    assert set(table["split"]) <= {"", "train", "validation", "test"}
    assert (table["dataset"] == name).all()
    assert (table["group_id"] != "").all()
    assert table.map(lambda value: isinstance(value, str)).to_numpy().all()
    assert f"{name}: read from {stand_in(name)}." in records.notes


def test_images_are_8_bit_rgb_and_masks_binary_and_of_their_size(name, stand_in):
    for image_file, mask_file in read_dataset(name, stand_in(name)).table[["image", "mask"]].itertuples(index=False):
        image = cv2.imread(image_file, cv2.IMREAD_UNCHANGED)
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
        if mask_file:
            mask = cv2.imread(mask_file, cv2.IMREAD_GRAYSCALE)
            assert mask.shape == image.shape[:2]
            assert set(np.unique(mask)) == {0, 255}


def test_two_passes_are_equal(name, stand_in):
    first, second = read_dataset(name, stand_in(name)), read_dataset(name, stand_in(name))
    assert first.table.equals(second.table)
    assert first.notes == second.notes


@pytest.mark.parametrize("scheme", ["official", "stratified", "kfold"])
def test_no_group_crosses_a_split(name, stand_in, scheme):
    records = read_dataset(name, stand_in(name), check_images=False)
    if scheme == "official" and not records.table["split"].all():
        with pytest.raises(UserError, match="in no official split"):
            make_splits(records.table, scheme)
        return
    split = make_splits(records.table, scheme, validation=0.25, test=0.25, folds=3, classes=records.classes)
    assert split.groupby(records.table["group_id"]).nunique().max() == 1
    assert set(split) >= {"train", "validation"}


def test_a_wrong_folder_prints_the_expected_tree_and_what_was_found(name, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    entry = readers.get(name)
    info = entry.info
    for read in (
        lambda: entry.builder(tmp_path),
        lambda: read_dataset(name, tmp_path),
        lambda: read_dataset(name, None, str(tmp_path)),
    ):
        with pytest.raises(MissingData) as caught:
            read()
        message = str(caught.value)
        for part in ("holiday.jpg", info["tree"].strip().splitlines()[0], info["obtain"], info["terms"], "--demo"):
            assert part in message


def test_drawing_is_a_pure_function_of_the_seed(name, tmp_path):
    render = readers.get(name).info["render"]
    pictures = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        render(tmp_path / folder, seed, None, (48, 64))
        table = read_dataset(name, None, str(tmp_path / folder)).table
        pictures.append([cv2.imread(file).tobytes() for file in table["image"]])
        assert "SYNTHETIC" in (tmp_path / folder / "SYNTHETIC.txt").read_text()
    assert pictures[0] == pictures[1]
    assert all(one != other for one, other in zip(pictures[0], pictures[2], strict=True))


def test_drawing_overwrites_nothing(name, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        readers.get(name).info["render"](tmp_path, 0, None, (48, 64))
    assert [item.name for item in tmp_path.iterdir()] == ["mine.txt"]


def test_drawing_refuses_unknown_names(name, tmp_path):
    with pytest.raises(UserError, match="nonsense=1"):
        readers.get(name).info["render"](tmp_path / "new", 0, {"nonsense": 1}, (48, 64))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("column", "reason"), [("image", "a row without an image"), ("mask", "no mask")])
def test_a_file_that_is_not_there_is_listed(name, copy_of, column, reason):
    folder = copy_of(name)
    before = read_dataset(name, folder).table
    if not before[column][0]:
        pytest.skip(f"{name} has no {column} files")
    if (name, column) == ("ham10000", "mask"):
        pytest.skip("masks are an extra of ham10000: an image without one is used")
    if (name, column) == ("isic2018_task1", "image"):
        reason = "a mask without an image"  # there is no table
    Path(before[column][0]).unlink()
    records = read_dataset(name, folder)
    assert records.excluded["image_id"].tolist() == [before["image_id"][0]]
    assert records.excluded["reason"][0].startswith(reason)
    assert len(records.table) == len(before) - 1
    with pytest.raises(UserError, match="1 image that cannot be used"):
        read_dataset(name, folder, on_bad_image="error")


def test_an_image_without_a_row_is_listed(name, copy_of):
    folder = copy_of(name)
    image = Path(read_dataset(name, folder, check_images=False).table["image"][0])
    (image.parent / f"STRAY{image.suffix}").write_bytes(image.read_bytes())
    (image.parent / f"._STRAY{image.suffix}").write_bytes(b"resource fork")
    excluded = read_dataset(name, folder, check_images=False).excluded
    assert list(excluded["image_id"]) == ["STRAY"]
    assert excluded["reason"][0].startswith("no mask" if name == "isic2018_task1" else "an image without a row in")

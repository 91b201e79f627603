"""What a name means: a reader, a folder, or nothing that is known."""

import shutil

import pytest

from keras_skin.checking.places import resolve, siblings
from keras_skin.data.datasets.records import MissingData
from keras_skin.registry import UserError


def test_a_reader_or_a_folder(stand_ins, tmp_path):
    assert resolve("isic2016", str(stand_ins)).folder == stand_ins / "isic2016"
    shutil.copytree(stand_ins / "isic2017", tmp_path / "mine")
    match = resolve("mine", str(tmp_path))
    assert (match.reader.name, match.folder, match.name) == ("isic2017", tmp_path / "mine", "isic2017 (mine)")
    assert resolve(str(tmp_path / "mine"), None).reader.name == "isic2017"


def test_what_is_unknown_gets_a_suggestion(stand_ins):
    with pytest.raises(UserError, match=r"no data set 'isic2061'\. Did you mean 'isic201[679]'"):
        resolve("isic2061", str(stand_ins))
    with pytest.raises(UserError, match="does not exist"):
        resolve("isic20166", str(stand_ins / "nowhere"))
    with pytest.raises(UserError, match="--as NAME"):
        resolve("ISBI2016_ISIC_Part1_Training_Data", str(stand_ins / "isic2016"))
    with pytest.raises(UserError, match="no data set 'isic20l6'"):
        resolve("isic2016", str(stand_ins), "isic20l6")
    with pytest.raises(MissingData, match="ISIC-2017_Training_Data"):
        resolve("isic2016", str(stand_ins), "isic2017")


def test_a_folder_of_two_layouts_must_be_named(stand_ins, tmp_path):
    both = shutil.copytree(stand_ins / "isic2016", tmp_path / "both")
    shutil.copytree(stand_ins / "isic2017", both, dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"layout of isic2016 and of isic2017.*--as isic2016"):
        resolve("both", str(tmp_path))
    assert resolve("both", str(tmp_path), "isic2017").reader.name == "isic2017"


def test_siblings_are_the_other_data_sets(stand_ins, tmp_path):
    root = shutil.copytree(stand_ins, tmp_path / "data")
    (root / "papers").mkdir()
    shutil.copytree(stand_ins / "isic2016", root / "copy")
    place = resolve("isic2016", str(root))
    assert [other.name for other in siblings(place, str(root))] == ["isic2016 (copy)", "isic2017"]
    assert siblings(place, None) == []

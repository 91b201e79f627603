"""Image files that vanish or change while a run uses them."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin import workflow
from keras_skin.data.images.digests import file_digests
from keras_skin.data.pipeline import batches
from keras_skin.experiment import load_experiment
from keras_skin.registry import UserError
from keras_skin.training.errors import TrainingInterrupted
from keras_skin.workflow.changed_files import FilesChanged, unchanged_files


@pytest.fixture
def table(tmp_path):
    files = [str(tmp_path / f"{name}.png") for name in "abc"]
    for number, file in enumerate(files):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file)
    file_digests(files)
    return pd.DataFrame({"image_id": list("abc"), "image": files, "mask": "", "label": ""})


def read_all(table):
    for _ in batches.evaluation_data(table, (), (8, 8), ["image"], [], 2):
        pass


def test_a_file_that_vanished_is_a_sentence(table):
    with pytest.raises(FilesChanged) as caught, unchanged_files(table):  # noqa: PT012
        os.unlink(table["image"][1])
        read_all(table)
    assert str(caught.value).splitlines() == [
        "1 image file vanished or changed while the run used them:",
        f"  {table['image'][1]}: it cannot be read any more",
        "Put the original files back and resume the run.",
    ]


def test_a_file_that_is_damaged_meanwhile_is_a_sentence(table):
    with pytest.raises(FilesChanged, match=r"c\.png: its content changed"), unchanged_files(table):  # noqa: PT012
        with open(table["image"][2], "wb") as file:
            file.write(b"no image")
        read_all(table)


def test_a_file_that_changed_is_an_error_though_it_can_be_read(table):
    with pytest.raises(FilesChanged, match=r"a\.png: its content changed"), unchanged_files(table):  # noqa: PT012
        Image.fromarray(np.full((8, 9, 3), 200, np.uint8)).save(table["image"][0])
        read_all(table)


def test_a_file_that_was_only_touched_is_none(table):
    with unchanged_files(table):
        os.utime(table["image"][0], ns=(1, 1))
        os.unlink(table["image"][1])  # nothing needed it any more


@pytest.mark.parametrize("error", [UserError("a sentence of its own"), TrainingInterrupted(2, None, 1, 1, 2, 2)])
def test_sentences_stay_what_they_are(table, error):
    with pytest.raises(type(error)) as caught, unchanged_files(table):  # noqa: PT012
        os.unlink(table["image"][0])
        raise error
    assert caught.value is error


def test_other_errors_stay_what_they_are(table):
    with pytest.raises(ZeroDivisionError), unchanged_files(table):
        raise ZeroDivisionError


def test_the_folder_is_kept_and_the_sentence_says_how_to_resume(table, tmp_path, monkeypatch):
    def execute(*arguments, **settings):
        with unchanged_files(table):
            os.unlink(table["image"][0])
            read_all(table)

    monkeypatch.setattr(workflow, "execute", execute)
    with pytest.raises(UserError) as caught:
        workflow.start(load_experiment("jrl_ph2"), "own", tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert f"Resume it: python -m keras_skin.run --resume {folder}" in str(caught.value)
    assert (folder / "experiment.json").is_file()

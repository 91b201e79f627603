from pathlib import Path

from PIL import Image

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.originals import CHOICES, find_originals
from keras_skin.experiment.components import DatasetSettings


def experiment(**test):
    return {"data": {"train": {"name": "isic2016"}, "test": {"name": "ph2", **test}, "external": [], "extra_train": []}}


def test_files_of_rendered_data_sets_are_found_and_marked_as_synthetic(tmp_path):
    readers.get("ph2").info["render"](tmp_path / "ph2", seed=0)
    readers.get("isic2016").info["render"](tmp_path / "isic2016", seed=0, counts={"train": 2, "test": 2})
    originals = find_originals(experiment(), [("ph2", "IMD003"), ("isic2016", "ISIC_0000000")], tmp_path)
    assert originals.synthetic
    assert originals.problems == ()
    assert {name for name, _ in originals.files} == {"ph2", "isic2016"}
    for image, mask in originals.files.values():
        with Image.open(image) as picture, Image.open(mask) as outline:
            assert picture.size == outline.size
    (tmp_path / "isic2016" / "SYNTHETIC.txt").unlink()
    assert not find_originals(experiment(), [("isic2016", "ISIC_0000000")], tmp_path).synthetic


def test_a_folder_of_its_own_is_looked_into_as_the_experiment_says(tmp_path):
    readers.get("ph2").info["render"](tmp_path / "elsewhere", seed=0)
    assert find_originals(experiment(), [("ph2", "IMD003")], tmp_path / "empty").problems
    originals = find_originals(experiment(folder="elsewhere", labels=["benign"], optional=True), [("ph2", "IMD003")], tmp_path)
    assert originals.problems == ()
    assert len(originals.files) > 3


def test_every_setting_of_a_data_set_is_known():
    """A setting that is none of a reader's arguments must not be passed to it."""
    assert set(CHOICES) == set(DatasetSettings.model_fields)


def test_missing_data_are_reported_in_a_line_each(tmp_path):
    originals = find_originals(experiment(), [("ph2", "IMD003"), ("isic2016", "ISIC_0000000")], tmp_path)
    assert len(originals.problems) == 2
    assert all("\n" not in problem for problem in originals.problems)
    assert originals.files == {}
    assert len(find_originals(experiment(), [("ph2", "IMD003")], None).problems) == 1


def test_images_that_the_data_set_has_not_are_named(tmp_path):
    readers.get("ph2").info["render"](tmp_path / "ph2", seed=0)
    originals = find_originals(experiment(), [("ph2", "IMD003"), ("ph2", "IMD998"), ("ph2", "IMD999")], tmp_path)
    assert originals.problems == (f"2 images of ph2 are not in {tmp_path / 'ph2'}, the first is IMD998.",)


def test_real_images_are_found(real_data):
    originals = find_originals(experiment(), [("isic2016", "ISIC_0000000")], real_data)
    assert not originals.synthetic
    image, mask = originals.files["isic2016", "ISIC_0000000"]
    assert (Path(image).name, Path(mask).name) == ("ISIC_0000000.jpg", "ISIC_0000000_Segmentation.png")

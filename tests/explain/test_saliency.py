"""tf-explain through the view: every method finds the region, on images of any shape and models of several inputs."""

import keras
import numpy as np
import pytest

from keras_skin.explain.saliency import METHODS, Saliency
from keras_skin.explain.samples import ExplainSample
from keras_skin.registry import UserError

SIZE = (24, 40)  # not square: tf-explain's occlusion confuses rows and columns there
REGION = np.s_[2:8, 26:36]


@pytest.fixture(scope="module")
def model():
    """Class 1 if the region is bright; metadata shift both logits."""
    image, metadata = keras.Input((*SIZE, 3), name="image"), keras.Input((2,), name="metadata")
    label = keras.layers.Dense(2, name="dense")(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image)))
    kernel = np.zeros((*SIZE, 3, 2), "float32")
    kernel[REGION][..., 1] = 6 / (6 * 10 * 3)
    model = keras.Model({"image": image, "metadata": metadata}, {"label": keras.layers.Add(name="label")([label, metadata])})
    model.get_layer("dense").set_weights([kernel.reshape(-1, 2), np.array([2, 0], "float32")])
    return model


@pytest.fixture(scope="module")
def sample():
    image = np.random.default_rng(0).uniform(80, 120, (*SIZE, 3)).astype("float32")
    image[REGION] += 130
    return ExplainSample("a", {"image": image, "metadata": np.array([0.5, 0.0], "float32")})


def test_every_method_finds_the_region(model, sample):
    background = np.full((2, *SIZE, 3), 100, "float32")
    maps = Saliency(model, METHODS, background)(sample, 1)
    assert tuple(maps) == METHODS
    for name, map_ in maps.items():
        assert map_.shape == SIZE
        assert map_.dtype == np.float32
        assert map_.min() >= 0
        inside = map_[REGION].sum() / map_.sum()
        assert inside > (0.55 if name == "occlusion" else 0.99), name  # patches of 4 pixels reach over the region's edge


def test_occlusion_is_the_fall_of_the_probability_under_a_patch(model, sample):
    map_ = Saliency(model, ["occlusion"])(sample, 1)["occlusion"]
    covered = sample.inputs["image"].copy()
    covered[4:8, 28:32] = 127.5  # a patch of the grid: 8 rows of grey lie above the image on its square
    images = np.stack([sample.inputs["image"], covered])
    metadata = np.repeat(sample.inputs["metadata"][None], 2, axis=0)
    before, after = keras.ops.convert_to_numpy(keras.ops.softmax(model({"image": images, "metadata": metadata})["label"]))[:, 1]
    assert before > after
    assert map_[5:7, 29:31].mean() == pytest.approx(before - after, rel=0.2)  # enlarged, it mixes with its neighbours


def test_noise_is_seeded(model, sample):
    first, second = (Saliency(model, ["smoothgrad"], seed=3)(sample, 1)["smoothgrad"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_cannot_be_explained_is_refused(model):
    with pytest.raises(UserError, match="Did you mean 'smoothgrad'"):
        Saliency(model, ["smooth_grad"])
    with pytest.raises(UserError, match="some training images"):
        Saliency(model, ["image_shap"])
    image = keras.Input((8, 8, 3), name="image")
    with pytest.raises(UserError, match="no output 'label'"):
        Saliency(keras.Model({"image": image}, {"mask": keras.layers.Conv2D(1, 1)(image)}), ["occlusion"])

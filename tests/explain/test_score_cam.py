"""Score-CAM against a loop over channels, one masked image at a time."""

import cv2
import keras
import numpy as np
import pytest

from keras_skin.explain.score_cam import ScoreCAM
from keras_skin.registry import UserError

SIZE = (8, 12)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="cam_features")(
        keras.layers.Rescaling(1 / 255)(image)
    )
    flat = keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(x))
    mask = keras.layers.UpSampling2D(2)(keras.layers.Conv2D(1, 1, name="small_mask")(x))
    return keras.Model({"image": image}, {"label": keras.layers.Dense(3, name="label")(flat), "mask": mask})


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (3, *SIZE, 3)).astype("float32")


def reference(model, image, index):
    view = keras.Model(model.input, model.get_layer("cam_features").output)
    features = np.asarray(view({"image": image[None]}))[0]
    scores = []
    for k in range(features.shape[-1]):
        plane = features[..., k]
        spread = plane.max() - plane.min()
        mask = cv2.resize((plane - plane.min()) / spread if spread else plane * 0, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        scores.append(float(model({"image": (image * mask[..., None])[None]})["label"][0, index]))
    weights = np.exp(scores - np.max(scores))
    return np.maximum((features * weights / weights.sum()).sum(axis=-1), 0)


def test_equals_the_loop(model, images):
    maps = ScoreCAM(model)({"image": images}, [0, 1, 2])
    for map_, image, index in zip(maps, images, (0, 1, 2), strict=True):
        np.testing.assert_allclose(map_, reference(model, image, index), rtol=1e-3, atol=1e-5)


def test_the_predicted_class_of_the_whole_image_is_the_default(model, images):
    predicted = np.argmax(model({"image": images})["label"], axis=1)
    cam = ScoreCAM(model)
    np.testing.assert_allclose(cam({"image": images}), cam({"image": images}, predicted), rtol=1e-5)
    np.testing.assert_allclose(cam({"image": images})[1:2], cam({"image": images[1:2]}), rtol=1e-4, atol=1e-6)


def test_few_channels_are_the_strongest(model, images):
    features = np.asarray(keras.Model(model.input, model.get_layer("cam_features").output)({"image": images[:1]}))[0]
    strongest = features.max(axis=(0, 1)).argmax()
    np.testing.assert_allclose(ScoreCAM(model, channels=1)({"image": images[:1]})[0], features[..., strongest], rtol=1e-5)


def test_masks_are_explained_too_and_mistakes_are_named(model, images):
    assert ScoreCAM(model, output="mask")({"image": images}).shape == (3, 4, 6)
    with pytest.raises(UserError, match="cam_feature"):
        ScoreCAM(model, "cam_feature")

"""Enlargement against OpenCV, Pillow and loops; the learned one by what it learns."""

import cv2
import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from keras_skin.layers.enlargement import INTERPOLATIONS, Enlargement, LearnedEnlargement, enlarge

PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
}


def picture(height: int = 10, width: int = 14, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (1, height, width, 1)).astype("float32")


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_against_pillow(interpolation: str) -> None:
    image = picture()
    expected = np.asarray(Image.fromarray(image[0, :, :, 0]).resize((28, 20), PILLOW[interpolation]))
    np.testing.assert_allclose(ops.convert_to_numpy(enlarge(image, interpolation))[0, :, :, 0], expected, atol=2e-6)


def test_bilinear_against_opencv() -> None:
    image = picture()
    expected = cv2.resize(image[0], (28, 20), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ops.convert_to_numpy(enlarge(image, "bilinear"))[0, :, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_layer_scales_and_clips(interpolation: str) -> None:
    image = np.zeros((1, 8, 8, 3), "float32")
    image[:, :, 4:] = 255
    result = ops.convert_to_numpy(Enlargement(interpolation)(image))
    assert result.shape == (1, 16, 16, 3)
    assert result.min() == 0
    assert result.max() == 1
    np.testing.assert_allclose(ops.convert_to_numpy(Enlargement(interpolation)(np.full((1, 4, 6, 3), 51.0))), 0.2, rtol=1e-5)


def test_unknown_interpolation_is_refused() -> None:
    with pytest.raises(ValueError, match="'nearest', expected one of bilinear"):
        Enlargement("nearest")


def test_learned_begins_as_bicubic() -> None:
    images = 255 * np.repeat(picture(), 3, axis=-1)
    expected = ops.convert_to_numpy(Enlargement("bicubic")(images))
    np.testing.assert_allclose(ops.convert_to_numpy(LearnedEnlargement()(images)), expected, atol=1e-6)


def test_learned_puts_channels_where_the_pixels_belong() -> None:
    layer = LearnedEnlargement(features=2)
    layer.build((None, 4, 6, 3))
    layer.biases[2].assign(np.arange(12) / 100)
    images = np.full((1, 4, 6, 3), 127.5, "float32")
    result = ops.convert_to_numpy(layer(images))
    for row in range(8):
        for column in range(12):
            for channel in range(3):
                expected = 0.5 + (6 * (row % 2) + 3 * (column % 2) + channel) / 100
                assert result[0, row, column, channel] == pytest.approx(expected, abs=1e-6)


def striped() -> np.ndarray:
    stripes = 255.0 * (np.arange(16) // 2 % 2)
    return np.broadcast_to(stripes[None, None, :, None], (2, 16, 16, 3)).astype("float32")


def test_learned_learns_to_restore_halved_images() -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, LearnedEnlargement()(image))
    model.compile(keras.optimizers.Adam(0.01), loss="mse", loss_weights=0.0)
    target = np.zeros((2, 32, 32, 3), "float32")
    losses = [float(model.train_on_batch(striped(), target)) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert float(model.test_on_batch(striped(), target)) == 0


def test_learned_is_a_target_through_which_no_gradient_flows() -> None:
    """A loss on its result changes nothing of what one step of its own loss does."""

    def step(weight: float) -> list[np.ndarray]:
        keras.utils.set_random_seed(0)
        image = keras.Input((16, 16, 3))
        layer = LearnedEnlargement()
        model = keras.Model(image, layer(image))
        model.compile(keras.optimizers.SGD(0.1), loss="mse", loss_weights=weight)
        model.train_on_batch(striped(), np.zeros((2, 32, 32, 3), "float32"))
        return layer.get_weights()

    for alone, beside in zip(step(0.0), step(1.0), strict=True):
        np.testing.assert_array_equal(alone, beside)

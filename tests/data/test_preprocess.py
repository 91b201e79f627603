"""Pre-processing against NumPy, and the same eagerly, inside tf.data and in an exported graph."""

import numpy as np
import pytest
import tensorflow as tf

from keras_skin.data import preprocess
from keras_skin.registry import UserError

IMAGE = np.random.default_rng(0).uniform(0, 255, (24, 32, 3)).astype(np.float32) * np.float32([1.0, 0.7, 0.5])


def test_shades_of_grey_against_numpy():
    scaled = IMAGE.astype(np.float64) / 255
    light = np.array([np.mean(scaled[..., channel] ** 6) ** (1 / 6) for channel in range(3)])
    light /= np.sqrt(np.sum(light**2))
    expected = np.clip(IMAGE / (light * np.sqrt(3)), 0, 255)
    np.testing.assert_allclose(preprocess.get("shades_of_grey").builder()(tf.constant(IMAGE)), expected, rtol=1e-4)


def test_grey_image_and_white_light_stay_as_they_are():
    grey = np.repeat(IMAGE[..., :1], 3, axis=-1)
    np.testing.assert_allclose(preprocess.get("shades_of_grey").builder()(tf.constant(grey)), grey, rtol=1e-5)
    black = tf.zeros((4, 4, 3))
    np.testing.assert_array_equal(preprocess.get("shades_of_grey").builder()(black), black)


def test_power_below_one_is_refused():
    with pytest.raises(UserError, match="power is 0"):
        preprocess.get("shades_of_grey").builder(power=0)


@pytest.mark.parametrize("name", preprocess.names())
def test_same_eagerly_in_tf_data_and_exported(name, tmp_path):
    step = preprocess.get(name).builder()
    eager = step(tf.constant(IMAGE)).numpy()
    assert eager.shape == IMAGE.shape
    assert eager.dtype == np.float32
    assert eager.min() >= 0
    assert eager.max() <= 255
    (in_pipeline,) = tf.data.Dataset.from_tensors(IMAGE).map(step)
    module = tf.Module()
    module.serve = tf.function(step, input_signature=[tf.TensorSpec((None, None, 3), tf.float32)])
    tf.saved_model.save(module, str(tmp_path))
    exported = tf.saved_model.load(str(tmp_path)).serve(IMAGE)
    np.testing.assert_allclose(in_pipeline, eager, atol=1e-4)
    np.testing.assert_allclose(exported, eager, atol=1e-4)

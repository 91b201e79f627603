"""Attention maps against the weights that they are computed from."""

import cv2
import keras
import numpy as np
import pytest

from keras_skin.explain.attention import attention_maps, attention_sheet, has_attention
from keras_skin.models.tdbn import TDBN


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return TDBN(image_size=(64, 96), classes=3, backbone="resnet18", feed_forward=16, dropout=0.0)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (3, 64, 96, 3)).astype("float32")
    return {"image": image, "segmented_image": image * (image[..., :1] > 128)}


def test_a_map_is_each_positions_contribution_to_all_tokens(model, inputs):
    weights = np.asarray(keras.Model(model.input, model.get_layer("cross_attention").output[1])(inputs, training=False), float)
    batch, heads, tokens, _ = weights.shape
    assert tokens == 2 * 3
    expected = np.zeros((batch, 2, 3))
    for image in range(batch):
        for head in range(heads):
            for query in range(tokens):
                for key in range(tokens):
                    expected[image, key // 3, key % 3] += weights[image, head, query, key] / heads / tokens * tokens
    maps = attention_maps(model, inputs, batch_size=2)
    np.testing.assert_allclose(maps, expected, rtol=1e-4)
    assert maps.mean(axis=(1, 2)) == pytest.approx(np.ones(3), abs=1e-4)
    assert maps.std() > 1e-4


def test_which_models_have_attention(model):
    assert has_attention(model)
    assert not has_attention(TDBN(image_size=(64, 64), backbone="resnet18", branches="image"))


def test_the_sheet_shows_every_image(model, inputs, tmp_path):
    path = attention_sheet(model, inputs, ["a", "b", "c"], tmp_path / "sheet.png", synthetic=True)
    sheet = cv2.imread(str(path))
    assert sheet.shape[1] > 4 * 320
    assert sheet.std() > 20

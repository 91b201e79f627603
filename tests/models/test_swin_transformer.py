"""The Swin transformer from plain layers computes what KerasHub's does."""

from __future__ import annotations

import keras_hub
import numpy as np
import pytest

from keras_skin.models.swin_transformer import SwinTransformer

SMALL = SwinTransformer(8, (2, 2, 1), (1, 2, 4), 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer 'attn'", "ignore:Layer 'stage")
def test_the_weights_of_keras_hub_give_its_features() -> None:
    reference = keras_hub.models.SwinTransformerBackbone(
        image_shape=(64, 64, 3), embed_dim=8, depths=[2, 2, 1], num_heads=[1, 2, 4], window_size=4
    )
    generator = np.random.default_rng(0)
    for variable in reference.weights:
        variable.assign(generator.normal(size=variable.shape) * 0.2)
    model = SMALL.build((64, 64, 3))
    assert model.count_params() == reference.count_params()
    SMALL.set_weights(model, reference)
    images = generator.normal(size=(2, 64, 64, 3)).astype("float32")
    expected = reference.predict_on_batch(images)
    np.testing.assert_allclose(model.predict_on_batch(images).reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_each_stage_has_half_the_size_and_twice_the_features() -> None:
    model = SMALL.build((48, 32, 3))
    shapes = [model.get_layer(f"stage_{number}").output.shape[1:] for number in (1, 2, 3)]
    assert shapes == [(12, 8, 8), (6, 4, 16), (3, 2, 32)]


def test_blocks_are_left_out_in_training_only() -> None:
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    model = SwinTransformer(4, (1, 1), (1, 1), 4, drop_path=0.9).build((32, 32, 3))
    shown = {np.asarray(model(images, training=False)).tobytes() for _ in range(2)}
    trained = {np.asarray(model(images, training=True)).tobytes() for _ in range(8)}
    assert len(shown) == 1
    assert len(trained) > 1

"""Networks for metadata: widths, activations, and that they see every column."""

import keras
import numpy as np
import pytest

from keras_skin.layers.metadata_networks import METADATA_NETWORKS


@pytest.mark.parametrize("name", METADATA_NETWORKS)
def test_every_column_matters(name: str) -> None:
    keras.utils.set_random_seed(0)
    metadata = keras.Input((5,))
    model = keras.Model(metadata, METADATA_NETWORKS[name](metadata))
    assert model.output.shape == (None, 512)
    rows = np.concatenate([np.full((1, 5), 0.5), 0.5 + np.eye(5)]).astype("float32")
    result = model.predict_on_batch(rows)
    assert (np.abs(result[1:] - result[0]).max(axis=1) > 1e-4).all()


def test_dense_has_the_published_layers() -> None:
    metadata = keras.Input((81,))
    model = keras.Model(metadata, METADATA_NETWORKS["dense"](metadata))
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in layers] == [64, 128, 256, 512]
    assert [layer.activation.__name__ for layer in layers] == ["relu", "relu", "relu", "linear"]


def test_weighted_scales_each_column_by_a_share() -> None:
    metadata = keras.Input((3,))
    model = keras.Model(metadata, METADATA_NETWORKS["weighted"](metadata))
    parts = keras.Model(metadata, [model.get_layer("metadata_weights").output, model.get_layer("metadata_weighted").output])
    rows = np.array([[1.0, -2.0, 0.0]], "float32")
    weights, scaled = parts.predict_on_batch(rows)
    assert ((weights > 0) & (weights < 1)).all()
    np.testing.assert_allclose(scaled, rows * weights, rtol=1e-6)

"""The classification baseline: borrowed weights, feature layers and messages."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.models.resnet50 import ResNet50
from keras_skin.registry import UserError


def test_feature_layers_and_fused_normalisations() -> None:
    model = ResNet50(image_size=(32, 32))
    sizes = [model.get_layer(f"encoder_{level}").output.shape[1:] for level in range(1, 6)]
    assert sizes == [(16, 16, 64), (8, 8, 256), (4, 4, 512), (2, 2, 1024), (1, 1, 2048)]
    assert model.get_layer("cam_features").output.shape == (None, 1, 1, 2048)
    normalisations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(normalisations) == 53
    assert {type(layer) for layer in normalisations} == {BatchNormalization}


@pytest.mark.slow
def test_image_net_weights_are_loaded_and_their_scaling_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file in the place of the download: the features are those of Keras' model on Keras' pre-processing."""
    from keras.src.legacy.saving import legacy_h5_format
    from keras.src.utils import file_utils

    keras.utils.set_random_seed(0)
    reference = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, reference)
    monkeypatch.setattr(file_utils, "get_file", lambda *arguments, **named: str(path))
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    model = ResNet50(image_size=(32, 32), weights="imagenet")
    result = keras.Model(model.input, model.get_layer("cam_features").output)({"image": image}, training=False)
    expected = reference(keras.applications.resnet50.preprocess_input(image.copy()), training=False)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_failed_download_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.utils import file_utils

    def download(*arguments: object, **named: object) -> None:
        raise Exception("URL fetch failure on https://example.org/resnet50.h5: None -- no route")

    monkeypatch.setattr(file_utils, "get_file", download)
    with pytest.raises(UserError, match=r"no route.*put the official file resnet50_weights.*null to start from random"):
        ResNet50(image_size=(32, 32), weights="imagenet")


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"classes is 1"):
        ResNet50(image_size=(32, 32), classes=1)
    with pytest.raises(UserError, match=r"image_size is 16x64"):
        ResNet50(image_size=(16, 64))
    with pytest.raises(UserError, match=r"imagenette does not exist"):
        ResNet50(image_size=(32, 32), weights="imagenette")

"""The light classifier: where its parameters are, what the aggregation sees, its weights and its messages."""

from __future__ import annotations

from pathlib import Path

import conformance
import keras
import keras_hub
import numpy as np
import pytest

from keras_skin.models.backbones import BACKBONES, build_backbone
from keras_skin.models.msfa_resnet18 import MSFAResNet18
from keras_skin.registry import UserError


def test_published_parameters() -> None:
    whole, plain = MSFAResNet18().count_params(), MSFAResNet18(aggregation="none").count_params()
    assert whole == pytest.approx(11.5e6, rel=0.01)
    assert 0 < whole - plain < 0.3e6


def test_grids_need_no_more_parameters() -> None:
    grid = MSFAResNet18(pooling="grid")
    assert grid.count_params() == MSFAResNet18().count_params()
    assert grid.get_layer("multi_scale_grid_4_cells").output.shape == (None, 4, 4, 512)
    assert grid.get_layer("multi_scale_scales").output.shape == (None, 7, 7, 1536)


def test_feature_layers() -> None:
    model = MSFAResNet18(image_size=(224, 160))
    sizes = [model.get_layer(f"encoder_{level}").output.shape[1:] for level in range(1, 6)]
    assert sizes == [(112, 80, 64), (56, 40, 64), (28, 20, 128), (14, 10, 256), (7, 5, 512)]
    assert model.get_layer("multi_scale_scales").output.shape == (None, 7, 5, 1536)
    assert model.get_layer("cam_features").output.shape == (None, 7, 5, 512)


def test_explained_features_are_in_front_of_the_aggregation() -> None:
    """Behind it they are nearly the same everywhere: on a small map they would explain nothing."""
    model = conformance.tiny("msfa_resnet18", {})
    outputs = [model.get_layer(name).output for name in ("encoder_5", "cam_features", "multi_scale")]
    deepest, explained, aggregated = keras.Model(model.input, outputs).predict_on_batch(conformance.images(model))
    np.testing.assert_array_equal(explained, deepest)
    assert deepest.std((1, 2)).mean() > 0.01
    np.testing.assert_allclose(aggregated.std((1, 2)), 0, atol=1e-4)


@pytest.mark.slow
def test_classifier_is_one_dense_layer_on_the_mean_of_the_aggregated_map() -> None:
    for aggregation, layer in (("multi_scale", "multi_scale"), ("none", "encoder_5")):
        model = conformance.tiny("msfa_resnet18", {"aggregation": aggregation})
        kernel, bias = model.get_layer("label").get_weights()
        outputs = {"features": model.get_layer(layer).output, **model.output}
        result = keras.Model(model.input, outputs).predict_on_batch(conformance.images(model))
        np.testing.assert_allclose(result["label"], result["features"].mean((1, 2)) @ kernel + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_weights_of_the_backbone_come_from_a_file(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    source = keras_hub.models.ResNetBackbone(image_shape=(64, 64, 3), **BACKBONES["resnet18"].source.arguments)
    source.save_weights(tmp_path / "resnet18.weights.h5")
    path = str(tmp_path / "resnet18.weights.h5")
    model = MSFAResNet18(image_size=(64, 64), weights=path)
    image = keras.Input((64, 64, 3))
    backbone = keras.Model(image, build_backbone("resnet18", image, path).deepest)
    inputs = conformance.images(model)
    result = keras.Model(model.input, model.get_layer("encoder_5").output).predict_on_batch(inputs)
    np.testing.assert_allclose(result, backbone.predict_on_batch(inputs["image"]), rtol=1e-5, atol=1e-5)
    random = keras.Model(image, build_backbone("resnet18", image).deepest).predict_on_batch(inputs["image"])
    assert not np.allclose(result, random, rtol=0.1)


def test_another_backbone_keeps_the_aggregation() -> None:
    model = MSFAResNet18(image_size=(64, 64), backbone="mobilenet_v2")
    assert model.get_layer("cam_features").output.shape == (None, 2, 2, 1280)
    assert model.get_layer("multi_scale").output.shape == (None, 2, 2, 1280)


def test_mistakes_are_named() -> None:
    message = r"classes is 1, .*aggregation is 'msfa', expected one of multi_scale, none; pooling is "
    with pytest.raises(UserError, match=message + r"'max', expected one of window, grid\."):
        MSFAResNet18(classes=1, aggregation="msfa", pooling="max")

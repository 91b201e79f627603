"""The plain networks of the baselines: head, streams, segmented image, and messages."""

from __future__ import annotations

import conformance
import keras
import numpy as np
import pytest

from keras_skin.models.classifier import Classifier
from keras_skin.registry import UserError

TINY = {"image_size": (64, 64)}


def test_the_head_is_one_dense_layer_on_the_mean_of_the_map() -> None:
    model = conformance.tiny("classifier", {"dropout": 0.5})
    kernel, bias = model.get_layer("label").get_weights()
    outputs = {"features": model.get_layer("cam_features").output, **model.output}
    result = keras.Model(model.input, outputs).predict_on_batch(conformance.images(model))
    np.testing.assert_allclose(result["label"], result["features"].mean((1, 2)) @ kernel + bias, rtol=1e-4, atol=1e-4)
    assert model.get_layer("dropout").rate == 0.5
    assert model.get_layer("cam_features").output.shape == (None, 2, 2, 512)


def test_parameters_are_those_of_the_backbone_and_a_dense_layer() -> None:
    single, double = Classifier(**TINY), Classifier(**TINY, streams=2)
    backbone = single.count_params() - (512 * 7 + 7)
    assert backbone == pytest.approx(11.18e6, rel=0.001)
    assert double.count_params() == 2 * backbone + 2 * 512 * 7 + 7
    assert 22e6 < double.count_params() < 25e6, "table IV of paper 003"


def test_each_stream_has_its_own_weights() -> None:
    model = conformance.tiny("classifier", {"streams": 2})
    names = [layer.name for layer in model.layers]
    assert {"encoder_5", "stream_2_encoder_5", "streams"} <= set(names)
    outputs = [model.get_layer(name).output for name in ("encoder_5", "stream_2_encoder_5", "cam_features")]
    first, second, both = keras.Model(model.input, outputs).predict_on_batch(conformance.images(model))
    np.testing.assert_array_equal(both, np.concatenate([first, second], axis=-1))
    assert not np.allclose(first, second)


def test_streams_from_the_same_weights_do_not_stay_the_same() -> None:
    model = conformance.tiny("classifier", {"streams": 2, "dropout": 0.0})
    own = [layer for layer in model.layers if layer.weights and f"stream_2_{layer.name}" in {item.name for item in model.layers}]
    for layer in own:
        model.get_layer(f"stream_2_{layer.name}").set_weights(layer.get_weights())
    conformance.compile_for_training(model, keras.optimizers.SGD(0.01))
    model.train_on_batch(conformance.images(model), conformance.targets(model))
    assert any(
        not np.array_equal(a, b)
        for layer in own
        for a, b in zip(layer.get_weights(), model.get_layer(f"stream_2_{layer.name}").get_weights(), strict=True)
    )


def test_the_lesion_alone() -> None:
    assert list(Classifier(**TINY, segmented=True).input) == ["segmented_image"]
    assert list(Classifier(**TINY).input) == ["image"]


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"classifier model cannot be built: classes is 1, .*streams is 0, .*dropout is 1, "):
        Classifier(classes=1, streams=0, dropout=1)

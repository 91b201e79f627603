"""Explanations of every registered model: each feature layer, batches against single images, and metadata."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_skin import models
from keras_skin.explain.grad_cam import GradCAM, feature_layers
from keras_skin.explain.views import explained_output, metadata_view

FULLEST = dict(conformance.configurations())  # the last configuration of a model is the one with the most parts


def models_of(names):
    return [pytest.param(name, marks=[] if name in conformance.FAST else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", models_of(FULLEST))
def test_heat_maps(name):
    model = conformance.tiny(name, FULLEST[name])
    inputs = {key: tf.constant(value) for key, value in conformance.images(model, 2).items()}
    output = explained_output(model)
    layers = feature_layers(model)
    assert "cam_features" in layers
    index = tf.constant([0, 0] if output == "mask" else [1, 0])
    for layer in layers:
        cam = GradCAM(model, layer, output)  # computed eagerly: a graph for each model would fill the memory
        maps = cam.compute(inputs, index).numpy()
        _, height, width, _ = model.get_layer(layer).output.shape
        assert maps.shape == (2, height, width)
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all()
        alone = cam.compute({key: value[1:] for key, value in inputs.items()}, index[1:]).numpy()
        # Other batch sizes take other kernels; what cancels out to nearly nothing is rounding.
        np.testing.assert_allclose(maps[1:], alone, rtol=1e-3, atol=max(1e-4 * alone.max(), 1e-7))


@pytest.mark.parametrize("name", models_of(name for name in FULLEST if "metadata_width" in models.registry.parameters(name)))
def test_the_model_can_be_cut_before_its_metadata(name):
    model = conformance.tiny(name, FULLEST[name])
    features, head = metadata_view(model)
    inputs = conformance.images(model, 2)
    parts = keras.tree.flatten(features(inputs))
    label = head([*parts, tf.constant(inputs["metadata"])], training=False)
    np.testing.assert_allclose(label, model(inputs, training=False)["label"], rtol=1e-4, atol=1e-5)
    assert head.count_params() < model.count_params()

"""The fused batch normalisation against that of Keras, in values, gradients, statistics and training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_skin.layers.batch_normalization import BatchNormalization

needs_tensorflow = pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="the fused kernel is TensorFlow's")


def pair(**arguments: object) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Our layer and Keras', with the same random variables."""
    layers = BatchNormalization(**arguments), keras.layers.BatchNormalization(**arguments)
    generator = np.random.default_rng(0)
    weights = None
    for layer in layers:
        layer.build((None, 6, 8, 5))
        weights = weights or [generator.uniform(0.5, 2, variable.shape).astype("float32") for variable in layer.weights]
        layer.set_weights(weights)
    return layers


def features(batch: int = 3, dtype: str = "float32") -> object:
    values = np.random.default_rng(1).normal(3, 2, (batch, 6, 8, 5)).astype("float32")
    return ops.cast(ops.convert_to_tensor(values), dtype)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("arguments", [{}, {"momentum": 0.9, "epsilon": 1.001e-5}, {"scale": False}, {"center": False}])
def test_values_and_statistics_are_those_of_keras(arguments: dict, training: bool, batch: int) -> None:
    ours, theirs = pair(**arguments)
    x = features(batch)
    for _ in range(3):
        np.testing.assert_allclose(ours(x, training=training), theirs(x, training=training), atol=2e-5)
    for mine, reference in zip(ours.weights, theirs.weights, strict=True):
        assert mine.path.split("/")[-1] == reference.path.split("/")[-1]
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6, err_msg=reference.path)


def test_moving_variance_is_that_of_the_batch_without_bessel_correction() -> None:
    layer = BatchNormalization(momentum=0.0)
    x = ops.convert_to_tensor(np.array([1.0, 3.0], "float32").reshape(1, 2, 1, 1))
    layer(x, training=True)
    assert float(layer.moving_mean[0]) == pytest.approx(2)
    assert float(layer.moving_variance[0]) == pytest.approx(1)  # ((1 - 2)^2 + (3 - 2)^2) / 2; Bessel's would be 2


@needs_tensorflow
def test_the_fused_kernel_is_what_runs() -> None:
    import tensorflow as tf

    layer, _ = pair()
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(tf.TensorSpec((None, 6, 8, 5))).graph
    assert "FusedBatchNormV3" in {operation.type for operation in graph.get_operations()}


@needs_tensorflow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_gradients_are_those_of_keras(training: bool, trainable: bool) -> None:
    import tensorflow as tf

    result = []
    weights = features() * 0.1
    for layer in pair(trainable=trainable):
        x = features()
        with tf.GradientTape() as tape:
            tape.watch([x, layer.gamma.value, layer.beta.value])
            loss = tf.reduce_sum(tf.sin(layer(x, training=training)) * weights)
        result.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for mine, reference in zip(*result, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-5)


def test_a_frozen_layer_uses_and_keeps_its_moving_statistics() -> None:
    ours, theirs = pair(trainable=False)
    before = ours.get_weights()
    np.testing.assert_allclose(ours(features(), training=True), theirs(features(), training=True), atol=1e-5)
    for old, new in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_float32_variables_and_statistics(policy: str) -> None:
    ours, theirs = pair(dtype=policy)
    x = features(dtype=policy.removeprefix("mixed_"))
    result = ours(x, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(ops.cast(result, "float32"), ops.cast(theirs(x, training=True), "float32"), atol=0.05)
    for mine, reference in zip(ours.weights, theirs.weights, strict=True):
        assert keras.backend.standardize_dtype(mine.dtype) == "float32"
        np.testing.assert_allclose(mine, reference, rtol=1e-3, err_msg=reference.path)


def test_masks_and_other_ranks_go_through_keras() -> None:
    for shape, arguments in (((4, 3), {}), ((4, 5, 3), {"mask": np.arange(20).reshape(4, 5) % 3 > 0})):
        x = np.random.default_rng(2).normal(size=shape).astype("float32")
        np.testing.assert_allclose(
            BatchNormalization()(x, training=True, **arguments),
            keras.layers.BatchNormalization()(x, training=True, **arguments),
            atol=1e-6,
        )


def test_a_training_step_is_that_of_keras() -> None:
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(4, 8, 8, 3)).astype("float32"), generator.normal(size=(4, 1)).astype("float32")
    results = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 3),
                kind(),
                keras.layers.ReLU(),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(1),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1), loss="mse")
        losses = [model.train_on_batch(x, y) for _ in range(3)]
        results.append([np.array(losses), *model.get_weights()])
    for mine, reference in zip(*results, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=2e-4, atol=2e-5)

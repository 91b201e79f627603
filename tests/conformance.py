"""What every builder, layer, loss and metric must satisfy, on any backend.

The tests of tests/models, tests/layers, tests/losses and tests/metrics run these checks over everything that is registered, so
a new component gets them for free. Each check prints its time (`pytest -s`, or in the report of a failure).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_skin import losses, metrics, models

BATCH = 4
CLASSES = 2
FAST = ("dualrefnet", "jrl", "msfa_resnet18", "unet")
"""Models that are built and called in a second; those with a deep backbone take several."""


def timed(check: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(check)
    def run(*arguments: Any, **named: Any) -> None:
        start = time.perf_counter()
        check(*arguments, **named)
        print(f"\n{check.__name__} {arguments[0] if arguments else ''}: {time.perf_counter() - start:.1f} s")

    return run


@contextmanager
def precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def to_numpy(values: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_numpy, values)


# Builders


def configurations() -> list[tuple[str, dict[str, Any]]]:
    """Every registered model in each configuration that has a published parameter count, or as it is if none has."""
    return [
        (name, arguments)
        for name in models.names()
        for arguments, _ in models.get(name).info.get("published_params", ()) or (({}, None),)
    ]


def tiny(name: str, arguments: dict[str, Any]) -> keras.Model:
    """Builds the small version of a model, with the same initial weights at each call."""
    keras.utils.set_random_seed(1)
    return models.create_model(name, **{"classes": CLASSES, **models.get(name).info["tiny"], **arguments})


_shared: dict[str, keras.Model] = {}


def shared(name: str, arguments: dict[str, Any]) -> keras.Model:
    """Returns the small version of a model, for checks that do not change it: built once while it is asked for in a row."""
    key = repr((name, arguments))
    if key not in _shared:
        _shared.clear()
        _shared[key] = tiny(name, arguments)
    return _shared[key]


def predictions(model: keras.Model, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs in inference, without tracing a graph."""
    return to_numpy(model(inputs, training=False))


@functools.cache
def count_parameters(name: str, **arguments: Any) -> int:
    """Counts the parameters of a model at its full size, including moving statistics, as Keras does."""
    return models.create_model(name, **arguments).count_params()


def images(model: keras.Model, batch: int = BATCH) -> dict[str, Any]:
    """Random inputs in the range that the contract names."""
    generator = np.random.default_rng(0)
    return {
        key: generator.uniform(0, 255 if len(tensor.shape) == 4 else 1, (batch, *tensor.shape[1:])).astype("float32")
        for key, tensor in model.input.items()
    }


def targets(model: keras.Model, batch: int = BATCH) -> dict[str, Any]:
    """A target for every output: an off-centre rectangle as mask, alternating classes."""
    arrays = {}
    for key, tensor in model.output.items():
        if key.startswith("mask"):
            arrays[key] = np.zeros((batch, *tensor.shape[1:]), "float32")
            arrays[key][:, tensor.shape[1] // 4 : tensor.shape[1] // 2, tensor.shape[2] // 4 :] = 1
        elif key == "label":
            arrays[key] = np.eye(tensor.shape[-1], dtype="float32")[np.arange(batch) % tensor.shape[-1]]
        elif key == "super_resolution":
            arrays[key] = np.zeros((batch, 1), "float32")  # the model brings its own
    return arrays


def compile_for_training(model: keras.Model, optimizer: keras.optimizers.Optimizer, with_metrics: bool = False) -> None:
    kinds = {key: key.split("_aux")[0] for key in model.output}
    objectives = {"mask": "dice", "label": "categorical_crossentropy", "super_resolution": "super_resolution"}
    scores = {
        key: [metrics.get(name).builder() for name in metrics.names() if metrics.get(name).info["target"] == kind]
        for key, kind in kinds.items()
    }
    model.compile(
        optimizer,
        loss={key: losses.get(objectives[kind]).builder() for key, kind in kinds.items()},
        metrics=scores if with_metrics else None,
        jit_compile="auto",
        # TensorFlow never frees the graph of a training step: of all models they would fill the memory. Whole runs test graphs.
        run_eagerly=keras.config.backend() == "tensorflow",
    )


@timed
def check_builder_contract(name: str, arguments: dict[str, Any]) -> None:
    """Keys, shapes, dtypes; finite; an image's result does not depend on its neighbours in the batch."""
    model = shared(name, arguments)
    height, width = models.get(name).info["tiny"]["image_size"]
    assert model.input["image"].shape == (None, height, width, 3)
    assert model.output, "a model without outputs"
    for key, tensor in model.output.items():
        expected = {"label": (None, CLASSES)}.get(key, (None, height, width, 1) if key.startswith("mask") else tensor.shape)
        assert tensor.shape == expected, key
        assert tensor.dtype == "float32", key
    model.get_layer("cam_features")
    assert model.get_layer("encoder_1").output.shape[1] >= model.get_layer("encoder_2").output.shape[1]

    inputs = images(model)
    many = model.predict_on_batch(inputs)
    one = model.predict_on_batch({key: value[:1] for key, value in inputs.items()})
    for key in model.output:
        assert many[key].dtype == np.float32
        assert np.isfinite(many[key]).all()
        # Other batch sizes take other kernels: their rounding is relative to the largest logit, not to one near zero.
        np.testing.assert_allclose(many[key][:1], one[key], atol=1e-5 * max(1, np.abs(one[key]).max()), rtol=1e-5, err_msg=key)


@timed
def check_builder_round_trip(name: str, arguments: dict[str, Any], folder: Path) -> None:
    """A saved model gives the same results after loading, without `custom_objects`."""
    model = shared(name, arguments)
    path = folder / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    inputs = images(model, 2)
    expected, results = predictions(model, inputs), predictions(again, inputs)
    for key in expected:
        np.testing.assert_allclose(results[key], expected[key], atol=1e-6, err_msg=key)


@timed
def check_builder_trains(name: str, arguments: dict[str, Any]) -> None:
    """One step of gradient descent moves every variable; the loss of one batch falls within five steps."""
    model = tiny(name, arguments)
    # Its memory is the step itself, which a variable near 1 may be too coarse to show.
    optimizer = keras.optimizers.SGD(0.005, momentum=1e-6)
    compile_for_training(model, optimizer, with_metrics=True)
    inputs, expected = images(model), targets(model)
    history = [model.train_on_batch(inputs, expected, return_dict=True)]
    ineffective = biases_before_normalisation(model)
    for variable, step in zip(model.trainable_variables, optimizer.variables[2:], strict=True):
        assert np.isfinite(to_numpy(variable.value)).all(), f"{variable.path} is not finite after a step"
        if variable.path not in ineffective:
            assert (to_numpy(step.value) != 0).any(), f"{variable.path} gets no gradient"
    history += [model.train_on_batch(inputs, expected, return_dict=True) for _ in range(5)]
    assert all(np.isfinite(value) for step in history for value in step.values()), history
    assert history[-1]["loss"] < history[0]["loss"], [step["loss"] for step in history]


def biases_before_normalisation(model: keras.Model) -> set[str]:
    """Paths of biases that a batch normalisation subtracts again: their gradient is zero but for rounding."""
    return {
        layer.bias.path
        for layer in model.layers
        if getattr(layer, "bias", None) is not None
        and layer._outbound_nodes
        and all(isinstance(node.operation, keras.layers.BatchNormalization) for node in layer._outbound_nodes)
    }


@timed
def check_builder_mixed_precision(name: str, arguments: dict[str, Any], policy: str) -> None:
    """Under a half-precision policy outputs are float32 and agree roughly with float32; a training step stays finite."""
    reference = shared(name, arguments)
    with precision(policy):
        model = tiny(name, arguments)
    model.set_weights(reference.get_weights())
    inputs = images(model)
    expected = predictions(reference, inputs)
    for key, value in model.predict_on_batch(inputs).items():
        assert value.dtype == np.float32, key
        scale = np.abs(expected[key]).max() + 1e-3
        assert np.abs(value - expected[key]).max() < 0.15 * scale, key
    compile_for_training(model, keras.optimizers.SGD(0.01))
    assert np.isfinite(model.train_on_batch(inputs, targets(model), return_dict=True)["loss"])
    assert all(np.isfinite(to_numpy(variable.value)).all() for variable in model.variables)
    assert {keras.backend.standardize_dtype(variable.dtype) for variable in model.trainable_variables} == {"float32"}


@timed
def check_builder_parameters(name: str) -> None:
    """Parameter counts are the published ones within the stated tolerance."""
    info = models.get(name).info
    for arguments, published in info.get("published_params", ()):
        count = count_parameters(name, **arguments)
        assert abs(count - published) <= info.get("params_tolerance", 0.01) * published, (arguments, count, published)


# Layers


@timed
def check_layer(layer: keras.layers.Layer, inputs: Any) -> None:
    """Symbolic and eager shapes agree; configuration and weights round trip, alone and in a saved model's JSON."""
    symbolic = keras.tree.map_structure(lambda array: keras.Input(array.shape[1:]), inputs)
    promised = layer(symbolic)
    result = to_numpy(layer(inputs))
    assert tuple(promised.shape) == (None, *result.shape[1:])
    assert tuple(layer.compute_output_shape(keras.tree.map_structure(lambda array: array.shape, inputs))) == result.shape

    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    again(inputs)
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(again(inputs)), result, atol=1e-6)
    model = keras.Model(symbolic, promised)
    assert keras.models.model_from_json(model.to_json()).output.shape == promised.shape


@timed
def check_layer_mixed_precision(build: Callable[[], keras.layers.Layer], inputs: Any, policy: str) -> None:
    """Half-precision results have the compute dtype, are finite and near those of float32; variables stay float32."""
    keras.utils.set_random_seed(1)
    reference = build()
    expected = to_numpy(reference(inputs))
    with precision(policy):
        layer = build()
    result = layer(inputs)
    layer.set_weights(reference.get_weights())
    result = layer(inputs)
    assert keras.backend.standardize_dtype(result.dtype) == layer.compute_dtype == policy.removeprefix("mixed_")
    assert all(keras.backend.standardize_dtype(variable.dtype) == "float32" for variable in layer.variables)
    result = to_numpy(ops.cast(result, "float32"))
    np.testing.assert_allclose(result, expected, atol=0.03 * np.abs(expected).max())


# Losses and metrics


def perfect_and_poor(target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets of four images, logits that are right, and logits that are wrong everywhere."""
    if target == "mask":
        truth = np.zeros((BATCH, 8, 12, 1), "float32")
        for index in range(BATCH):
            truth[index, : index + 2, : index + 4] = 1
        return truth, 40 * truth - 20, 20 - 40 * truth
    if target == "super_resolution":
        pairs = np.zeros((BATCH, 2, 4, 6, 3), "float32")
        pairs[:, :, :2] = 0.75
        poor = pairs.copy()
        poor[:, 1] = 0.25
        return np.zeros((BATCH, 1), "float32"), pairs, poor
    truth = np.eye(CLASSES, dtype="float32")[np.arange(BATCH) % CLASSES]
    return truth, 20 * truth, -20 * truth


@timed
def check_loss(name: str) -> None:
    """One float32 value per image, whatever dtype arrives; perfect beats poor; extremes are finite; configuration round trips."""
    entry = losses.get(name)
    truth, perfect, poor = perfect_and_poor(entry.info["target"])
    each, mean = entry.builder(reduction=None), entry.builder()
    good, bad = to_numpy(each(truth, perfect)), to_numpy(each(truth, poor))
    assert good.shape == bad.shape == (BATCH,)
    assert good.dtype == np.float32
    assert (good < bad).all()
    assert (good >= 0).all()
    np.testing.assert_allclose(to_numpy(mean(truth, poor)), bad.mean(), rtol=1e-6)
    for dtype in ("float16", "bfloat16"):
        half = each(ops.cast(truth, dtype), ops.cast(poor, dtype))
        assert keras.backend.standardize_dtype(half.dtype) == "float32"
        np.testing.assert_allclose(to_numpy(half), bad, rtol=1e-5)
    for logit in (-1e4, 0.0, 1e4):
        for mask in (np.zeros_like(truth), np.ones_like(truth)):
            if entry.info["target"] == "mask":
                assert np.isfinite(to_numpy(each(mask, np.full_like(truth, logit)))).all()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(mean))
    assert again.get_config() == mean.get_config()
    np.testing.assert_allclose(to_numpy(again(truth, poor)), to_numpy(mean(truth, poor)))


@timed
def check_metric(name: str) -> None:
    """1 for perfect, less for poor; batches add up to the whole; resets; float32; configuration round trips."""
    entry = metrics.get(name)
    truth, perfect, poor = perfect_and_poor(entry.info["target"])

    def score(metric: keras.metrics.Metric, *batches: tuple[Any, Any]) -> float:
        metric.reset_state()
        for batch in batches:
            metric.update_state(*batch)
        result = ops.convert_to_tensor(metric.result())
        assert keras.backend.standardize_dtype(result.dtype) == "float32"
        return float(result)

    metric = entry.builder()
    assert metric.name == name
    assert np.isclose(score(metric, (truth, perfect)), 1, atol=1e-5)
    assert score(metric, (truth, poor)) < 0.5
    mixed = np.concatenate([perfect[:2], poor[2:]])
    whole = score(metric, (truth, mixed))
    assert 0 < whole < 1
    assert np.isclose(score(metric, (truth[:1], mixed[:1]), (truth[1:], mixed[1:])), whole, atol=1e-6)
    assert np.isclose(score(metric, (truth[::-1].copy(), mixed[::-1].copy())), whole, atol=1e-6)
    assert np.isclose(score(metric, (ops.cast(truth, "bfloat16"), ops.cast(mixed, "bfloat16"))), whole, atol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert again.get_config() == metric.get_config()
    assert np.isclose(score(again, (truth, mixed)), whole)

"""TDBN: equations 5 to 9 in NumPy, what is unknown stays without effect, and the ablations."""

from __future__ import annotations

from typing import Any

import conformance
import keras
import numpy as np
import pytest

from keras_skin.models.tdbn import TDBN
from keras_skin.registry import UserError

TINY = {"image_size": (64, 64), "backbone": "resnet18", "feed_forward": 32}
FIELDS = (1, 2, 3)


@pytest.fixture(scope="module")
def full() -> keras.Model:
    return conformance.tiny("tdbn", {})


def features_of(model: keras.Model, *names: str) -> keras.Model:
    return keras.Model(model.input, {name: model.get_layer(name).output for name in names})


def test_equations_5_to_9(full: keras.Model) -> None:
    """From the encoders' features to the logits, once more in NumPy."""
    generator = np.random.default_rng(0)
    encoders = {id(variable) for layer in full.layers if "encoder" in layer.name for variable in layer.weights}
    before = full.get_weights()
    for variable in full.weights:
        if id(variable) not in encoders and len(variable.shape) == 1:  # norms and biases start as ones and zeros
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    inputs = conformance.images(full, 3)
    inputs["metadata"][:, 6:] = [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    result = features_of(full, "cam_features", "cam_features_segmented", "label").predict_on_batch(inputs)
    full_weights = {layer.name: layer.get_weights() for layer in full.layers}
    full.set_weights(before)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        gamma, beta, mean, variance = full_weights[name]
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def block(x: np.ndarray, name: str) -> np.ndarray:
        return np.maximum(norm(x @ full_weights[f"{name}_dense"][0], f"{name}_norm"), 0)

    image = result["cam_features"].reshape(3, 4, 512).astype("float64")
    segmented = result["cam_features_segmented"].reshape(3, 4, 512).astype("float64")
    w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o = full_weights["cross_attention"]
    z = np.tile(b_o.astype("float64"), (3, 4, 1))
    for head in range(8):
        scores = (image @ w_q[:, head] + b_q[head]) @ (segmented @ w_k[:, head] + b_k[head]).transpose(0, 2, 1) / np.sqrt(64)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        z += weights / weights.sum(-1, keepdims=True) @ (image @ w_v[:, head] + b_v[head]) @ w_o[head]
    (w_1, b_1), (w_2, b_2) = full_weights["feed_forward_1"], full_weights["feed_forward_2"]
    z = z + np.maximum(z @ w_1 + b_1, 0) @ w_2 + b_2
    gamma, beta = full_weights["feed_forward"]
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5) * gamma + beta

    metadata = inputs["metadata"].astype("float64")
    metadata[1, [0, 3, 4, 5]] = 0
    e = metadata
    for number in (1, 2):
        kernel, bias = full_weights[f"metadata_dense_{number}"]
        e = norm(np.maximum(e @ kernel + bias, 0), f"metadata_norm_{number}")
    alpha = np.array([[1], [1], [0]])
    f = block(z.mean(1), "vision_projection") + alpha * block(alpha * e, "tabular_projection")
    kernel, bias = full_weights["label"]
    expected = block(block(f, "classifier_1"), "classifier_2") @ kernel + bias
    np.testing.assert_allclose(result["label"], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("encoder", ["dense", "transformer"])
def test_unknown_metadata_are_without_effect_to_the_last_bit(encoder: str) -> None:
    model = conformance.tiny("tdbn", {"branches": "image", "metadata_encoder": encoder})
    for variable in model.weights:
        if len(variable.shape) == 1:
            variable.assign(np.random.default_rng(0).uniform(0.5, 1.5, variable.shape))
    inputs = conformance.images(model, 4)
    inputs["metadata"][:, 6:] = [[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]
    columns = np.repeat([0, 1, 2], FIELDS)  # the field of each column
    unknown = inputs["metadata"][:, 6:][:, columns] == 0
    assert unknown.sum() == 2 + 4 + 6
    answers = []
    for value in (0.0, 0.3, -1e30, np.inf, np.nan):
        inputs["metadata"][:, :6][unknown] = value
        answers.append(model.predict_on_batch(inputs)["label"])
    assert np.isfinite(answers[0]).all()
    assert all((answer == answers[0]).all() for answer in answers)
    inputs["metadata"][:, :6][~unknown] += 1
    assert ((model.predict_on_batch(inputs)["label"] != answers[0]).any(axis=1) == [True, True, True, False]).all()


def test_a_row_without_metadata_is_judged_by_the_images_alone(full: keras.Model) -> None:
    inputs = conformance.images(full, 2)
    inputs["metadata"][0, 6:] = 0
    result = features_of(full, "vision_projection", "tabular_available", "fused").predict_on_batch(inputs)
    assert (result["tabular_available"][0] == 0).all()
    assert (result["fused"][0] == result["vision_projection"][0]).all()
    assert (result["fused"][1] != result["vision_projection"][1]).any()


def test_unknown_values_do_not_spoil_a_training_step() -> None:
    model = conformance.tiny("tdbn", {"branches": "image"})
    conformance.compile_for_training(model, keras.optimizers.SGD(0.01))
    inputs = conformance.images(model)
    inputs["metadata"][:, 6:] = [[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]
    inputs["metadata"][3, :6] = np.nan
    assert np.isfinite(model.train_on_batch(inputs, conformance.targets(model), return_dict=True)["loss"])
    assert all(np.isfinite(keras.ops.convert_to_numpy(variable.value)).all() for variable in model.trainable_variables)


def test_attention_weights_can_be_had_by_name(full: keras.Model) -> None:
    view = keras.Model(full.input, full.get_layer("cross_attention").output[1])
    weights = view.predict_on_batch(conformance.images(full, 3))
    assert weights.shape == (3, 8, 4, 4)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_query_and_value_are_of_the_image_and_key_of_the_segmented_image(full: keras.Model) -> None:
    inputs = conformance.images(full, 1)
    layer = full.get_layer("cross_attention")
    taken = layer._inbound_nodes[0].arguments
    query, value = taken.args[:2]
    assert query is value is full.get_layer("image_tokens").output
    assert taken.args[2] is full.get_layer("segmented_tokens").output
    changed = {**inputs, "segmented_image": inputs["segmented_image"][:, ::-1].copy()}
    look = features_of(full, "image_tokens", "segmented_tokens", "label")
    first, second = look.predict_on_batch(inputs), look.predict_on_batch(changed)
    assert (first["image_tokens"] == second["image_tokens"]).all()
    assert (first["segmented_tokens"] != second["segmented_tokens"]).any()
    assert (first["label"] != second["label"]).any()


def test_a_residual_around_the_attention_adds_the_images_tokens() -> None:
    model = TDBN(**TINY, attention_residual=True)
    assert model.count_params() == TDBN(**TINY).count_params()
    attended = model.get_layer("cross_attention").output[0]
    tokens, summed = model.get_layer("image_tokens").output, model.get_layer("attention_residual").output
    result = keras.Model(model.input, [tokens, attended, summed]).predict_on_batch(conformance.images(model, 2))
    np.testing.assert_allclose(result[2], result[0] + result[1], rtol=1e-5)
    assert model.get_layer("feed_forward_1").input is summed


@pytest.mark.parametrize(
    ("arguments", "inputs"),
    [
        ({}, ["image", "segmented_image"]),
        ({"branches": "image"}, ["image"]),
        ({"branches": "segmented"}, ["segmented_image"]),
        ({"branches": "segmented", "metadata_width": 4}, ["metadata", "segmented_image"]),
    ],
)
def test_ablations(arguments: dict[str, Any], inputs: list[str]) -> None:
    model = TDBN(**TINY, **arguments)
    names = {layer.name for layer in model.layers}
    assert sorted(model.input) == inputs
    assert {"encoder_1", "cam_features"} <= names
    assert ("cam_features_segmented" in names) == ("cross_attention" in names) == (len(arguments) == 0)
    assert ("fused" in names) == ("metadata" in inputs)
    assert model.output["label"].shape == (None, 7)


@pytest.mark.slow
def test_shared_encoder_gives_each_image_what_it_would_get_alone() -> None:
    shared = TDBN(**TINY, shared_encoder=True)
    separate = TDBN(**TINY)
    ours = {layer.name: layer for layer in shared.layers}
    for layer in separate.layers:
        twin = ours.get(layer.name.removeprefix("segmented_"), ours.get(layer.name))
        if layer.weights:
            layer.set_weights(twin.get_weights())
    assert shared.count_params() < 0.6 * separate.count_params()
    inputs = conformance.images(shared, 3)
    names = ("cam_features", "cam_features_segmented", "label")
    expected, result = (features_of(model, *names).predict_on_batch(inputs) for model in (separate, shared))
    for name in names:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-4, atol=1e-4 * np.abs(expected[name]).max())
    conformance.compile_for_training(shared, keras.optimizers.SGD(0.005))
    assert np.isfinite(shared.train_on_batch(inputs, conformance.targets(shared, 3), return_dict=True)["loss"])


@pytest.mark.slow
def test_published_network() -> None:
    model = TDBN(metadata_width=20, metadata_fields=(1, 3, 13))
    assert model.get_layer("cam_features").output.shape == (None, 7, 7, 1920)
    assert model.get_layer("image_tokens").output.shape == (None, 49, 1920)
    assert model.get_layer("cross_attention").output[1].shape == (None, 8, 49, 49)
    encoders = 2 * 18_321_984
    attention, step = 4 * (1920 * 1920 + 1920), 2 * 1920 * 2048 + 2048 + 1920 + 2 * 1920
    metadata = 20 * 128 + 128 + 128 * 128 + 128 + 2 * 4 * 128
    projections = 1920 * 1920 + 128 * 1920 + 2 * 4 * 1920
    head = 1920 * 512 + 4 * 512 + 512 * 128 + 4 * 128 + 128 * 7 + 7
    assert model.count_params() == encoders + attention + step + metadata + projections + head
    assert model.count_params() == pytest.approx(64e6, rel=0.01)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"classes is 1.*branches is 'left'.*metadata_encoder is 'lstm'.*dropout is 1") as error:
        TDBN(**TINY, classes=1, branches="left", metadata_encoder="lstm", dropout=1)  # type: ignore[arg-type]
    assert str(error.value).startswith("The tdbn model cannot be built")
    with pytest.raises(UserError, match=r"metadata_width is 6, but metadata_fields \[1, 2, 3\] make 9"):
        TDBN(**TINY, metadata_width=6, metadata_fields=FIELDS)
    with pytest.raises(UserError, match="needs the columns of each field: set the metadata's missing to 'mask'"):
        TDBN(**TINY, metadata_width=6, metadata_encoder="transformer")
    with pytest.raises(UserError, match="has only one encoder"):
        TDBN(**TINY, branches="image", shared_encoder=True)
    with pytest.raises(UserError, match="attention_residual is true, but branches 'image' has no attention"):
        TDBN(**TINY, branches="image", attention_residual=True)
    with pytest.raises(UserError, match="heads is 7, which does not divide the 512 of 'resnet18'"):
        TDBN(**TINY, heads=7)

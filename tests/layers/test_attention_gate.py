"""The depthwise attention gate: its product, its range, and what a closed gate lets through."""

import keras
import numpy as np

from keras_skin.layers.attention_gate import depthwise_attention_gate


def gate(channels: int = 8) -> tuple[keras.Model, np.ndarray]:
    keras.utils.set_random_seed(0)
    skip = keras.Input((6, 5, channels))
    model = keras.Model(skip, depthwise_attention_gate(skip, "gate_1"))
    return model, np.random.default_rng(0).normal(size=(2, 6, 5, channels)).astype("float32")


def look(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of the gate's layers by what follows the gate's name."""
    names = ("_features", "_hidden", "_mask", "")
    outputs = {name: model.get_layer(f"gate_1{name}").output for name in names}
    return keras.Model(model.input, outputs).predict_on_batch(x)


def test_product_of_features_and_a_mask_computed_from_them() -> None:
    model, x = gate()
    result = look(model, x)
    kernel, bias = model.get_layer("gate_1_logits").get_weights()
    mask = 1 / (1 + np.exp(-(result["_hidden"] @ kernel[0, 0] + bias)))
    assert mask.shape == (2, 6, 5, 1)
    assert mask.std() > 0
    np.testing.assert_allclose(result["_mask"], mask, atol=1e-6)
    np.testing.assert_allclose(result[""], result["_features"] * mask, atol=1e-6)
    assert result["_features"].shape == x.shape
    assert result["_hidden"].shape == (2, 6, 5, 2)


def test_bias_opens_and_closes_it() -> None:
    model, x = gate()
    kernel, _ = model.get_layer("gate_1_logits").get_weights()
    for bias, factor in ((-50, 0), (50, 1)):
        model.get_layer("gate_1_logits").set_weights([kernel * 0, np.full(1, bias, "float32")])
        result = look(model, x)
        np.testing.assert_allclose(result[""], result["_features"] * factor, atol=1e-6)


def test_parameters() -> None:
    model, _ = gate(40)  # the finest skip of EfficientNet-B3
    features, hidden, logits = 9 * 40 + 40 * 40 + 4 * 40, 9 * 40 * 10 + 4 * 10, 10 + 1
    assert model.count_params() == features + hidden + logits

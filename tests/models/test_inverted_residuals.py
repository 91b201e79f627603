"""Networks of inverted residuals: their blocks, and the mapping of a state dict."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_skin.models.inverted_residuals import InvertedResiduals, Stage, efficientnet_lite, torchvision_mobilenet_v2
from keras_skin.registry import UserError

NETWORKS = pytest.mark.parametrize(
    "network",
    [torchvision_mobilenet_v2(), efficientnet_lite((8, 8, 8, 8, 8, 8, 8), (1, 2, 1, 1, 1, 1, 1))],
    ids=["torchvision", "lite"],
)


def small(symmetric_padding: bool) -> InvertedResiduals:
    """The stem and two blocks, named as in EfficientNet-Lite."""
    lite = efficientnet_lite((8,) * 7, (1,) * 7)
    stages = (Stage(1, 8, 1, 1), Stage(2, 8, 2, 2, kernel=5))
    return InvertedResiduals(stages, symmetric_padding, 1e-3, 0.99, lite.ends, lite.block, lite.classifier)


def state_dict(model: keras.Model, network: InvertedResiduals) -> dict[str, np.ndarray]:
    """Random tensors for every layer of a model, in PyTorch's shapes, with a classifier and PyTorch's counters."""
    generator = np.random.default_rng(0)
    state = {f"{network.classifier}.weight": np.zeros((10, 1280)), f"{network.classifier}.bias": np.zeros(10)}
    for layer in model.layers:
        if not layer.weights:
            continue
        part, _, kind = layer.name.rpartition("_")
        pair = network.ends.get(part)
        if pair is None:
            _, number, name = part.split("_")
            pair = network.block(int(number), f"block_{number}_expand_conv" in {other.name for other in model.layers})[name]
        if kind == "conv":
            axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (3, 2, 0, 1)
            state[f"{pair[0]}.weight"] = generator.normal(size=np.transpose(layer.weights[0], axes).shape).astype("float32")
        else:
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"{pair[1]}.{name}"] = generator.uniform(0.5, 1.5, layer.weights[0].shape).astype("float32")
            state[f"{pair[1]}.num_batches_tracked"] = np.array(7)
    return state


@NETWORKS
def test_every_value_of_a_state_dict_is_used_once(network: InvertedResiduals) -> None:
    model = network.build((32, 32, 3))
    state = state_dict(model, network)
    network.set_weights(model, state)
    ignored = (network.classifier, "num_batches_tracked")
    stored = [values.ravel() for name, values in state.items() if not any(word in name for word in ignored)]
    result = np.concatenate([values.ravel() for values in model.get_weights()])
    np.testing.assert_array_equal(np.sort(result), np.sort(np.concatenate(stored)))


def test_kernels_are_transposed_and_statistics_in_order() -> None:
    network = torchvision_mobilenet_v2()
    model = network.build((32, 32, 3))
    state = state_dict(model, network)
    network.set_weights(model, state)
    kernel = state["features.2.conv.0.0.weight"]  # (out, in, 1, 1)
    np.testing.assert_array_equal(model.get_layer("block_1_expand_conv").get_weights()[0][0, 0], kernel[:, :, 0, 0].T)
    kernel = state["features.2.conv.1.0.weight"]  # (channels, 1, 3, 3)
    np.testing.assert_array_equal(model.get_layer("block_1_depthwise_conv").get_weights()[0][1, 2, :, 0], kernel[:, 0, 1, 2])
    normalization = model.get_layer("block_0_project_bn")
    for values, name in zip((normalization.gamma, normalization.beta), ("weight", "bias"), strict=True):
        np.testing.assert_array_equal(values, state[f"features.1.conv.2.{name}"])
    np.testing.assert_array_equal(normalization.moving_mean, state["features.1.conv.2.running_mean"])
    np.testing.assert_array_equal(normalization.moving_variance, state["features.1.conv.2.running_var"])


@pytest.mark.parametrize(("symmetric", "centre"), [(True, 0), (False, 1)])
def test_padding_of_strided_convolutions(symmetric: bool, centre: int) -> None:
    """PyTorch's kernels are centred on even pixels; those of TensorFlow's "same" on odd ones, for images of even size."""
    model = small(symmetric).build((8, 8, 3))
    kernel = np.zeros((3, 3, 3, 32), "float32")
    kernel[1, 1] = 1
    model.get_layer("stem_conv").set_weights([kernel])
    image = np.random.default_rng(0).uniform(size=(1, 8, 8, 3)).astype("float32")
    stem = keras.Model(model.input, model.get_layer("stem_conv").output).predict_on_batch(image)
    np.testing.assert_allclose(stem[..., 0], image[:, centre::2, centre::2].sum(-1), rtol=1e-6)


def test_blocks_of_the_same_width_have_shortcuts() -> None:
    model = small(False).build((32, 32, 3))
    assert [layer.name for layer in model.layers if isinstance(layer, keras.layers.Add)] == ["block_2_add"]
    assert model.get_layer("block_1_project_conv").output.shape == (None, 8, 8, 8)
    assert {layer.max_value for layer in model.layers if isinstance(layer, keras.layers.ReLU)} == {6.0}


def test_what_does_not_fit_is_named() -> None:
    network = small(False)
    model = network.build((32, 32, 3))
    state = state_dict(model, network)
    with pytest.raises(UserError, match=r"The tensor '_blocks.9._bn0.bias' belongs to no layer"):
        network.set_weights(model, {**state, "_blocks.9._bn0.bias": np.zeros(3)})
    with pytest.raises(
        UserError, match=r"The tensor '_conv_stem.weight' has shape \(32, 1, 3, 3\), which does not fit \(3, 3, 3, 32\)"
    ):
        network.set_weights(model, {**state, "_conv_stem.weight": state["_conv_stem.weight"][:, :1]})
    del state["_blocks.1._bn1.running_var"]
    with pytest.raises(UserError, match=r"The tensor '_blocks.1._bn1.running_var' is missing"):
        network.set_weights(model, state)

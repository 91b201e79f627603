"""DualRefNet: its parts one by one, models without them, and the exported model."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_skin import models
from keras_skin.losses.super_resolution import SuperResolution
from keras_skin.models.dualrefnet import FUSIONS
from keras_skin.registry import UserError

SIZE, WIDTH, COUNTS = (32, 32), 5, (300, 100, 20)


def build(**arguments: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    return models.create_model("dualrefnet", **{"image_size": SIZE, "classes": 3, "metadata_width": WIDTH, **arguments})


def compiled(model: keras.Model, label: float = 0.5, super_resolution: float = 1.0) -> keras.Model:
    objectives = {"label": keras.losses.CategoricalCrossentropy(from_logits=True), "super_resolution": SuperResolution()}
    weights = {"label": label, "super_resolution": super_resolution}
    model.compile(
        keras.optimizers.SGD(0.01),
        loss={key: objectives[key] for key in model.output},
        loss_weights={key: weights[key] for key in model.output},
    )
    return model


def batch(model: keras.Model) -> tuple[dict, dict]:
    generator = np.random.default_rng(0)
    inputs = {
        "image": generator.uniform(0, 255, (4, *model.input["image"].shape[1:])),
        "metadata": generator.normal(size=(4, WIDTH)),
    }
    targets = {"label": np.eye(3, dtype="float32")[[0, 1, 2, 0]], "super_resolution": np.zeros((4, 1), "float32")}
    return {key: inputs[key].astype("float32") for key in model.input}, {key: targets[key] for key in model.output}


def plain_fusion(model: keras.Model) -> Any:
    """The same features concatenated and classified by two ordinary dense layers, with the model's weights."""
    fused = keras.layers.Concatenate()([model.get_layer("pooled").output, model.get_layer("metadata_4").output])
    hidden, logits = keras.layers.Dense(256, "relu", dtype="float32"), keras.layers.Dense(3, dtype="float32")
    label = logits(hidden(fused))
    weights = model.get_layer("label").get_weights()
    hidden.set_weights(weights[:2])
    logits.set_weights(weights[2:])
    return label


def measured(model: keras.Model, **weights: float) -> float:
    return compiled(model, **weights).test_on_batch(*batch(model), return_dict=True)["loss"]


def trained(model: keras.Model) -> list[float]:
    compiled(model)
    return [model.train_on_batch(*batch(model), return_dict=True)["loss"] for _ in range(2)]


def shapes(tensors: dict) -> dict:
    return {key: tensor.shape for key, tensor in tensors.items()}


def test_inputs_and_outputs() -> None:
    model = build()
    assert shapes(model.input) == {"image": (None, 32, 32, 3), "metadata": (None, WIDTH)}
    assert shapes(model.output) == {"label": (None, 3), "super_resolution": (None, 2, 64, 64, 3)}
    alone = build(metadata_width=0, super_resolution="none")
    assert list(alone.input) == ["image"]
    assert shapes(alone.output) == {"label": (None, 3)}
    assert alone.get_layer("fused").output.shape == (None, 512)
    assert model.get_layer("fused").output.shape == (None, 1024)


@pytest.mark.slow
def test_without_super_resolution_and_gamma_it_is_plain_fusion_bit_for_bit() -> None:
    model = build(super_resolution="none", gamma=0, regularisation=0.3)
    plain = keras.Model(model.input, {"label": plain_fusion(model)})
    assert measured(plain) == measured(model)
    # beta = 0: the branch is there and costs nothing
    assert measured(build(gamma=0), super_resolution=0.0) == measured(model)


@pytest.mark.slow
def test_gamma_0_is_auxnet_bit_for_bit() -> None:
    model = build(gamma=0, regularisation=0.3)
    auxnet = keras.Model(
        model.input, {"label": plain_fusion(model), "super_resolution": model.get_layer("super_resolution").output}
    )
    assert measured(auxnet) == measured(model)
    assert trained(build(gamma=0, regularisation=0.3)) == trained(build(gamma=1, regularisation=0))


def test_total_is_equation_7() -> None:
    model = build(gamma=2.0, regularisation=0.3, class_counts=COUNTS)
    inputs, expected = batch(model)
    logs = compiled(model, super_resolution=0.7).test_on_batch(inputs, expected, return_dict=True)
    predicted = model.predict_on_batch(inputs)
    logits = predicted["label"].astype("float64")
    entropy = -np.mean(np.sum(expected["label"] * (logits - np.log(np.exp(logits).sum(-1, keepdims=True))), axis=-1))
    error = np.mean((predicted["super_resolution"][:, 0] - predicted["super_resolution"][:, 1]) ** 2)
    np.testing.assert_allclose([logs["label_loss"], logs["super_resolution_loss"]], [entropy, error], rtol=1e-5)
    penalty = float(model.get_layer("label").penalty())
    np.testing.assert_allclose(logs["loss"], 0.5 * entropy + 0.7 * error + 2.0 * 0.3 * penalty, rtol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos3", "learned"])
def test_the_target_is_the_enlarged_input(method: str) -> None:
    model = build(super_resolution=method)
    inputs, _ = batch(model)
    target = model.predict_on_batch(inputs)["super_resolution"][:, 1]
    # Averages of 2x2 pixels give back the image but for its finest detail.
    halved = target.reshape(4, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.corrcoef(halved.ravel(), inputs["image"].ravel())[0, 1] > 0.9
    assert target.min() >= 0
    assert target.max() <= 1


@pytest.mark.slow
def test_super_resolution_alone_trains_the_encoder_and_not_the_classifier() -> None:
    model = compiled(build(), label=0.0)
    before = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    model.train_on_batch(*batch(model))
    after = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}

    def changed(name: str) -> bool:
        return any((old != new).any() for old, new in zip(before[name], after[name], strict=True))

    assert changed("encoder_1")
    assert changed("super_resolution_6")
    assert not changed("label")
    assert not changed("metadata_1")


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_every_fusion_takes_notice_of_both(fusion: str) -> None:
    model = build(fusion=fusion, super_resolution="none", image_size=(64, 64))  # 2x2 positions: cross-attention needs several
    inputs, _ = batch(model)
    label = model.predict_on_batch(inputs)["label"]
    for key in ("image", "metadata"):
        other = {**inputs, key: inputs[key][::-1].copy()}
        assert (np.abs(model.predict_on_batch(other)["label"] - label) > 1e-6).any(), key


@pytest.mark.parametrize("encoder", ["weighted", "transformer"])
def test_every_metadata_encoder_takes_notice_of_them(encoder: str) -> None:
    model = build(metadata_encoder=encoder, super_resolution="none")
    inputs, _ = batch(model)
    other = {**inputs, "metadata": inputs["metadata"][::-1].copy()}
    assert (model.predict_on_batch(other)["label"] != model.predict_on_batch(inputs)["label"]).any()


LARGE = ("efficientnet_b4", "densenet121", "vit_base", "swin_base", "convit_base")
NIGHTLY = [pytest.param(name, marks=pytest.mark.nightly) for name in LARGE]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2", *NIGHTLY])
def test_every_backbone_of_the_paper(backbone: str) -> None:
    model = build(backbone=backbone, fusion="visual_attention")
    assert shapes(model.output) == {"label": (None, 3), "super_resolution": (None, 2, 64, 64, 3)}


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the export is TensorFlow's")
def test_what_is_served_has_no_super_resolution_and_its_size_says_so(tmp_path: Path) -> None:
    import tensorflow as tf

    from keras_skin.export.saved_model import export_model

    model = build(metadata_width=0, regularisation=0.3, class_counts=COUNTS, super_resolution="learned")
    export = export_model(model, tmp_path, classes=["a", "b", "c"], image_size=SIZE, name="dualrefnet")
    variables = export / "variables"
    saved = [shape for name, shape in tf.train.list_variables(str(variables / "variables")) if "VARIABLE_VALUE" in name]
    branch = [layer for layer in model.layers if layer.name.startswith("super_resolution")]
    training_only = sum(layer.count_params() for layer in branch)
    assert sum(int(np.prod(shape)) for shape in saved) == model.count_params() - training_only
    assert training_only > 2e6
    size = sum(file.stat().st_size for file in variables.iterdir())
    assert abs(size - 4 * (model.count_params() - training_only)) < 1e5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regularisation": 0.3}, "class_counts is None, expected 3 numbers"),
        ({"regularisation": 0.3, "class_counts": (3, 4)}, "class_counts is \\[3, 4\\]"),
        ({"fusion": "none"}, "remove the experiment's block 'metadata'"),
        ({"fusion": "metanet", "metadata_width": 0}, "add a block 'metadata' to the experiment"),
        ({"fusion": "metablock", "metadata_encoder": "weighted"}, "it is for concatenate, cross_attention"),
        ({"gamma": -1, "fusion": "concat", "classes": 1}, "fusion is 'concat'.*classes is 1.*gamma is -1"),
        ({"image_size": (40, 40)}, "multiples of 32.*super_resolution to 'none'"),
        ({"super_resolution": "nearest"}, "expected one of none, bilinear, bicubic, lanczos3, learned"),
    ],
)
def test_arguments_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**arguments)

"""What makes the joint model joint: shared kernels, two passes, gates and branches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conformance import count_parameters
from keras import ops

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.models.jrl import JRL, VARIANTS
from keras_skin.models.unet import SCALINGS, UNet
from keras_skin.registry import UserError

SMALL = {"image_size": (32, 64), "filters": (4, 6, 8, 10)}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(2)


def image(batch: int = 2) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).uniform(0, 255, (batch, 32, 64, 3)).astype("float32")}


def view(model: keras.Model, *layers: str) -> list[np.ndarray]:
    """The outputs of layers that are called once, in inference."""
    result = keras.Model(model.input, {name: model.get_layer(name).output for name in layers}).predict_on_batch(image())
    return [result[name] for name in layers]


@pytest.mark.slow
def test_parameters_grow_as_published() -> None:
    counts = [count_parameters("unet"), *(count_parameters("jrl", variant=variant) for variant in VARIANTS)]
    np.testing.assert_allclose(np.diff(counts) / 1e6, [0.05, 0.04, 0.06, 0.04], atol=0.01)
    assert [round(count / 1e6, 2) for count in counts] == [10.71, 10.77, 10.80, 10.86, 10.90]


def test_feature_layers() -> None:
    model = JRL()
    for level, features in enumerate((32, 64, 128, 256, 320, 320), start=1):
        size = (None, 192 >> level - 1, 256 >> level - 1, features)
        assert model.get_layer(f"encoder_{level}").output.shape == size
        if level < 6:
            assert model.get_layer(f"decoder_{level}").output.shape == size
    assert model.get_layer("cam_features").output.shape == (None, 6, 8, 320)
    assert [model.get_layer(f"dense_{number}").units for number in (1, 2, 3)] == [128, 64, 32]


def test_two_passes_share_kernels_and_not_normalisations() -> None:
    model = JRL(**SMALL, variant="mtl2")
    calls = {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    assert {name for name, count in calls.items() if count == 2} == {
        "decoder_2_conv_2",
        "decoder_1_upsample",
        "decoder_1_conv_1",
        "decoder_1_conv_2",
        "mask_head",
    }
    normalisations = {layer.name for layer in model.layers if isinstance(layer, BatchNormalization)}
    assert {
        "initial_decoder_2_norm",
        "decoder_2_norm",
        "initial_decoder_1_norm",
        "decoder_1_norm",
        "initial_decoder_1_1_norm",
        "decoder_1_1_norm",
        "decoder_2_1_norm",
    } <= normalisations
    assert max(calls[name] for name in normalisations) == 1


@pytest.mark.parametrize("gate", ["relu", "sigmoid"])
def test_reversed_features_are_weighed_by_the_classifier(gate: str) -> None:
    """Equation 2 at decoder level 1, step by step."""
    model = JRL(**SMALL, gate=gate)
    first, units, result = view(model, "decoder_1_1", "dense_3", "decoder_1")
    weights = np.maximum(units, 0) if gate == "relu" else 1 / (1 + np.exp(-units))
    convolved = ops.conv(first * weights[:, None, None, :], model.get_layer("decoder_1_conv_2").kernel, padding="same")
    expected = np.maximum(model.get_layer("decoder_1_norm")(convolved, training=False), 0)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_classifier_attends_to_the_outlined_lesion() -> None:
    """What the first mask leaves out does not reach the lesion branches."""
    model = JRL(**SMALL, variant="mtl1")
    head = model.get_layer("mask_head")
    head.set_weights([np.zeros((1, 1, 4, 1)), np.array([-100.0])])
    for name in ("lesion_1_features_masked", "lesion_2_features_masked"):
        assert np.abs(view(model, name)[0]).max() < 1e-6
    head.set_weights([np.zeros((1, 1, 4, 1)), np.array([100.0])])
    masked, features = view(model, "lesion_1_features_masked", "decoder_1")
    np.testing.assert_allclose(masked, features, atol=1e-6)


def test_attention_is_for_the_classifier_only() -> None:
    model = JRL(**SMALL)
    (before,) = view(model, "decoder_3")
    for name in ("cbam_5", "cbam_6"):
        layer = model.get_layer(name)
        layer.set_weights([weight + 1 for weight in layer.get_weights()])
    (after,) = view(model, "decoder_3")
    np.testing.assert_array_equal(before, after)


def test_initial_mask_is_the_first_pass() -> None:
    model = JRL(**SMALL, initial_mask=True)
    assert set(model.output) == {"mask", "mask_aux_1", "label"}
    result, features = view(model, "mask_aux_1", "initial_decoder_1")
    np.testing.assert_allclose(result, model.get_layer("mask_head")(features), atol=1e-5)
    assert model.count_params() == JRL(**SMALL).count_params()


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[3]])
def test_a_backbone_takes_the_place_of_the_encoder(variant: str) -> None:
    model = JRL((64, 96), variant=variant, backbone="mobilenet_v2", filters=(2, 3, 4, 5, 6))
    assert {key: value.shape for key, value in model.output.items()} == {"mask": (None, 64, 96, 1), "label": (None, 2)}
    for level in range(1, 6):
        assert model.get_layer(f"encoder_{level}").output.shape[1:3] == (64 >> level, 96 >> level)
        assert model.get_layer(f"decoder_{level}").output.shape[1:] == (64 >> level - 1, 96 >> level - 1, level + 1)
    for level in range(2, 6):
        skip = model.get_layer(f"decoder_{level}_skip").input
        assert skip[1] is model.get_layer(f"encoder_{level - 1}").output
    inputs = model.get_layer("cbam_6" if variant == "mtl3" else "cam_features").input
    assert inputs is model.get_layer("encoder_5").output


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_images_are_scaled_in_float32(policy: str, scaling: str) -> None:
    """bfloat16 has no 201: neighbouring grey levels must stay apart in front of the first convolution."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        scale = JRL(**SMALL, variant="mtl0", scaling=scaling).get_layer("scale")
    finally:
        keras.config.set_dtype_policy(before)
    levels = np.asarray(scale(np.arange(256, dtype="float32").reshape(1, 16, 16, 1)))
    np.testing.assert_allclose(levels.ravel(), np.arange(256) / 255, atol=1e-7)


@pytest.mark.parametrize("build", [JRL, UNet])
def test_scaling_by_each_image_removes_gain_and_offset(build: Callable[..., keras.Model], tmp_path: Path) -> None:
    """The model of a reloaded file too: the scaling is inside."""
    model = build(**SMALL, scaling="min_max")
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 100, (1, 32, 64, 3)).astype("float32")
    gain, offset = np.array([2.0, 1.5, 1.0], "float32"), np.array([0.0, 20.0, 50.0], "float32")
    plain, brightened = (reloaded.predict_on_batch({"image": value}) for value in (pixels, pixels * gain + offset))
    np.testing.assert_allclose(brightened["mask"], plain["mask"], atol=1e-4)
    np.testing.assert_allclose(
        reloaded.predict_on_batch({"image": pixels * 0})["mask"],
        model.predict_on_batch({"image": pixels * 0 + 9})["mask"],
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"image_size": (190, 256)}, ["190x256", "multiples of 32", "192x256"]),
        ({"image_size": (192, 8)}, ["192x8", "192x32"]),
        ({"variant": "mtl5", "gate": "tanh", "classes": 1}, ["'mtl5'", "'tanh'", "classes is 1"]),
        ({"variant": "mtl1", "initial_mask": True}, ["mtl1 has only one mask"]),
        ({"variant": "mtl0", "gate": "sigmoid"}, ["mtl0 has no gate"]),
        ({"filters": (4, 8)}, ["2 levels"]),
        ({"weights": "imagenet"}, ["'imagenet'", "name a backbone"]),
        ({"scaling": "mean"}, ["'mean'", "255, min_max"]),
        ({"backbone": "resnet18", "scaling": "min_max"}, ["'resnet18' scales the image itself"]),
        ({"backbone": "xception"}, ["no features at strides 2, 4"]),
        ({"backbone": "resnet18", "filters": (4, 8)}, ["2 numbers, expected 5"]),
    ],
)
def test_mistakes_are_named(arguments: dict, messages: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        JRL(**arguments)
    for message in messages:
        assert message in str(caught.value)

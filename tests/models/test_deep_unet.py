"""Deep-UNet: its parts at full size, deep supervision, and what the exported model contains."""

from __future__ import annotations

from pathlib import Path

import conformance
import keras
import numpy as np
import pytest

from keras_skin.experiment import load_experiment
from keras_skin.models.deep_unet import DeepUNet
from keras_skin.registry import UserError


@pytest.fixture(scope="module")
def published() -> keras.Model:
    return DeepUNet()


@pytest.mark.slow
def test_levels_at_the_published_size(published: keras.Model) -> None:
    shapes = {name: published.get_layer(name).output.shape[1:] for name in ("encoder_1", "encoder_5", "cam_features")}
    assert shapes == {"encoder_1": (112, 112, 40), "encoder_5": (7, 7, 384), "cam_features": (7, 7, 256)}
    decoder = [published.get_layer(f"decoder_{level}").output.shape[1:] for level in (5, 4, 3, 2, 1)]
    assert decoder == [(14, 14, 256), (28, 28, 128), (56, 56, 64), (112, 112, 32), (224, 224, 16)]
    assert published.get_layer("mask_aux_1").input.shape[1:3] == (112, 112)
    assert published.get_layer("mask_aux_2").input.shape[1:3] == (56, 56)


def test_size(published: keras.Model) -> None:
    assert published.count_params() == pytest.approx(13.96e6, rel=0.001)
    assert published.count_params() * 4 == pytest.approx(56e6, rel=0.01)
    assert "top_conv" not in {layer.name for layer in published.layers}


def test_decoder_is_depthwise_separable(published: keras.Model) -> None:
    kinds = {type(published.get_layer(f"decoder_{level}_conv_{step}")) for level in range(1, 6) for step in (1, 2)}
    assert kinds == {keras.layers.SeparableConv2D}


@pytest.mark.slow
def test_auxiliary_masks_are_enlarged_bilinearly() -> None:
    model = conformance.tiny("deep_unet", {})
    logits = {name: model.get_layer(f"{name}_head").output for name in ("mask_aux_1", "mask_aux_2")}
    result = keras.Model(model.input, {"small": logits, "large": model.output}).predict_on_batch(conformance.images(model, 1))
    for name, factor in (("mask_aux_1", 2), ("mask_aux_2", 4)):
        small, large = result["small"][name][0, ..., 0], result["large"][name][0, ..., 0]
        assert large.shape == (64, 64)
        for row, column in ((0, 0), (5, 9), (20, 33), (63, 63)):
            # Centres of pixels: row r of the large map lies at (r + 0.5) / factor - 0.5 of the small one.
            y, x = (np.clip((position + 0.5) / factor - 0.5, 0, len(small) - 1) for position in (row, column))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, len(small) - 1), min(left + 1, len(small) - 1)
            dy, dx = y - top, x - left
            upper = small[top, left] * (1 - dx) + small[top, right] * dx
            lower = small[bottom, left] * (1 - dx) + small[bottom, right] * dx
            assert large[row, column] == pytest.approx(upper * (1 - dy) + lower * dy, abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="exports need the TensorFlow backend")
def test_export_contains_no_weight_of_the_auxiliary_heads(tmp_path: Path) -> None:
    import tensorflow as tf

    from keras_skin.export.saved_model import export_model

    model = conformance.tiny("deep_unet", {})
    heads = [model.get_layer(f"{name}_head") for name in ("mask_aux_1", "mask_aux_2")]
    for number, head in enumerate(heads, start=1):
        head.set_weights([np.full(array.shape, 1000.0 + number, "float32") for array in head.get_weights()])
    folder = export_model(model, tmp_path, classes=("benign", "malignant"), image_size=(64, 64), name="deep_unet")
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    stored = [reader.get_tensor(key) for key in shapes if key.endswith("VARIABLE_VALUE")]
    numbers = [array for array in stored if array.dtype == np.float32]
    assert sum(array.size for array in numbers) == model.count_params() - sum(head.count_params() for head in heads)
    assert not any((array > 900).any() for array in numbers)
    served = tf.saved_model.load(str(folder)).signatures["predict_images"]
    image = np.round(conformance.images(model, 2)["image"])  # a model's image is integral, and the exported graph rounds
    result = served(image=tf.constant(image))
    assert set(result) == {"mask"}
    expected = 1 / (1 + np.exp(-model.predict_on_batch({"image": image})["mask"]))
    np.testing.assert_allclose(result["mask"], expected, atol=1e-5)


def test_the_experiment_weighs_the_masks_as_equation_4() -> None:
    losses = load_experiment("deep_unet_isic2018").loss_settings
    assert {name: loss["weight"] for name, loss in losses.items()} == {"mask": 1.0, "mask_aux_1": 0.2, "mask_aux_2": 0.1}
    assert {loss["name"] for loss in losses.values()} == {"dice_binary_crossentropy"}


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="multiples of 32; the nearest is 224x224"):
        DeepUNet(image_size=(225, 224))
    with pytest.raises(UserError, match=r"'xception' has no features at strides 2, 4.*filters has 2 numbers"):
        DeepUNet(backbone="xception", filters=(4, 8))
    with pytest.raises(UserError, match="There is no backbone 'efficientnet_b33'"):
        DeepUNet(backbone="efficientnet_b33")

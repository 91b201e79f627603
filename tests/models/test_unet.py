"""The segmentation baseline."""

import keras
import numpy as np
import pytest

from keras_skin.models.unet import UNet
from keras_skin.registry import UserError


def test_levels_halve_and_double() -> None:
    model = UNet(image_size=(32, 64), filters=(4, 6, 8))
    assert [model.get_layer(f"encoder_{level}").output.shape[1:] for level in (1, 2, 3)] == [(32, 64, 4), (16, 32, 6), (8, 16, 8)]
    assert [model.get_layer(f"decoder_{level}").output.shape[1:] for level in (2, 1)] == [(16, 32, 6), (32, 64, 4)]


def test_convolutions_before_a_normalisation_have_no_bias() -> None:
    model = UNet(image_size=(32, 32), filters=(4, 6, 8))
    assert not any(model.get_layer(name).use_bias for name in ("encoder_1_conv_1", "encoder_3_conv_2", "decoder_1_conv_2"))
    assert all(model.get_layer(name).use_bias for name in ("decoder_1_upsample", "mask_head"))


def test_mask_is_the_head_on_the_last_features() -> None:
    model = UNet(image_size=(32, 32), filters=(4, 6, 8))
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    head = model.get_layer("mask_head")
    outputs = {"mask": model.output["mask"], "features": model.get_layer("decoder_1").output}
    result = keras.Model(model.input, outputs).predict_on_batch({"image": image})
    kernel, bias = head.get_weights()
    np.testing.assert_allclose(result["mask"], result["features"] @ kernel[0, 0] + bias, atol=1e-5)


def test_image_size_must_fit() -> None:
    with pytest.raises(UserError, match="multiples of 32; the nearest is 224x224"):
        UNet(image_size=(225, 224))

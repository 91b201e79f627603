"""DeepLabV3+ on a backbone."""

from __future__ import annotations

import pytest

from keras_skin.models.deeplabv3plus import DeepLabV3Plus
from keras_skin.registry import UserError


@pytest.mark.slow
def test_features_keep_stride_16() -> None:
    model = DeepLabV3Plus((64, 96), backbone="resnet18", features=8, dilations=(1, 2))
    assert model.output["mask"].shape == (None, 64, 96, 1)
    assert [model.get_layer(f"encoder_{level}").output.shape[1:3] for level in (4, 5)] == [(4, 6), (4, 6)]
    assert model.get_layer("cam_features").output.shape == (None, 4, 6, 512)
    assert model.get_layer("stack3_block0_1_conv").dilation_rate == (1, 1)
    assert model.get_layer("stack3_block0_2_conv").dilation_rate == (2, 2)
    assert model.get_layer("decoder_1_skip").output.shape == (None, 16, 24, 8 + 48)
    assert model.get_layer("low_level_conv").input is model.get_layer("encoder_2").output
    pooling = model.get_layer("pyramid_pooling")
    assert pooling.dilation_rates == [1, 2]
    # 1x1, two dilated 3x3 and the image's mean, projected together
    kernels = 512 * 8 + 2 * 9 * 512 * 8 + 512 * 8 + 4 * 8 * 8
    assert pooling.count_params() == kernels + 5 * 4 * 8


@pytest.mark.slow
def test_parameters() -> None:
    assert DeepLabV3Plus().count_params() == 14_666_473


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"'xception' has no features at strides 2, 4"):
        DeepLabV3Plus(backbone="xception")

"""The U-Net on a backbone."""

from __future__ import annotations

import keras
import pytest

from keras_skin.models.backbones import BACKBONES, get_backbone
from keras_skin.models.unet_backbone import FILTERS, UNetBackbone
from keras_skin.registry import UserError

PYRAMIDS = [name for name in BACKBONES if get_backbone(name).strides == (2, 4, 8, 16, 32)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("resnet18", "vgg13") else [pytest.mark.nightly]) for name in PYRAMIDS]
)
def test_levels_halve_and_double(name: str) -> None:
    model = UNetBackbone(image_size=(64, 96), backbone=name, filters=(2, 3, 4, 5, 6))
    assert model.output["mask"].shape == (None, 64, 96, 1)
    for level in range(1, 6):
        assert model.get_layer(f"encoder_{level}").output.shape[1:3] == (64 // 2**level, 96 // 2**level)
        assert model.get_layer(f"decoder_{level}").output.shape[1:] == (64 // 2 ** (level - 1), 96 // 2 ** (level - 1), 1 + level)
    for level in range(2, 6):
        skip = model.get_layer(f"decoder_{level}_skip").input
        assert skip[1] is model.get_layer(f"encoder_{level - 1}").output


@pytest.mark.slow
def test_parameters_by_hand() -> None:
    """EfficientNet-B3 up to its last block, and a decoder counted level by level."""
    model = UNetBackbone()
    top = 384 * 1536 + 4 * 1536
    count = 10_783_535 - 7 - top
    below = 384
    for filters, skip in zip(reversed(FILTERS), (136, 48, 32, 40, 0), strict=True):
        count += 4 * below * filters + filters  # 2x2 transposed convolution, with bias
        count += 9 * (filters + skip) * filters + 9 * filters * filters + 2 * 4 * filters
        below = filters
    assert model.count_params() == count + below + 1
    assert not any(layer.name == "top_conv" for layer in model.layers)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"'xception' has no features at strides 2, 4; filters has 2 numbers, expected 5"):
        UNetBackbone(backbone="xception", filters=(4, 4))
    with pytest.raises(UserError, match=r"multiples of 32; the nearest is 224x224"):
        UNetBackbone(image_size=(225, 224))
    with pytest.raises(UserError, match=r"nowhere.h5 does not exist"):
        UNetBackbone(image_size=(32, 32), backbone="mobilenet_v2", weights="nowhere.h5")


def test_no_model_within_the_model() -> None:
    assert not any(isinstance(layer, keras.Model) for layer in UNetBackbone((32, 32), backbone="resnet18").layers)

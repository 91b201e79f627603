"""U-Net++ on a backbone."""

from __future__ import annotations

import pytest

from keras_skin.models.unet_backbone import UNetBackbone
from keras_skin.models.unetpp import UNetPP
from keras_skin.registry import UserError

FILTERS = (2, 3, 4, 5, 6)
SKIPS = {2: 64, 3: 64, 4: 128, 5: 256}  # ResNet18's features at the strides of the decoder levels


def test_every_node_joins_those_before_it() -> None:
    """Node (i, j): j nodes of its level, the encoder's first, and the enlarged one below."""
    model = UNetPP((64, 64), backbone="resnet18", filters=FILTERS)
    for level in range(2, 6):
        for column in range(1, 7 - level):
            name = f"decoder_{level}" + ("" if column == 6 - level else f"_node_{column}")
            node = model.get_layer(name)
            filters, size = FILTERS[level - 1], 64 // 2 ** (level - 1)
            assert node.output.shape[1:] == (size, size, filters)
            joined = SKIPS[level] + (column - 1) * filters
            assert model.get_layer(f"{name}_conv_1").kernel.shape == (3, 3, filters + joined, filters)
            below = 512 if level == 5 else FILTERS[level] if column > 1 else SKIPS[level + 1]
            assert model.get_layer(f"{name}_upsample").kernel.shape == (2, 2, filters, below)
    assert model.get_layer("decoder_1").output.shape[1:] == (64, 64, 2)
    assert sum(layer.name.endswith("_upsample") for layer in model.layers) == 4 + 3 + 2 + 1 + 1


@pytest.mark.slow
def test_it_is_a_unet_with_more_nodes() -> None:
    assert UNetPP().count_params() > UNetBackbone().count_params()
    assert UNetPP().count_params() == 13_805_321


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"'vit_base' has no features at strides 2, 4, 8, 32"):
        UNetPP(backbone="vit_base")

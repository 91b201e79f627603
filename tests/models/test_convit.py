"""ConViT: its size, and the authors' state dict."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_skin.models.convit import ConViT
from keras_skin.registry import UserError

SMALL = ConViT(width=16, heads=4, depth=3, local=2, patch=8)


def state_dict(network: ConViT, patches: int) -> dict[str, np.ndarray]:
    """Random tensors with the names and shapes of the authors' code, for one number of patches."""
    width, heads = network.width, network.heads
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, network.patch, network.patch),
        "patch_embed.proj.bias": (width,),
        "pos_embed": (1, patches, width),
        "cls_token": (1, 1, width),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (10, width),
        "head.bias": (10,),
    }
    for number in range(network.depth):
        name = f"blocks.{number}"
        for part, size in (("norm1", None), ("norm2", None), ("mlp.fc1", (4 * width, width)), ("mlp.fc2", (width, 4 * width))):
            shapes |= {f"{name}.{part}.weight": size or (width,), f"{name}.{part}.bias": (size[0] if size else width,)}
        shapes |= {f"{name}.attn.proj.weight": (width, width), f"{name}.attn.proj.bias": (width,)}
        if number < network.local:
            shapes |= {f"{name}.attn.qk.weight": (2 * width, width), f"{name}.attn.v.weight": (width, width)}
            shapes |= {f"{name}.attn.pos_proj.weight": (heads, 3), f"{name}.attn.pos_proj.bias": (heads,)}
            shapes[f"{name}.attn.gating_param"] = (heads,)
        else:
            shapes[f"{name}.attn.qkv.weight"] = (3 * width, width)
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=shape).astype("float32") * 0.1 for name, shape in shapes.items()}


@pytest.mark.slow
def test_the_published_number_of_parameters() -> None:
    """86.54 million with a classifier of 1,000 classes."""
    assert ConViT().build((224, 224, 3)).count_params() == 86_540_040 - 769_000


def test_every_value_of_a_state_dict_is_used_once() -> None:
    model, state = SMALL.build((32, 32, 3)), state_dict(SMALL, 16)
    SMALL.set_weights(model, state)
    stored = [values.ravel() for name, values in state.items() if not name.startswith("head.")]
    result = np.concatenate([values.ravel() for values in model.get_weights()])
    np.testing.assert_array_equal(np.sort(result), np.sort(np.concatenate(stored)))
    qkv = state["blocks.2.attn.qkv.weight"]
    attention = model.get_layer("block_3_attention")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(attention.value.kernel), qkv[32:].T)


def test_the_class_token_joins_after_the_local_blocks_and_is_dropped() -> None:
    model = SMALL.build((32, 24, 3))
    shapes = [model.get_layer(name).output.shape[1:] for name in ("block_2", "block_3", "grid")]
    assert shapes == [(12, 16), (13, 16), (4, 3, 16)]
    assert [type(model.get_layer(f"block_{number}_attention")).__name__ for number in (1, 2, 3)] == [
        "GatedPositionalAttention",
        "GatedPositionalAttention",
        "ContentAttention",
    ]


def test_a_state_dict_that_does_not_fit() -> None:
    model, state = SMALL.build((32, 32, 3)), state_dict(SMALL, 16)
    with pytest.raises(UserError, match=r"tensors of 'positions' have the shapes \[\(9, 16\)\], expected \[\(16, 16\)\]"):
        SMALL.set_weights(model, {**state, "pos_embed": np.zeros((1, 9, 16), "float32")})
    with pytest.raises(UserError, match=r"'blocks\.1\.attn\.gating_param' is missing"):
        SMALL.set_weights(model, {name: value for name, value in state.items() if name != "blocks.1.attn.gating_param"})
    with pytest.raises(UserError, match=r"'blocks\.7\.norm1\.weight' belongs to no layer"):
        SMALL.set_weights(model, {**state, "blocks.7.norm1.weight": np.zeros(16, "float32")})

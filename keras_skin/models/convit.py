"""ConViT: a vision transformer whose first blocks start as convolutions.

Source: d'Ascoli, Touvron, Leavitt, Morcos, Biroli and Sagun, "ConViT: Improving Vision Transformers with Soft Convolutional
Inductive Biases", ICML 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from keras_skin.layers.class_token import ClassToken
from keras_skin.layers.gated_positional_attention import ContentAttention, GatedPositionalAttention, PositionEmbedding
from keras_skin.registry import UserError

_EPSILON = 1e-6


@dataclass(frozen=True)
class ConViT:
    """A ConViT without its classifier.

    The class token joins before the last `depth - local` blocks, as in the paper. It is dropped at the end, because classifiers
    here average over the patches.

    Attributes:
        width: features of a token.
        heads: attention heads of every block; a square number, so that the heads start as one convolution.
        depth: number of blocks.
        local: number of blocks with gated positional self-attention, from the first.
        patch: height and width of a patch.
        classifier: name of the classifier in a state dict.
    """

    width: int = 768
    heads: int = 16
    depth: int = 12
    local: int = 10
    patch: int = 16
    classifier: str = "head"

    def build(self, shape: tuple[int, int, int]) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape) whose sizes are multiples of the patch.

        The model ends with `grid`, the normalised tokens as a feature map; `block_<n>` are the tokens after each block.
        """
        image = keras.Input(shape)
        x = layers.Conv2D(self.width, self.patch, strides=self.patch, name="patch_embedding")(image)
        grid = (x.shape[1], x.shape[2])
        x = layers.Reshape((grid[0] * grid[1], self.width), name="tokens")(x)
        x = PositionEmbedding(name="positions")(x)
        for number in range(1, self.depth + 1):
            name = f"block_{number}"
            if number == self.local + 1:
                x = ClassToken(positions=False, name="class_token")(x)
            attention: ContentAttention = (
                GatedPositionalAttention(self.heads, grid, name=f"{name}_attention")
                if number <= self.local
                else ContentAttention(self.heads, name=f"{name}_attention")
            )
            y = attention(layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm_1")(x))
            x = layers.Add(name=f"{name}_attended")([x, y])
            y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm_2")(x)
            y = layers.Dense(4 * self.width, activation="gelu", name=f"{name}_dense_1")(y)
            x = layers.Add(name=name)([x, layers.Dense(self.width, name=f"{name}_dense_2")(y)])
        x = layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x)
        x = layers.Cropping1D((1, 0), name="patches")(x) if self.local < self.depth else x
        return keras.Model(image, layers.Reshape((*grid, self.width), name="grid")(x))

    def set_weights(self, model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
        """Sets the weights of a model of `build` from a state dict of the authors' code. The classifier's tensors are ignored.

        Raises:
            UserError: if a tensor is missing, is of another shape (the positions are those of one image size), or belongs to no
                layer.
        """
        remaining = {name: value for name, value in state.items() if not name.startswith(f"{self.classifier}.")}

        def take(name: str) -> np.ndarray:
            if name not in remaining:
                raise UserError(f"The tensor '{name}' is missing.")
            value = remaining.pop(name)
            return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T if value.ndim == 2 else value

        def put(layer: str, *values: np.ndarray) -> None:
            target = model.get_layer(layer)
            shapes, expected = [value.shape for value in values], [tuple(variable.shape) for variable in target.weights]
            if shapes != expected:
                raise UserError(f"The tensors of '{layer}' have the shapes {shapes}, expected {expected}.")
            target.set_weights(values)

        put("patch_embedding", take("patch_embed.proj.weight"), take("patch_embed.proj.bias"))
        put("positions", take("pos_embed")[0])
        put("norm", take("norm.weight"), take("norm.bias"))
        if self.local < self.depth:
            put("class_token", take("cls_token"))
        for number in range(1, self.depth + 1):
            key, name = f"blocks.{number - 1}", f"block_{number}"
            for part, source in (("norm_1", "norm1"), ("norm_2", "norm2"), ("dense_1", "mlp.fc1"), ("dense_2", "mlp.fc2")):
                put(f"{name}_{part}", take(f"{key}.{source}.weight"), take(f"{key}.{source}.bias"))
            if number <= self.local:
                projections = [take(f"{key}.attn.qk.weight"), take(f"{key}.attn.v.weight")]
            else:
                projections = np.split(take(f"{key}.attn.qkv.weight"), [2 * self.width], axis=1)
            projections += [take(f"{key}.attn.proj.weight"), take(f"{key}.attn.proj.bias")]
            if number <= self.local:
                positional = [take(f"{key}.attn.pos_proj.weight"), take(f"{key}.attn.pos_proj.bias")]
                projections = [take(f"{key}.attn.gating_param"), *projections, *positional]
            put(f"{name}_attention", *projections)
        if remaining:
            raise UserError(f"The tensor '{min(remaining)}' belongs to no layer.")

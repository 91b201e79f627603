"""The Swin transformer from plain layers, with the weights of KerasHub's, whose own layers cannot be rebuilt from their config.

Source: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_skin.layers.window_attention import WindowAttention

_EPSILON = 1e-5
PATCH = 4


@dataclass(frozen=True)
class SwinTransformer:
    """A Swin transformer without its classifier.

    Attributes:
        width: features of the first stage; each further stage has twice as many.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        window: size of the windows.
        drop_path: probability with which the last block is left out in training; earlier ones less often, in proportion.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    drop_path: float = 0.1

    def build(self, shape: tuple[int, int, int]) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape) whose sizes are multiples of 4 . 2^(stages - 1).

        The model ends with the normalised features. `stage_<n>` are the features at the end of each stage, before the next one
        halves their size.
        """
        image = keras.Input(shape)
        x = layers.Conv2D(self.width, PATCH, strides=PATCH, name="patch_embedding")(image)
        x = layers.LayerNormalization(epsilon=_EPSILON, name="patch_norm")(x)
        rates = iter(np.linspace(0.0, self.drop_path, sum(self.depths)))
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True), start=1):
            x = self._merged(x, stage) if stage > 1 else x
            for block in range(1, depth + 1):
                shift = 0 if block % 2 else self.window // 2
                attention = WindowAttention(heads, self.window, shift, name=f"stage_{stage}_block_{block}_attention")
                x = self._block(x, attention, float(next(rates)), f"stage_{stage}_block_{block}")
            x = layers.Identity(name=f"stage_{stage}")(x)
        return keras.Model(image, layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x))

    def _merged(self, x: Any, stage: int) -> Any:
        """Halves height and width: four neighbours become one position, with a normalisation and a projection."""
        height, width, channels = x.shape[1:]
        name = f"stage_{stage}_merge"
        x = layers.Reshape((height // 2, 2, width // 2, 2, channels), name=f"{name}_split")(x)
        x = layers.Permute((1, 3, 4, 2, 5), name=f"{name}_neighbours")(x)
        x = layers.Reshape((height // 2, width // 2, 4 * channels), name=name)(x)
        x = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm")(x)
        return layers.Dense(2 * channels, use_bias=False, name=f"{name}_dense")(x)

    def _block(self, x: Any, attention: WindowAttention, rate: float, name: str) -> Any:
        channels = x.shape[-1]
        y = attention(layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm_1")(x))
        x = layers.Add(name=f"{name}_attended")([x, _dropped_path(y, rate, f"{name}_drop_1")])
        y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm_2")(x)
        y = layers.Dense(4 * channels, activation="gelu", name=f"{name}_dense_1")(y)
        y = layers.Dense(channels, name=f"{name}_dense_2")(y)
        return layers.Add(name=f"{name}_out")([x, _dropped_path(y, rate, f"{name}_drop_2")])

    def set_weights(self, model: keras.Model, reference: Any) -> None:
        """Sets the weights of a model of `build` from those of a `keras_hub.models.SwinTransformerBackbone`."""

        def copy(name: str, layer: Any) -> None:
            model.get_layer(name).set_weights(layer.get_weights())

        copy("patch_embedding", reference.patch_embedding.proj)
        copy("patch_norm", reference.patch_embedding.norm)
        copy("norm", reference.norm)
        for stage, source in enumerate(reference.stages, start=1):
            for block, other in enumerate(source.blocks, start=1):
                name = f"stage_{stage}_block_{block}"
                copy(f"{name}_norm_1", other.norm1)
                copy(f"{name}_norm_2", other.norm2)
                copy(f"{name}_dense_1", other.mlp.fc1)
                copy(f"{name}_dense_2", other.mlp.fc2)
                table = keras.ops.convert_to_numpy(other.attn.relative_position_bias_table)
                projections = [*other.attn.qkv.get_weights(), *other.attn.proj.get_weights()]
                model.get_layer(f"{name}_attention").set_weights([table, *projections])
            if source.downsample is not None:
                copy(f"stage_{stage + 1}_merge_norm", source.downsample.norm)
                copy(f"stage_{stage + 1}_merge_dense", source.downsample.reduction)


def _dropped_path(x: Any, rate: float, name: str) -> Any:
    """Stochastic depth: leaves a branch out for some images of a batch, in training."""
    return layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name)(x) if rate else x

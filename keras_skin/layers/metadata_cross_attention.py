"""Cross-attention from metadata to the positions of a feature map."""

from __future__ import annotations

from typing import Any

import keras


def metadata_cross_attention(
    features: Any, metadata: Any, heads: int = 4, width: int = 512, name: str = "metadata_cross_attention"
) -> Any:
    """Applies cross-attention with the metadata as the only query and the positions of a feature map as keys and values.

    Source: Khurshid et al., Sci. Rep. 2025 (DualRefNet), "Ablation study": multi-head attention, four heads, embedding
    dimension 512.

    Args:
        features: symbolic feature maps (B, H, W, C).
        metadata: symbolic metadata vector (B, width).
        heads: number of heads.
        width: embedding dimension, a multiple of `heads`.
        name: prefix of the layers.

    Returns:
        Symbolic tensor (B, width): the attention's result, without the metadata.
    """
    height, columns, channels = features.shape[1:]
    positions = keras.layers.Reshape((height * columns, channels), name=f"{name}_positions")(features)
    query = keras.layers.Reshape((1, metadata.shape[-1]), name=f"{name}_query")(metadata)
    attention = keras.layers.MultiHeadAttention(heads, width // heads, output_shape=width, name=f"{name}_heads")
    return keras.layers.Reshape((width,), name=name)(attention(query, positions))

"""Multi-head attention between two sequences of tokens."""

from __future__ import annotations

from typing import Any

import keras


def cross_attention(query: Any, key: Any, value: Any, heads: int, name: str) -> Any:
    """Computes softmax(Q K^T / sqrt(d)) V in each head, concatenates the heads and projects them.

    Source: Vaswani et al., NeurIPS 2017, section 3.2, as equation 5 of Atiq and Fattah (paper 002), where query and value are of
    the image and the key is of the segmented image: token i of the result is a mean of the image's tokens j, weighted by the
    match of token j of the segmented image with token i of the image. Key and value must have the same length.

    The layer called `name` has two outputs, the result and the attention weights (B, heads, N, M), which sum to 1 over M. For
    pictures of the weights use: `keras.Model(model.input, model.get_layer(name).output[1])`.

    Args:
        query: symbolic tensor (B, N, C).
        key: symbolic tensor (B, M, C).
        value: symbolic tensor (B, M, C).
        heads: number of heads, a divisor of C; each is C / heads wide.
        name: name of the layer.

    Returns:
        Symbolic tensor (B, N, C).

    Raises:
        ValueError: if C cannot be divided by the number of heads, or key and value differ in length.
    """
    features = query.shape[-1]
    if heads < 1 or features % heads:
        raise ValueError(f"{features} features cannot be divided among {heads} heads.")
    if key.shape[1] != value.shape[1]:
        raise ValueError(f"Keys and values must have the same length; there are {key.shape[1]} keys and {value.shape[1]} values.")
    layer = keras.layers.MultiHeadAttention(heads, features // heads, name=name)
    result, _ = layer(query, value, key, return_attention_scores=True)
    return result

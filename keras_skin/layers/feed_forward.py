"""The feed-forward step of a transformer, with its residual connection and normalisation."""

from __future__ import annotations

from typing import Any

import keras


def feed_forward(tokens: Any, hidden: int, name: str) -> Any:
    """Computes LayerNorm(Z + FFN(Z)), where FFN is two dense layers with ReLU between them.

    Source: Vaswani et al., NeurIPS 2017, equation 2, as equation 6 of Atiq and Fattah (paper 002).

    Args:
        tokens: Z, symbolic tensor (B, N, C).
        hidden: units between the two dense layers.
        name: prefix of the layers, and name of the last one.

    Returns:
        Symbolic tensor (B, N, C).
    """
    x = keras.layers.Dense(hidden, activation="relu", kernel_initializer="he_normal", name=f"{name}_1")(tokens)
    x = keras.layers.Dense(tokens.shape[-1], name=f"{name}_2")(x)
    x = keras.layers.Add(name=f"{name}_sum")([tokens, x])
    return keras.layers.LayerNormalization(epsilon=1e-5, name=name)(x)

"""Maps of a cross-attention: its weights, drawn over the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_skin.explain.grad_cam import FEATURES
from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.explain.samples import write_bytes
from keras_skin.explain.views import in_batches

LAYER = "cross_attention"


def has_attention(model: keras.Model) -> bool:
    """Returns whether the model has a cross-attention between two feature maps."""
    return any(layer.name == LAYER for layer in model.layers)


def attention_maps(model: keras.Model, inputs: Mapping[str, np.ndarray], batch_size: int = 8) -> np.ndarray:
    """Returns how much attention each position of the image gets (paper 002, equation 5).

    The layer's weights are (B, heads, T, T) for T = h * w tokens. Weight (i, j) is the share of token j's value in the output of
    token i; the key of token j comes from the segmented image. Their mean over heads and i is what position j contributes to all
    tokens.

    Args:
        model: a model with `has_attention`. Its tokens are the positions of the layer `cam_features`, row by row.
        inputs: the model's inputs, (N, ...) each.
        batch_size: images per step.

    Returns:
        (N, h, w) float32 with mean 1. Uniform attention is 1 everywhere.
    """
    _, rows, columns, _ = model.get_layer(FEATURES).output.shape
    attention = keras.Model(model.input, model.get_layer(LAYER).output[1])

    def contributions(batch: dict[str, Any]) -> Any:
        return keras.ops.mean(keras.ops.cast(attention(batch, training=False), "float32"), axis=(1, 2))

    return in_batches(contributions, inputs, batch_size).reshape(-1, rows, columns) * rows * columns


def attention_sheet(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray],
    names: Sequence[str],
    path: Path,
    synthetic: bool = False,
) -> Path:
    """Draws images with their attention, each map from its minimum (no colour) to its maximum (white).

    Args:
        model: a model with `has_attention`.
        inputs: the model's inputs, with `image` and `segmented_image`, (N, ...) each.
        names: (N,) names of the images.
        path: PNG file to write.
        synthetic: whether the sheet says SYNTHETIC.
    """
    tiles = []
    for row, heat in enumerate(attention_maps(model, inputs)):
        low, high = float(heat.min()), float(heat.max())
        caption = [names[row], f"attention {low:.2f} to {high:.2f} times the mean"]
        scaled = (heat - low) / (high - low) if high - low > 1e-6 else np.zeros_like(heat)
        tiles.append(overlay(inputs["image"][row], scaled, caption=caption, synthetic=synthetic))
        tiles.append(overlay(inputs["segmented_image"][row], caption=["the keys come from this image"], synthetic=synthetic))
    title = ["Cross-attention: contribution of each position of the image, mean over heads and queries"]
    write_bytes(path, write_png(contact_sheet(tiles, title=title, synthetic=synthetic)))
    return path

"""Where a cross-attention looks: its weights as a map over the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.explain.samples import write_bytes

LAYER = "cross_attention"


def has_attention(model: keras.Model, layer: str = LAYER) -> bool:
    """Whether the model has a cross-attention between two maps."""
    return any(item.name == layer for item in model.layers)


def attention_maps(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray],
    layer: str = LAYER,
    features: str = "cam_features",
    batch_size: int = 8,
) -> np.ndarray:
    """How much attention each position of the image gets (paper 002, equation 5).

    The layer's weights, (B, heads, T, T) for T = h * w tokens, say for each head and each of the image's tokens i how much of the
    value of token j it takes, by the key of the segmented image at j. Their mean over heads and i is what position j contributes
    to all tokens.

    Args:
        model: a model with a layer whose second output are these weights.
        inputs: the model's inputs, (N, ...) each.
        layer: name of that layer.
        features: name of the layer whose output (B, h, w, C), row by row, are the tokens.
        batch_size: images in one step.

    Returns:
        (N, h, w) float32, with mean 1: 1 everywhere is attention that does not choose.
    """
    _, rows, columns, _ = model.get_layer(features).output.shape
    attention = keras.Model(model.input, model.get_layer(layer).output[1])
    found = []
    for start in range(0, len(next(iter(inputs.values()))), batch_size):
        weights = attention({key: value[start : start + batch_size] for key, value in inputs.items()}, training=False)
        received = keras.ops.mean(keras.ops.cast(weights, "float32"), axis=(1, 2))
        found.append(keras.ops.convert_to_numpy(received).reshape(-1, rows, columns) * rows * columns)
    return np.concatenate(found)


def attention_sheet(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray],
    names: Sequence[str],
    path: Path,
    synthetic: bool = False,
) -> Path:
    """A sheet of images and their attention, each map from its least value (no colour) to its greatest (white).

    Args:
        model: a model with `has_attention`.
        inputs: `image`, `segmented_image` and what else the model takes, (N, ...) each.
        names: (N,) names of the images.
        path: PNG file to write.
        synthetic: whether the sheet says SYNTHETIC.
    """
    tiles = []
    for row, heat in enumerate(attention_maps(model, inputs)):
        least, most = float(heat.min()), float(heat.max())
        caption = [names[row], f"attention {least:.2f} to {most:.2f} times the mean"]
        shown = (heat - least) / (most - least) if most - least > 1e-6 else np.zeros_like(heat)
        tiles.append(overlay(inputs["image"][row], shown, caption=caption, synthetic=synthetic))
        tiles.append(overlay(inputs["segmented_image"][row], caption=["keys are of this image"], synthetic=synthetic))
    title = ["Cross-attention: what each place of the image contributes, mean over heads and queries"]
    write_bytes(path, write_png(contact_sheet(tiles, title=title, synthetic=synthetic)))
    return path

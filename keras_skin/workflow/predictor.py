"""The model as it predicts: the trained network with what the experiment's block `predict` adds to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_skin.explain.views import image_names
from keras_skin.export.endpoints import SERVED
from keras_skin.run_folder import RunFolder

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
"""Flipped axes of an image (B, H, W, C): none, horizontal, vertical, both."""


def label_shift(shown: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    """Returns what to add to the logit of each class, so that its probability is that of a training with the wanted shares.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, section 4.1 (post-hoc): log(wanted / shown).

    Args:
        shown: share of each class in the training, times the weight of the class in the loss; not normalised.
        wanted: share of each class where the model is used; not normalised.

    Returns:
        Class -> shift; 0 for a class that was not shown or is not wanted, about which the training says nothing.
    """
    all_shown, all_wanted = sum(shown.values()), sum(wanted.values())
    return {
        name: float(np.log(wanted[name] / all_wanted) - np.log(share / all_shown)) if share and wanted.get(name) else 0.0
        for name, share in shown.items()
    }


def shift_logits(model: keras.Model, label_shift: Sequence[float] | None, mask_threshold: float) -> keras.Model:
    """Returns the model with what `predict` adds to its logits; the model itself if that is nothing.

    Args:
        model: functional model with outputs by name.
        label_shift: added to the logits of the output `label`; None adds nothing.
        mask_threshold: probability from which a pixel belongs to the lesion, above 0, below 1. The logits of the output `mask`
            are shifted so that this probability becomes 0.5.
    """
    shifts = {}
    if label_shift is not None:
        shifts["label"] = np.asarray(label_shift, np.float32)
    if mask_threshold != 0.5 and "mask" in model.output:
        shifts["mask"] = np.asarray(np.log1p(-mask_threshold) - np.log(mask_threshold), np.float32)
    outputs = {name: model.output[name] + shift for name, shift in shifts.items()}
    return keras.Model(model.input, {**model.output, **outputs}, name=model.name) if outputs else model


def average_flips(model: keras.Model) -> keras.Model:
    """Returns a model that averages the logits of each image and its three mirror images (test-time augmentation).

    The masks are flipped back before the mean. Logits are averaged, not probabilities: they are what all models return, their
    mean commutes with a shift of the logits, and its softmax is the normalised geometric mean of the four predictions. All images
    of the model (`image`, `segmented_image`) are flipped together, metadata are repeated. Other outputs are those of the plain
    image.

    Args:
        model: functional model with inputs and outputs by name.

    Returns:
        A model with the same inputs and weights, and those outputs of `SERVED` that the model has. It is four times as slow.
    """
    served = keras.Model(model.input, {name: model.output[name] for name in SERVED if name in model.output}, name=model.name)
    images = image_names(model)
    copies = {
        name: ops.concatenate([ops.flip(tensor, axes) if axes and name in images else tensor for axes in FLIPS])
        for name, tensor in model.input.items()
    }
    outputs = {}
    for name, tensor in served(copies).items():
        rows = ops.reshape(tensor, (len(FLIPS), -1, *tensor.shape[1:]))
        views = [rows[number] for number in range(len(FLIPS))]
        if name == "mask":
            views = [ops.flip(view, axes) if axes else view for view, axes in zip(views, FLIPS, strict=True)]
        outputs[name] = sum(views[1:], views[0]) / len(FLIPS) if name in ("label", "mask") else views[0]
    return keras.Model(model.input, outputs, name=f"{model.name}_flips")


def describe_prediction(folder: RunFolder) -> dict[str, str]:
    """Returns lines for the report's summary and the model card: how a prediction is made beside the model."""
    settings, lines = folder.experiment.predict, {}
    if settings.tta:
        lines["Test-time flips"] = "mean logits of the image and its three mirror images"
    if settings.mask_threshold != 0.5 and folder.experiment.losses.get("mask"):
        lines["Mask threshold"] = f"{settings.mask_threshold:g} (the logits are shifted, so that it becomes 0.5)"
    if settings.prior:
        shifts = ", ".join(f"{name} {value:+.2f}" for name, value in folder.record["label_prior"]["shift"].items())
        wanted = settings.prior if isinstance(settings.prior, str) else json.dumps(settings.prior)
        lines["Class prior"] = f"{wanted} (shift of the logits: {shifts})"
    return lines

"""Skin-lesion segmentation and diagnosis in Keras: published systems rebuilt, measured without leaks, explained and served.

Research software, not a medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_skin.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from keras_skin.workflow import Run

__all__ = ["__version__", "create_model", "list_datasets", "list_models", "load_run"]


def list_models() -> list[str]:
    """Returns the names of all models, sorted. Imports neither Keras nor TensorFlow."""
    from keras_skin import models

    return models.list_models()


def list_datasets() -> list[str]:
    """Returns the names of all data sets that can be read, sorted. Imports neither Keras nor TensorFlow."""
    from keras_skin.data.datasets import readers

    return readers.names()


def create_model(name: str, **arguments: Any) -> keras.Model:
    """Builds a model by its registered name, for example `create_model("jrl", variant="mtl2")`.

    Args:
        name: one of `list_models()`.
        **arguments: arguments of the builder. All builders take `image_size=(height, width)` and `classes`.

    Returns:
        A functional model from {"image": (B, H, W, 3) float32 RGB in 0..255} to a dictionary of float32 logits.

    Raises:
        UserError: if there is no such model, or if it does not take an argument.
    """
    from keras_skin import models

    return models.create_model(name, **arguments)


def load_run(folder: str | Path) -> Run:
    """Opens a finished run.

    Args:
        folder: the run folder, for example `"runs/jrl_ph2-20260131-101500"`.

    Returns:
        The run: its `model` with the best weights (`predictor` also has the test-time flips, if any), its experiment, classes and
        metrics.

    Raises:
        UserError: if the folder does not hold a finished run.
    """
    from keras_skin.workflow import load_run as load

    return load(folder)

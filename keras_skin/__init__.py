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
    """Names of the models; imports neither Keras nor TensorFlow."""
    from keras_skin import models

    return models.names()


def list_datasets() -> list[str]:
    """Names of the data sets that can be read; imports neither Keras nor TensorFlow."""
    from keras_skin.data.datasets import readers

    return readers.names()


def create_model(name: str, **arguments: Any) -> keras.Model:
    """Builds the model called `name`, for example `create_model("jrl", variant="mtl2")`. See `keras_skin.models.create_model`."""
    from keras_skin import models

    return models.create_model(name, **arguments)


def load_run(folder: str | Path) -> Run:
    """Opens a finished run: its model with the best weights, its experiment, classes and metrics."""
    from keras_skin.workflow import load_run as load

    return load(folder)

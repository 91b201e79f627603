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

__all__ = ["__version__", "create_model", "from_preset", "list_datasets", "list_models", "list_presets", "load_run"]


def list_models() -> list[str]:
    """Returns the names of all models, sorted. Imports neither Keras nor TensorFlow."""
    from keras_skin import models

    return models.list_models()


def list_datasets() -> list[str]:
    """Returns the names of all data sets that can be read, sorted. Imports neither Keras nor TensorFlow."""
    from keras_skin.data.datasets import readers

    return readers.names()


def list_presets() -> list[str]:
    """Returns the names of the presets that the package ships, sorted. Imports neither Keras nor TensorFlow."""
    from keras_skin.presets import sources

    return sources.list_presets()


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


def from_preset(preset: str | Path) -> keras.Model:
    """Returns a trained model with its weights, in float32.

    ```python
    model = keras_skin.from_preset("jrl_isic_lite")
    logits = model.predict({"image": images})  # images: (B, H, W, 3), RGB in 0..255, at the size of model.input
    probabilities = keras.ops.softmax(logits["label"])  # in the order of load_run("jrl_isic_lite").classes
    lesion = logits["mask"] > 0  # (B, H, W, 1)
    ```

    `load_run` opens a preset with its experiment, class names and measured numbers.

    Args:
        preset: one of `list_presets()`; the folder of a preset; a `.zip` file; or `"https://HOST/NAME.zip#sha256=CHECKSUM"`,
            which is downloaded once into the user's cache and checked before it is opened.

    Raises:
        UserError: if there is no such preset, or a file is missing, has changed or does not belong to a preset.
    """
    from keras_skin.presets.sources import locate_preset
    from keras_skin.workflow import load_run as load

    return load(locate_preset(str(preset))).model


def load_run(folder: str | Path) -> Run:
    """Opens a finished run or a preset.

    Args:
        folder: the run folder, for example `"runs/jrl_ph2-20260131-101500"`, or a preset, see `from_preset`.

    Returns:
        The run: its `model` with the best weights (`predictor` also has the test-time flips, if any), its experiment, classes and
        metrics.

    Raises:
        UserError: if the folder holds neither a finished run nor a preset.
    """
    from keras_skin.presets.sources import locate
    from keras_skin.workflow import load_run as load

    return load(locate(str(folder)))

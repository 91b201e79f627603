"""Editions for other runtimes: one signature that takes images and returns numbers, without strings."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_skin.export.about import specs
from keras_skin.export.contract import PREDICT_IMAGES
from keras_skin.export.endpoints import Endpoints, Tensors
from keras_skin.registry import UserError

MODEL = "model.tflite"


def write_images(endpoints: Endpoints, folder: Path, batch: int | None = None) -> dict[str, Any]:
    """Writes a SavedModel with the signature `predict_images` alone and without class names.

    Converters such as OpenVINO's read it; the strings of the full export stop them.

    Args:
        endpoints: those of the model.
        folder: the folder to write.
        batch: fixed batch size; None for any size.

    Returns:
        The signatures, described as in `model.json`.
    """
    inputs: Tensors = {
        key: tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, name=key)
        for name, image, _ in endpoints.all()
        if name == PREDICT_IMAGES
        for key, spec in image.items()
    }

    def numbers(inputs: Tensors) -> Tensors:
        return {key: value for key, value in endpoints.predict_images(inputs).items() if value.dtype != tf.string}

    archive = keras.export.ExportArchive()
    graph = archive.add_endpoint(PREDICT_IMAGES, numbers, input_signature=[inputs])
    archive.write_out(str(folder), verbose=False)
    return {PREDICT_IMAGES: {"inputs": specs(inputs), "outputs": specs(graph.get_concrete_function().structured_outputs)}}


def write_litert(endpoints: Endpoints, folder: Path) -> dict[str, Any]:
    """Writes `model.tflite`, which takes one image at a time and stores its weights in float16.

    Returns:
        The signatures, described as in `model.json`.

    Raises:
        UserError: if LiteRT lacks an operation of the model; names it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "plain"
        signatures = write_images(endpoints, plain, batch=1)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(plain), signature_keys=[PREDICT_IMAGES])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        try:
            converted = converter.convert()
        except Exception as error:  # ConverterError is not public
            missing = re.search(r"TF Select ops: (.+)", str(error))
            reason = f"it does not have {missing[1].strip()}" if missing else str(error)[:500]
            raise UserError(f"LiteRT cannot run this model: {reason}. Export another edition.") from error
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(converted)
    return signatures

"""Editions for other runtimes: images and numbers in, numbers out; no bytes, no texts, one endpoint."""

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
    """Writes a SavedModel with the signature `predict_images` alone and without its class names, which converters such as
    OpenVINO's read; they fail at the bytes and texts of the other signatures.

    Args:
        endpoints: of the model.
        folder: to write.
        batch: fixed number of images; any if None.

    Returns:
        The signatures, described as in `model.json`.
    """
    inputs: Tensors = {
        key: tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, name=key)
        for name, given, _ in endpoints.all()
        if name == PREDICT_IMAGES
        for key, spec in given.items()
    }

    def numbers(given: Tensors) -> Tensors:
        return {key: value for key, value in endpoints.predict_images(given).items() if value.dtype != tf.string}

    archive = keras.export.ExportArchive()
    graph = archive.add_endpoint(PREDICT_IMAGES, numbers, input_signature=[inputs])
    archive.write_out(str(folder), verbose=False)
    return {PREDICT_IMAGES: {"inputs": specs(inputs), "outputs": specs(graph.get_concrete_function().structured_outputs)}}


def write_litert(endpoints: Endpoints, folder: Path) -> dict[str, Any]:
    """Writes `model.tflite`: one image at a time, weights in float16, half the size.

    Returns:
        The signatures, described as in `model.json`.

    Raises:
        UserError: naming the operations that LiteRT does not have.
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
            lacking = re.search(r"TF Select ops: (.+)", str(error))
            told = f"it does not have {lacking[1].strip()}" if lacking else str(error)[:500]
            raise UserError(f"LiteRT cannot run this model: {told}. The other editions can.") from error
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(converted)
    return signatures

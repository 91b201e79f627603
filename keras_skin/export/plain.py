"""Editions for other runtimes: one signature that takes images and returns numbers, without strings."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_skin.export.about import specs
from keras_skin.export.contract import PREDICT_IMAGES
from keras_skin.export.endpoints import Endpoints, Tensors
from keras_skin.registry import UserError

MODEL = "model.tflite"


def write_archive(archive: Any, folder: Path, variables: Sequence[keras.Variable]) -> None:
    """Writes an archive with its variables in the order of the models.

    Keras takes them from weak sets, whose order depends on memory addresses. In this order, two exports of one model have equal
    bytes in `variables/`. `saved_model.pb` is equal for the first exports of two processes; TensorFlow numbers functions through
    a process, so that later ones differ. `fingerprint.pb` always differs, because TensorFlow draws a number for it.

    Args:
        archive: a `keras.export.ExportArchive` with its endpoints.
        folder: the folder of the version.
        variables: the variables of the models in order.
    """
    positions = {id(variable.value): position for position, variable in enumerate(variables)}
    track = archive._filter_and_track_resources  # write_out calls it before it writes

    def track_in_order() -> None:
        track()
        tracked = list(archive._tf_trackable._all_variables)
        archive._tf_trackable._all_variables = sorted(tracked, key=lambda item: positions.get(id(item), len(positions)))

    archive._filter_and_track_resources = track_in_order
    archive.write_out(str(folder), verbose=False)


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
    write_archive(archive, folder, endpoints.variables)
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

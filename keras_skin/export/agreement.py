"""Compares an edition, loaded from its files as a server or a phone would, with the trained model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_skin.export.about import Agreement
from keras_skin.export.contract import PREDICT_IMAGES
from keras_skin.export.endpoints import Endpoints
from keras_skin.export.plain import MODEL

Arrays = Mapping[str, np.ndarray]


def measure_agreement(endpoints: Endpoints, folder: Path, edition: str, inputs: Arrays, split: str) -> Agreement:
    """Runs an edition and the trained model on the same inputs and measures the differences.

    Args:
        endpoints: those of the trained model, in float32.
        folder: the folder of the edition's version.
        edition: one of `EDITIONS`.
        inputs: the inputs of `predict_images`, (N, ...) each.
        split: the split that they are from.
    """
    count = len(inputs["image"])
    rows = [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(count)]
    reference = tf.function(endpoints.predict_images, reduce_retracing=True)
    ask = _litert(folder / MODEL) if edition == "litert" else _saved_model(folder)
    ask(rows[0])  # the first call builds the graph
    expected, answers, seconds = [], [], []
    for row in rows:
        expected.append({key: value.numpy() for key, value in reference(_tensors(row)).items()})
        start = time.perf_counter()
        answers.append(ask(row))
        seconds.append(time.perf_counter() - start)

    def both(key: str) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([item[key] for item in answers]), np.concatenate([item[key] for item in expected])

    agreement: Agreement = {"images": count, "split": split, "milliseconds": 1000 * float(np.median(seconds))}
    if "probabilities" in expected[0]:
        values, references = both("probabilities")
        agreement["probabilities"] = float(np.abs(values - references).max())
        agreement["same_label"] = float((values.argmax(1) == references.argmax(1)).mean())
    if "mask" in expected[0]:
        values, references = both("mask")
        agreement["mask"] = float(np.abs(values - references).max())
        agreement["mask_dsc"] = float(np.mean([_dsc(a > 0.5, b > 0.5) for a, b in zip(values, references, strict=True)]))
    return agreement


def _saved_model(folder: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures[PREDICT_IMAGES]

    def ask(row: Arrays, _loaded: object = loaded) -> dict[str, np.ndarray]:  # keeps the variables alive
        return {key: value.numpy() for key, value in signature(**_tensors(row)).items()}

    return ask


def _litert(file: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    with warnings.catch_warnings():  # tf.lite announces its move to a package of its own
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_path=str(file))
    runner = interpreter.get_signature_runner(PREDICT_IMAGES)
    return lambda row: runner(**row)


def _tensors(row: Arrays) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array, tf.float32) for name, array in row.items()}


def _dsc(first: np.ndarray, second: np.ndarray) -> float:
    """Dice similarity of two masks; 1 if both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0

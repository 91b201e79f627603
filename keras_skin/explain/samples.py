"""The images to explain, with everything that pictures and measurements of an explanation need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_skin.registry import atomic_path


class ExplainSample(NamedTuple):
    """One image to explain.

    Attributes:
        image_id: names the image's folder.
        inputs: the model's inputs, without the batch axis.
        label: index of the true class.
        mask: the true mask (h, w) of any size, > 0.5 is lesion.
        image: the picture to draw on, RGB 0..255 of any size; by default `inputs["image"]`.
        metadata: the clinical fields as texts, for captions.
        group: patient or lesion; intervals resample groups. By default each image is a group.
    """

    image_id: str
    inputs: Mapping[str, np.ndarray]
    label: int | None = None
    mask: np.ndarray | None = None
    image: np.ndarray | None = None
    metadata: Mapping[str, str] | None = None
    group: str | None = None

    @property
    def picture(self) -> np.ndarray:
        """The picture to draw on, RGB 0..255."""
        if self.image is not None:
            return self.image
        return next(self.inputs[key] for key in ("image", "segmented_image") if key in self.inputs)


def as_samples(samples: Iterable[ExplainSample | Mapping[str, Any]]) -> list[ExplainSample]:
    """Returns samples, made from samples or from mappings with their fields."""
    return [sample if isinstance(sample, ExplainSample) else ExplainSample(**sample) for sample in samples]


def stack_inputs(samples: Sequence[ExplainSample]) -> dict[str, np.ndarray]:
    """Returns the inputs of several samples as one batch."""
    return {key: np.stack([sample.inputs[key] for sample in samples]) for key in samples[0].inputs}


def stratified_sample(labels: Sequence[Any], n: int, seed: int) -> np.ndarray:
    """Returns the sorted indices of up to `n` entries, taken from the classes in turn, so that rare classes are included."""
    generator = np.random.default_rng(seed)
    values = np.asarray(labels, dtype=str)
    queues = [generator.permutation(np.flatnonzero(values == value)) for value in np.unique(values)]
    ranks = np.concatenate([np.arange(len(queue)) for queue in queues] or [np.empty(0, int)])
    order = np.argsort(ranks, kind="stable")
    return np.sort(np.concatenate([*queues, np.empty(0, int)]).astype(int)[order[:n]])


def folder_names(image_ids: Sequence[str]) -> list[str]:
    """Returns a folder name for each image: unique, and without path separators."""
    names: list[str] = []
    for image_id in image_ids:
        name, number = file_name(image_id), 2
        while name in names:
            name, number = f"{file_name(image_id)}_{number}", number + 1
        names.append(name)
    return names


def file_name(text: str) -> str:
    """Returns the letters, digits, `_` and `-` of a text."""
    return re.sub(r"[^\w-]+", "_", str(text)).strip("_") or "unnamed"


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a `.npy` file."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is complete or absent."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)

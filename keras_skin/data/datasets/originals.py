"""Finds the image and mask files of the images that a run has measured, wherever its data sets are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import locate, read_dataset
from keras_skin.registry import UserError

CHOICES = ("name", "folder", "labels", "parts", "optional", "without")
"""Settings of a data set in an experiment that are not arguments of its reader."""


@dataclass(frozen=True)
class Originals:
    """Files by (data set, image id).

    Attributes:
        files: paths of image and mask, "" where there is no mask.
        synthetic: whether one of the data sets was rendered.
        problems: why files are missing, a sentence for each data set.
    """

    files: Mapping[tuple[str, str], tuple[str, str]]
    synthetic: bool
    problems: tuple[str, ...]


def find_originals(experiment: Mapping[str, Any], images: Iterable[tuple[str, str]], data_dir: Path | None) -> Originals:
    """Finds the files of images by the tables of an experiment's data sets; no image is opened.

    Args:
        experiment: the content of a run's experiment.json.
        images: (data set, image id) of the images.
        data_dir: folder of the data sets.
    """
    data = experiment["data"]
    datasets = [data["train"], data.get("test"), *data.get("external", []), *data.get("extra_train", [])]
    files: dict[tuple[str, str], tuple[str, str]] = {}
    synthetic, problems = False, []
    images = list(images)
    for name in dict.fromkeys(name for name, _ in images):
        settings = next((dict(item) for item in datasets if item and item["name"] == name), {"name": name})
        arguments: Any = {key: value for key, value in settings.items() if key not in CHOICES}
        try:
            root, _ = locate(readers.get(name), data_dir, settings.get("folder"))
            records = read_dataset(name, data_dir, settings.get("folder"), check_images=False, **arguments)
        except UserError as error:
            problems.append(str(error).splitlines()[0])
            continue
        rows = records.table[["image_id", "image", "mask"]].itertuples(index=False)
        files |= {(name, image_id): (image, mask) for image_id, image, mask in rows}
        synthetic |= (root / "SYNTHETIC.txt").is_file()
        missing = [image_id for dataset, image_id in images if dataset == name and (name, image_id) not in files]
        if missing:
            problems.append(f"{len(missing)} images of {name} are not in {root}, the first is {missing[0]}.")
    return Originals(files, synthetic, tuple(problems))

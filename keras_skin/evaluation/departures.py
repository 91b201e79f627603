"""How a run departs from the experiment of a paper, and whether the printed numbers can stand beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keras_skin.evaluation.comparison import flattened


class DepartureKind(StrEnum):
    """What is not as in the paper."""

    ENCODER = "encoder"
    MODEL = "model"
    IMAGES = "images"
    SPLIT = "split"
    SIZE = "size"
    LENGTH = "length"
    RECIPE = "recipe"


NOT_COMPARABLE = {DepartureKind.ENCODER, DepartureKind.MODEL, DepartureKind.IMAGES, DepartureKind.SPLIT}
"""With one of these, the printed number belongs to another experiment."""
_SAME_IMAGES = ("folder", "optional")
"""Arguments of a data set that do not change its images."""
_NOT_MEASURED = ("data.leak_guard", "data.on_bad_image", "data.external")
"""Keys of the data block that change neither the training images nor those of the test split."""
_DEFAULT = "null"
"""Stands for an argument that only the other experiment names."""
_ENCODERS = ("model.backbone", "model.encoder")
_OFFICIAL, _BY_IMAGE = "official", "image by image"


@dataclass(frozen=True)
class Departure:
    """One departure from the paper, in a few words."""

    kind: DepartureKind
    text: str

    @property
    def comparable(self) -> bool:
        """Whether the printed number can still stand beside the measured one."""
        return self.kind not in NOT_COMPARABLE


def departures(
    settings: Mapping[str, Any], paper: Mapping[str, Any], missing_images: Mapping[str, int] | None = None
) -> list[Departure]:
    """Compares the settings of a run with those of the experiment file that holds the printed numbers.

    The experiment files of papers that split image by image keep patients and lesions together, unless `split.protocol` is
    `paper`: that is a departure, too.

    Args:
        settings: resolved experiment of the run.
        paper: resolved experiment of the paper's row.
        missing_images: images that were not on the disk, by data set, see `RunFolder.missing_images`.
    """
    run, row = dict(flattened(_without_places(settings))), dict(flattened(_without_places(paper)))
    keys = [key for key in dict.fromkeys([*run, *row]) if run.get(key) != row.get(key)]
    result = []
    encoders = {key: run.get(key, _DEFAULT) for key in keys if key in _ENCODERS}
    names = [name for key, name in encoders.items() if _network(name) != _network(row.get(key, _DEFAULT))]
    if names:
        result.append(Departure(DepartureKind.ENCODER, f"other encoder: {', '.join(names)}"))
    model = [key for key in keys if key.startswith("model.") and key not in (*_ENCODERS, "model.weights")]
    if model:
        values = ", ".join(f"{key.removeprefix('model.')} {run.get(key, 'default')}" for key in model)
        result.append(Departure(DepartureKind.MODEL, f"other model: {values}"))
    data = [key for key in keys if key.startswith("data.") and key not in _NOT_MEASURED]
    if data:
        result.append(Departure(DepartureKind.IMAGES, f"other images: {', '.join(data)}"))
    for name, count in (missing_images or {}).items():
        result.append(Departure(DepartureKind.IMAGES, f"{count:,} images of {name} are missing"))
    split, paper_split = _split(settings["split"]), _OFFICIAL if paper["split"]["scheme"] == "official" else _BY_IMAGE
    if split != paper_split:
        result.append(Departure(DepartureKind.SPLIT, f"split {split}, the paper's {paper_split}"))
    if "image.size" in keys:
        sizes = ["x".join(map(str, values["image"]["size"])) for values in (settings, paper)]
        result.append(Departure(DepartureKind.SIZE, f"input of {sizes[0]} pixels instead of {sizes[1]}"))
    length = training_length(settings, paper)
    if length:
        result.append(Departure(DepartureKind.LENGTH, length))
    handled = (
        *encoders,
        "image.size",
        "train.epochs",
        "train.steps_per_epoch",
        "train.seed",
        "data.external",
        *model,
        *data,
    )
    rest = [key for key in keys if key not in handled and not key.startswith("split.")]
    if rest:
        result.append(Departure(DepartureKind.RECIPE, f"other settings: {', '.join(dict.fromkeys(map(_block, rest)))}"))
    return result


def training_length(settings: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    """How much shorter or longer the training is than the paper's, in words; "" if it has the paper's length."""
    run, row = settings["train"], paper["train"]
    texts = []
    if run["epochs"] != row["epochs"]:
        texts.append(f"{run['epochs']} epochs instead of {row['epochs']}")
    if run["steps_per_epoch"] != row["steps_per_epoch"]:
        steps, paper_steps = (
            f"{value} steps" if value else "all images" for value in (run["steps_per_epoch"], row["steps_per_epoch"])
        )
        texts.append(f"{steps} per epoch instead of {paper_steps}")
    return ", ".join(texts)


def _block(key: str) -> str:
    """The block of a setting: `train.optimizer`, `losses`."""
    return ".".join(key.split(".")[: 2 if key.startswith(("train.", "image.", "model.", "data.")) else 1])


def _network(backbone: str) -> str:
    """The network of a backbone: `mobilenet_v2_torch` is MobileNetV2 with the weights of another library."""
    return backbone.removesuffix("_torch")


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the folders of the data sets."""

    def plain(dataset: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if dataset is None else {key: value for key, value in dataset.items() if key not in _SAME_IMAGES}

    data = settings["data"]
    lists = {name: [plain(item) for item in data[name]] for name in ("extra_train", "external")}
    return {**settings, "data": {**data, "train": plain(data["train"]), "test": plain(data["test"]), **lists}}


def _split(split: Mapping[str, Any]) -> str:
    """What a split keeps together."""
    if split["scheme"] in ("official", "file"):
        return _OFFICIAL if split["scheme"] == "official" else "from a file"
    return _BY_IMAGE if split["protocol"] == "paper" else "by patient or lesion"

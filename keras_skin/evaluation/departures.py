"""How a run departs from the experiment of a paper, and whether the printed numbers can stand beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keras_skin.experiment.changes import ABSENT, differences, without_places


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
_NOT_MEASURED = ("data.leak_guard", "data.on_bad_image", "data.external")
"""Keys of the data block that change neither the training images nor those of the test split."""
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
    keys = differences(without_places(settings), without_places(paper))
    result = []
    encoders = {key: values for key, values in keys.items() if key in _ENCODERS}
    names = [_named(run) for run, row in encoders.values() if _network(run) != _network(row)]
    if names:
        result.append(Departure(DepartureKind.ENCODER, f"other encoder: {', '.join(names)}"))
    model = [key for key in keys if key.startswith("model.") and key not in (*_ENCODERS, "model.weights")]
    if model:
        texts = ", ".join(f"{key.removeprefix('model.')} {_named(keys[key][0], 'default')}" for key in model)
        result.append(Departure(DepartureKind.MODEL, f"other model: {texts}"))
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


def _named(value: str, default: str = "null") -> str:
    """A setting's value, or the word for an argument that only the other experiment names."""
    return default if value == ABSENT else value


def _network(backbone: str) -> str:
    """The network of a backbone: `mobilenet_v2_torch` is MobileNetV2 with the weights of another library."""
    return _named(backbone).removesuffix("_torch")


def _split(split: Mapping[str, Any]) -> str:
    """What a split keeps together."""
    if split["scheme"] in ("official", "file"):
        return _OFFICIAL if split["scheme"] == "official" else "from a file"
    return _BY_IMAGE if split["protocol"] == "paper" else "by patient or lesion"

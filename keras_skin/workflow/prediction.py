"""Predicts image files in batches with an exported model, the same graph that TensorFlow Serving runs."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.decode import decode_image, image_shape
from keras_skin.data.images.files import BadImage, check_image
from keras_skin.data.images.load import resize_image
from keras_skin.data.images.quality import quality_problems
from keras_skin.explain.overlay import overlay, write_png
from keras_skin.explain.samples import write_bytes
from keras_skin.export.contract import CONTRACT, EDITIONS, IMAGE_BYTES, SERVING_DEFAULT
from keras_skin.registry import UserError, clipped, shorten
from keras_skin.run_folder import PRESET
from keras_skin.training.best_weights import refuse_non_finite
from keras_skin.workflow.exporting import exported_preset

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
BATCH = 16
_EXPORT_AGAIN = "Export the run again: python -m keras_skin.export RUN --editions float32"
NO_LESION = "no lesion found"
_LONGEST_NAME = 230  # bytes; file systems allow 255 with the number, the ending and what a temporary name adds
_LONGEST = 640  # side of an overlay
_MASK = re.compile(r"(?P<image>.+)_(segmentation|mask)\.png", re.IGNORECASE)


@dataclass(frozen=True)
class ExportedModel:
    """A SavedModel with the serving contract.

    Attributes:
        folder: the folder of its version.
        about: the content of its assets/model.json.
        loaded: the loaded SavedModel, which holds the variables.
    """

    folder: Path
    about: Mapping[str, Any]
    loaded: Any

    def __call__(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Calls the signature `serving_default`."""
        outputs: dict[str, tf.Tensor] = self.loaded.signatures[SERVING_DEFAULT](**inputs)
        return outputs

    @property
    def classes(self) -> list[str]:
        """Labels in the order of the probabilities."""
        return list(self.about["classes"])

    @property
    def fields(self) -> dict[str, str]:
        """Its clinical fields and their kinds, `numeric` or `categorical`."""
        inputs = self.about["signatures"][SERVING_DEFAULT]["inputs"]
        kinds = {"string": "categorical"}
        return {name: kinds.get(spec["dtype"], "numeric") for name, spec in inputs.items() if name != IMAGE_BYTES}


class Picture(NamedTuple):
    """An image file.

    Attributes:
        file: its path as it was given.
        name: the name of its outputs, unique in any case: `path` without a suffix, with a number where another image has it.
        path: its path below the named folder, with "/"; the file's name if the file itself was named.
    """

    file: Path
    name: str
    path: str


def open_exported(path: Path) -> ExportedModel:
    """Opens the export of a run or of a preset.

    Args:
        path: a preset's folder (exported into the user's cache the first time), a run's folder, its saved_model folder (the
            newest version is taken) or the folder of a version.

    Raises:
        UserError: if there is no export of this package.
    """
    if (path / PRESET).is_file():
        path = exported_preset(path)
    folder = path / "saved_model" if (path / "saved_model").is_dir() else path
    versions = sorted((item for item in folder.glob("*") if item.name.isdigit()), key=lambda item: int(item.name))
    folder = versions[-1] if versions else folder
    about = folder / "assets" / "model.json"
    if not about.is_file():
        problem = "it does not exist" if not path.exists() else f"there is no {about.relative_to(path)} in it"
        raise UserError(
            f"'{path}' is neither a run with an exported model nor such a model: {problem}. Expected a finished run "
            "(with saved_model/) or one of its versions, such as saved_model/1."
        )
    try:
        content = json.loads(about.read_text(encoding="utf-8"))
        if not (isinstance(content["classes"], list) and isinstance(content["name"], str)):
            raise TypeError("its classes are no list, or its name is no text")
        signatures = {name: (dict(item["inputs"]), dict(item["outputs"])) for name, item in content["signatures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{about} is damaged ({type(error).__name__}: {error}). {_EXPORT_AGAIN}") from None
    if content.get("contract") != CONTRACT:
        raise UserError(
            f"'{folder}' was exported with serving contract {content.get('contract', 1)}; this version of keras_skin uses "
            f"{CONTRACT}. {_EXPORT_AGAIN}"
        )
    if SERVING_DEFAULT not in signatures:
        edition = content.get("edition")
        raise UserError(
            f"'{folder}' holds the edition '{edition}', which takes no image files: {EDITIONS.get(edition, 'unknown')}. "
            "Name the run, or its saved_model."
        )
    return ExportedModel(folder, content, _loaded(folder))


def _loaded(folder: Path) -> Any:
    """The SavedModel in a folder, with `serving_default` and finite weights.

    Raises:
        UserError: if it is damaged.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
        weights = {variable.name: variable.numpy() for variable in loaded.signatures[SERVING_DEFAULT].variables}
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:  # TensorFlow and protobuf raise exceptions of many kinds for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"The SavedModel in '{folder}' is damaged: {clipped(reason, 300)}. {_EXPORT_AGAIN}") from error
    refuse_non_finite(weights, f"The SavedModel in '{folder}'")
    return loaded


def find_pictures(paths: Sequence[Path]) -> tuple[list[Picture], list[str]]:
    """All image files below folders, without masks beside their images (`mole_segmentation.png`), and named files.

    Returns:
        Pictures in the order of `paths`, then by name, with unique names; sentences about skipped files.

    Raises:
        UserError: naming every missing path; or if there is no image at all.
    """
    absent = [f"  {path}: there is no such file or folder." for path in paths if not path.exists()]
    if absent:
        raise UserError("\n".join(["These cannot be read:", *absent]))
    pictures: dict[str, tuple[Path, str]] = {}
    others = masks = 0
    for path in paths:
        below = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        stems = {item.with_suffix("") for item in below if item.suffix.lower() in SUFFIXES}
        for file in below:
            if path.is_dir() and file.suffix.lower() not in SUFFIXES:
                others += 1
                continue
            if path.is_dir() and (mask := _MASK.fullmatch(file.name)) and file.with_name(mask["image"]) in stems:
                masks += 1
                continue
            root = path if path.is_dir() else path.parent
            pictures.setdefault(os.path.abspath(file), (file, file.relative_to(root).as_posix()))
    if not pictures:
        raise UserError(f"No image in {', '.join(map(str, paths))}: expected files that end in {', '.join(SUFFIXES)}.")
    named = _with_unique_names(list(pictures.values()))
    renamed = [
        f"  {file}: {picture_name}.png"
        for file, picture_name, path in named
        if picture_name != Path(path).with_suffix("").as_posix()
    ]
    notes = [f"{others} other files were skipped."] if others else []
    notes += [f"{masks} masks of these images were skipped."] if masks else []
    if renamed:
        notes.append(
            "\n".join(
                [
                    "The names of these are too long or those of other images, so their masks and overlays are called:",
                    *shorten(renamed),
                ]
            )
        )
    return named, notes


def _with_unique_names(files: Sequence[tuple[Path, str]]) -> list[Picture]:
    """The pictures of files and their paths. No name is that of another image, whatever the case and the form of its accents."""

    def same(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    taken = {same(_stem(path)) for _, path in files}
    first, pictures = set[str](), []
    for file, path in files:
        name, number = _stem(path), 2
        if same(name) in first:
            while same(f"{name}_{number}") in taken:
                number += 1
            name = f"{name}_{number}"
        first.add(same(name))
        taken.add(same(name))
        pictures.append(Picture(file, name, path))
    return pictures


def _stem(path: str) -> str:
    """The path without a suffix, its last name short enough for the files that are named after it."""
    stem = Path(path).with_suffix("")
    name = os.fsencode(stem.name)
    return (stem if len(name) <= _LONGEST_NAME else stem.with_name(name[:_LONGEST_NAME].decode(errors="ignore"))).as_posix()


def predict_files(
    model: ExportedModel, pictures: Sequence[Picture], answers: pd.DataFrame | None, folder: Path
) -> Iterator[list[dict[str, Any]]]:
    """Predicts in batches and writes masks and overlays below `folder`. Memory does not grow with the number of pictures.

    Args:
        model: the exported model.
        pictures: the images.
        answers: a row of texts for each of them, see `read_answers`; None if nothing is known.
        folder: where masks/ and overlays/ are written.

    Yields:
        For each batch its rows: `file`, `problem` (why it cannot be read, "" if it can), and if it can `quality` (problems
        of the picture, "" if none), `label` and `probability_<class>`, `lesion_share`, and the clinical fields.
    """
    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        contents = [_bytes(picture.file) for picture in batch]
        texts = {
            name: [""] * len(batch) if answers is None else answers[name].iloc[start : start + BATCH].tolist()
            for name in model.fields
        }
        fields = {
            name: tf.constant(texts[name] if kind == "categorical" else [float(text or -1) for text in texts[name]])
            for name, kind in model.fields.items()
        }
        outputs = {key: value.numpy() for key, value in model(image_bytes=tf.constant(contents), **fields).items()}
        yield [
            _row(model, picture, contents[row], {key: value[row] for key, value in outputs.items()}, folder)
            | {name: values[row] for name, values in texts.items()}
            for row, picture in enumerate(batch)
        ]


def columns(model: ExportedModel) -> list[str]:
    """The columns of predictions.csv."""
    outputs = model.about["signatures"][SERVING_DEFAULT]["outputs"]
    names = ["file", "quality"]
    if "probabilities" in outputs:
        names += ["label", *(f"probability_{name}" for name in model.classes)]
    return names + (["lesion_share"] if "mask" in outputs else []) + list(model.fields)


def small_image(contents: bytes) -> np.ndarray:
    """A small upright image of a file's contents, (h, w, 3) float32 in 0..255, no side longer than 640."""
    shape = image_shape(contents).numpy()
    scale = min(1.0, _LONGEST / float(shape.max()))
    size = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    small: np.ndarray = resize_image(decode_image(contents, size), size).numpy()
    return small


def _row(model: ExportedModel, picture: Picture, contents: bytes, outputs: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(picture.file), "problem": ""}
    if not outputs["valid"]:
        return row | {"problem": _reason(picture.file)}
    image = small_image(contents)
    quality, caption = quality_problems(image), [picture.file.name.encode(errors="backslashreplace").decode()]
    if "probabilities" in outputs:
        row["label"] = outputs["label"].decode()
        row |= {f"probability_{name}": float(p) for name, p in zip(model.classes, outputs["probabilities"], strict=True)}
        caption.append(f"{row['label']}, p = {float(np.max(outputs['probabilities'])):.2f}")
    mask = None
    if "mask" in outputs:
        mask = outputs["mask"][..., 0]
        row["lesion_share"] = float((mask > 0.5).mean())
        quality += [] if row["lesion_share"] else [NO_LESION]
        write_bytes(folder / "masks" / f"{picture.name}.png", outputs["mask_png_bytes"])
    picture_with_outline = overlay(
        image,
        predicted_mask=mask,
        caption=caption,
        remark=", ".join(quality),
        width=image.shape[1],
        synthetic=bool(model.about.get("synthetic")),
    )
    write_bytes(folder / "overlays" / f"{picture.name}.png", write_png(picture_with_outline))
    return row | {"quality": "; ".join(quality)}


def _bytes(file: Path) -> bytes:
    """The file's bytes; empty if it cannot be read, for which the model returns `valid` false."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _reason(file: Path) -> str:
    try:
        check_image(file)
    except BadImage as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return "it cannot be decoded"

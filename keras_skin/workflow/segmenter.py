"""Chaining: a finished run of a segmentation model cuts the lesions out for a classifier."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data import images, pipeline, splits
from keras_skin.data.cache_folder import cache_path
from keras_skin.data.fingerprints import fingerprints
from keras_skin.data.leaks import FITTED
from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.registry import UserError, atomic_path
from keras_skin.training.fit import BEST_WEIGHTS
from keras_skin.workflow.folder import RunFolder
from keras_skin.workflow.trained_model import SEGMENTER, Run, load_run
from keras_skin.workflow.training import preprocessing

log = logging.getLogger("keras_skin")

_KEPT = ("experiment.json", "run.json", "splits.csv", "metrics.json", f"checkpoints/{BEST_WEIGHTS}")
_RECORD = "record.json"
_BATCH = 16


def adopt_segmenter(folder: RunFolder, name: str) -> Path:
    """Puts what is needed of a segmenter's run into the folder of the run that is chained to it, where it is found again whatever
    becomes of the other; its `record.json` tells its name and the SHA-256 of its weights.

    Args:
        folder: of the run that begins or goes on. One that has a segmenter already keeps it.
        name: the run's folder, or the beginning of its name, without date and time.

    Returns:
        The segmenter's folder, inside `folder`.

    Raises:
        UserError: if there is no such run, or none that is finished; or if the weights are no longer those of the beginning.
    """
    target = folder / SEGMENTER
    if not target.is_dir():
        shared = folder.path.parent / SEGMENTER  # of all folds, or of a demo
        source = shared if shared.is_dir() else find_run(name)
        log.info("Segmenter: %s", source)
        record = {"run": source.name, "weights_sha256": _sha256(source / "checkpoints" / BEST_WEIGHTS)}
        with atomic_path(target) as temporary:
            for file in _KEPT:
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                _link(source / file, temporary / file)
            if source == shared:
                record["run"] = segmenter_record(RunFolder(folder.path.parent))["run"]
            RunFolder(temporary).write_json(_RECORD, record)
    began, now = segmenter_record(folder)["weights_sha256"], _sha256(target / "checkpoints" / BEST_WEIGHTS)
    if began != now:
        raise UserError(
            f"The segmenter in '{target}' has other weights than when this run began ({began[:12]}, now {now[:12]}). "
            "Begin a new run."
        )
    return target


def segmenter_record(folder: RunFolder) -> dict[str, str]:
    """What a run's segmenter was: the name of its `run`, and `weights_sha256`."""
    record: dict[str, str] = folder.read_json(f"{SEGMENTER}/{_RECORD}")
    return record


def find_run(name: str) -> Path:
    """The folder of a finished run.

    Args:
        name: the folder, or the beginning of its name: `runs/deep_unet_isic2018` finds
            `runs/deep_unet_isic2018-20260131-120000`. Demos and dry runs are found by their whole name only.

    Raises:
        UserError: telling what is there instead.
    """
    path = Path(name).expanduser()
    dated = re.compile(re.escape(path.name) + r"-\d{8}-\d{6}(-\d+)?")
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    found = [path] if (path / "experiment.json").is_file() else [item for item in beside if dated.fullmatch(item.name)]
    finished = [item for item in found if all((item / file).is_file() for file in _KEPT)]
    if finished:
        return max(finished, key=lambda item: item.name)
    if found:
        raise UserError(
            f"segmenter.run: no run of '{name}' has finished: {', '.join(map(str, found))}.\n"
            f"Continue it: python -m keras_skin.run --resume {found[-1]}"
        )
    folders = ", ".join(item.name for item in beside if (item / "experiment.json").is_file()) or "no runs"
    raise UserError(
        f"segmenter.run: there is no run '{name}'. In '{path.parent}' there are: {folders}.\n"
        f"Train one first, for example: python -m keras_skin.run deep_unet_isic2018 --data DIR --out {path.parent}\n"
        "or name another finished run of a segmentation model: --set segmenter.run=FOLDER"
    )


def open_segmenter(path: Path) -> Run:
    """The segmenter in a run's folder, opened.

    Raises:
        UserError: if it is no model from one image to a mask.
    """
    run = load_run(path)
    if list(run.model.input) != ["image"] or "mask" not in run.model.output:
        raise UserError(
            f"segmenter.run: '{run.experiment.model.name}' makes {', '.join(run.model.output)} of {', '.join(run.model.input)}; "
            "expected a model that makes a mask of an image alone, such as deep_unet."
        )
    return run


def fitted_images(path: Path) -> pd.DataFrame:
    """The images that a segmenter was trained or chosen on, as `splits.csv` has them."""
    parts = splits.read_splits(path / "splits.csv")
    return parts[parts["split"].isin(FITTED)].reset_index(drop=True)


def predicted_lesions(segmenter: Run, files: Sequence[str], folder: Path) -> list[str]:
    """PNG masks of the lesions in image files, at the segmenter's size, predicted once.

    Kept below the user's cache by the contents of the image and all that the mask depends on; in `folder` where the cache cannot
    be written.

    Returns:
        The masks' files, in the order of `files`.
    """
    try:
        place = cache_path() / "lesions" / _digest(segmenter)
        place.mkdir(parents=True, exist_ok=True)
        writable = os.access(place, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        place = folder / "lesions"
        place.mkdir(exist_ok=True)
    targets = [place / f"{digest}.png" for digest in fingerprints(files)["sha256"]]
    missing = {target: file for target, file in zip(targets, files, strict=True) if not target.is_file()}
    if missing:
        log.info("Segmenting %d images", len(missing))
        table = pd.DataFrame({"image_id": list(missing.values()), "image": list(missing.values()), "mask": "", "label": ""})
        size, operations = segmenter.experiment.image_size, preprocessing(segmenter.experiment)
        data = pipeline.evaluation_data(table, (), size, ["image"], [], _BATCH, preprocessing=operations)
        waiting, predict = iter(missing), lesion_masks(segmenter.model)
        for inputs, _ in data:
            for mask in predict(inputs["image"]).numpy():
                with atomic_path(next(waiting)) as temporary:
                    temporary.write_bytes(_png(mask[..., 0]))
    return [str(target) for target in targets]


def lesion_masks(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from images (B, H, W, 3), pre-processed, to masks (B, H, W, 1) float32 of 0 and 1 at the model's size."""
    masks = keras.Model(model.input, model.output["mask"])

    @tf.function(reduce_retracing=True)
    def predict(image: tf.Tensor) -> tf.Tensor:
        return tf.cast(masks({"image": image}, training=False) > 0.0, tf.float32)

    return predict


def describe_lesions(table: pd.DataFrame) -> list[str]:
    """Sentences on the masks in the column `lesion`: where no lesion was found, and how far they agree with `mask`."""
    areas: list[float] = []
    overlaps: list[float] = []
    for lesion, mask in zip(table["lesion"], table["mask"], strict=True):
        found = images.load_mask(lesion).numpy()
        areas.append(float(found.mean()))
        if mask and len(overlaps) < 500:
            truth = images.load_mask(mask, found.shape[:2]).numpy()
            overlaps.append(2 * float((truth * found).sum()) / max(float(truth.sum() + found.sum()), 1.0))
    empty = [name for name, area in zip(table["image_id"], areas, strict=True) if area == 0]
    notes = [f"Segmenter: the lesion covers {np.median(areas):.0%} of an image (median of {len(areas)})."]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        notes.append(f"Segmenter: no lesion found in {len(empty)} images, whose segmented image is black: {shown}.")
    if overlaps:
        notes.append(
            f"Segmenter: mean DSC {np.mean(overlaps):.3f} with the data set's own masks ({len(overlaps)} images, at the "
            "segmenter's size)."
        )
    return notes


def lesion_sheet(table: pd.DataFrame, path: Path, size: tuple[int, int], synthetic: bool, images_shown: int = 8) -> Path:
    """A sheet of images, masks and lesions cut out (paper 002, figure 2), from the smallest lesion to the largest.

    Args:
        table: rows with `image_id`, `image` and `lesion`.
        path: PNG file to write.
        size: (height, width) at which the model sees them.
        synthetic: whether the sheet says SYNTHETIC.
        images_shown: at most so many, evenly spread over the areas of the lesions.
    """
    areas = np.array([float(images.load_mask(lesion).numpy().mean()) for lesion in table["lesion"]])
    places = np.unique(np.linspace(0, len(table) - 1, min(images_shown, len(table))).round().astype(int))
    tiles = []
    for row in np.argsort(areas, kind="stable")[places]:
        image = images.load_image(table["image"].iloc[row], size).numpy()
        mask = images.load_mask(table["lesion"].iloc[row], size).numpy()
        name = str(table["image_id"].iloc[row])
        share = f"lesion: {areas[row]:.0%} of the image" if areas[row] else "no lesion found"
        tiles += [
            overlay(image, None, caption=[name], synthetic=synthetic),
            overlay(np.repeat(mask * 255.0, 3, axis=-1), None, caption=[share], synthetic=synthetic),
            overlay(image * mask, None, caption=["image x mask"], synthetic=synthetic),
        ]
    title = ["Images, masks and lesions cut out, from the smallest lesion to the largest"]
    with atomic_path(path) as temporary:
        temporary.write_bytes(write_png(contact_sheet(tiles, columns=6, title=title, synthetic=synthetic)))
    return path


def _digest(segmenter: Run) -> str:
    """Everything that a predicted mask depends on beside its image."""
    settings = segmenter.experiment
    recipe = [
        _sha256(segmenter.folder / "checkpoints" / BEST_WEIGHTS),
        settings.model.model_dump(mode="json"),
        settings.image.model_dump(mode="json"),
    ]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    """The file a second time; weights are never changed in place, so a hard link will do where there can be one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _png(mask: np.ndarray) -> bytes:
    written, data = cv2.imencode(".png", (mask > 0.5).astype(np.uint8) * 255)
    assert written
    return data.tobytes()

"""The lesions that a segmenter cuts out of the images of a run: predicted once, described, and shown."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.cache import LESIONS, cache_path, private_folder
from keras_skin.data.images.load import load_image, load_mask, segmented_image
from keras_skin.data.pipeline import batches
from keras_skin.data.splits.fingerprints import fingerprints
from keras_skin.explain.attention import attention_sheet, has_attention
from keras_skin.explain.map_files import Sheet
from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.explain.samples import stratified_sample, write_bytes
from keras_skin.run_folder import RunFolder
from keras_skin.workflow.opened_run import ActiveRun, Run
from keras_skin.workflow.prepare import PreparedData

log = logging.getLogger("keras_skin")

_BATCH = 16


def with_lesions(folder: RunFolder, data: PreparedData, segmenter: Run) -> PreparedData:
    """The data with the masks that the segmenter predicts."""
    table = data.table.assign(lesion=predicted_lesions(segmenter, data.table["image"].tolist(), folder.path))
    notes = describe_lesions(table)
    for note in notes:
        log.info("%s", note)
    return replace(data, table=table, notes=(*data.notes, *notes))


def lesion_sheets(run: ActiveRun) -> list[Sheet]:
    """Sheets of the lesions that were cut out, and of the cross-attention on them."""
    experiment, synthetic = run.experiment, run.options.demo
    if not experiment.cuts_lesions or not experiment.explain.images:
        return []
    images, split = run.data.shown_rows, run.data.shown_split
    path = lesion_sheet(images, run / "figures" / "lesions.png", experiment.image_size, synthetic)
    source = "the segmenter's" if run.segmenter is not None else "the data set's"
    sheets = [Sheet(path, f"Lesions cut out of {split} images with {source} masks, as the model sees them.")]
    if has_attention(run.model):
        chosen = stratified_sample(images["label"].tolist(), experiment.explain.images, experiment.train.seed)
        table = images.iloc[chosen].reset_index(drop=True)
        batches = [inputs for inputs, _ in run.batches(table).as_numpy_iterator()]
        inputs = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        path = attention_sheet(run.model, inputs, table["image_id"].tolist(), run / "figures" / "attention.png", synthetic)
        sheets.append(Sheet(path, f"Cross-attention on {split} images: what each place contributes, from little to much."))
    return sheets


def predicted_lesions(segmenter: Run, files: Sequence[str], folder: Path) -> list[str]:
    """PNG masks of the lesions in image files, at the segmenter's size, predicted once.

    They are cached by the contents of the image and all that the mask depends on; in `folder` where the user's cache cannot be
    written.

    Returns:
        The masks' files, in the order of `files`.
    """
    try:
        masks = cache_path() / LESIONS / _digest(segmenter)
        private_folder(masks)
        writable = os.access(masks, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        masks = folder / "lesions"
        masks.mkdir(exist_ok=True)
    targets = [masks / f"{digest}.png" for digest in fingerprints(files)["sha256"]]
    missing = {target: file for target, file in zip(targets, files, strict=True) if not target.is_file()}
    if missing:
        log.info("Segmenting %d images", len(missing))
        table = pd.DataFrame({"image_id": list(missing.values()), "image": list(missing.values()), "mask": "", "label": ""})
        size = segmenter.experiment.image_size
        data = batches.evaluation_data(table, (), size, ["image"], [], _BATCH, preprocessing=segmenter.preprocessing)
        waiting, predict = iter(missing), lesion_masks(segmenter.predictor)
        for inputs, _ in data:
            for mask in predict(inputs["image"]).numpy():
                write_bytes(next(waiting), _png(mask[..., 0]))
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
        predicted = load_mask(lesion).numpy()
        areas.append(float(predicted.mean()))
        if mask and len(overlaps) < 500:
            truth = load_mask(mask, predicted.shape[:2]).numpy()
            overlaps.append(2 * float((truth * predicted).sum()) / max(float(truth.sum() + predicted.sum()), 1.0))
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
    areas = np.array([float(load_mask(lesion).numpy().mean()) for lesion in table["lesion"]])
    places = np.unique(np.linspace(0, len(table) - 1, min(images_shown, len(table))).round().astype(int))
    tiles = []
    for row in np.argsort(areas, kind="stable")[places]:
        image = load_image(table["image"].iloc[row], size)
        mask = load_mask(table["lesion"].iloc[row], size)
        name = str(table["image_id"].iloc[row])
        share = f"lesion: {areas[row]:.0%} of the image" if areas[row] else "no lesion found"
        tiles += [
            overlay(image, None, caption=[name], synthetic=synthetic),
            overlay(np.repeat(mask * 255.0, 3, axis=-1), None, caption=[share], synthetic=synthetic),
            overlay(segmented_image(image, mask).numpy(), None, caption=["image x mask"], synthetic=synthetic),
        ]
    title = ["Images, masks and lesions cut out, from the smallest lesion to the largest"]
    write_bytes(path, write_png(contact_sheet(tiles, columns=6, title=title, synthetic=synthetic)))
    return path


def _digest(segmenter: Run) -> str:
    """Everything that a predicted mask depends on beside its image."""
    settings = segmenter.experiment
    recipe = [
        segmenter.weights_sha256,
        settings.model.model_dump(mode="json"),
        settings.image.model_dump(mode="json"),
        *filter(None, [settings.predict.tta]),
    ]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _png(mask: np.ndarray) -> bytes:
    written, data = cv2.imencode(".png", (mask > 0.5).astype(np.uint8) * 255)
    assert written
    return data.tobytes()

"""Class-specific masks: the part of the predicted lesion that speaks for each class."""

from __future__ import annotations

import cv2
import numpy as np

from keras_skin.explain.grad_cam import GradCAM
from keras_skin.explain.map_files import MapWriter, Sheet
from keras_skin.explain.measures import THRESHOLD, marked
from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.explain.samples import file_name, write_bytes

CLASS_MASK = "class_mask"
"""Start of the files' names."""
_WIDTH = 200


def class_masks(lesions: np.ndarray, maps: np.ndarray, predicted: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Returns a mask of each class: of the predicted class the whole predicted lesion, of any other class the part of the lesion
    with evidence for that class.

    Source: paper 000, section 2.1, "class-specific mask generation".

    Args:
        lesions: (B, H, W) bool, the predicted masks.
        maps: (B, K, h, w), >= 0, the Grad-CAM map of each class at any resolution.
        predicted: (B,) int, the predicted class.
        threshold: share of a map's maximum from which a pixel counts as evidence.

    Returns:
        bool (B, K, H, W). A class without positive evidence inside the lesion has an empty mask.

    Example:

    ```python
    outputs, cam = predict(model, inputs), GradCAM(model)
    maps = np.stack([cam(inputs, index) for index in range(len(classes))], axis=1)
    masks = class_masks(outputs["mask"][..., 0] > 0.5, maps, outputs["label"].argmax(axis=-1))
    ```

    **Deviations from the paper**: the paper writes that "the model produces matching segmentation masks per each of the classes",
    but not how. Its network has a single mask. This reading uses the network's mask and its Grad-CAM alone, with the threshold of
    `measures.thresholded_iou`.
    """
    batch, classes = maps.shape[:2]
    size = lesions.shape[1:]
    heat = GradCAM.upsample(maps.reshape(batch * classes, *maps.shape[2:]), size).reshape(batch, classes, *size)
    is_predicted = np.arange(classes) == np.asarray(predicted)[:, None]
    return lesions[:, None] & (is_predicted[..., None, None] | marked(heat, threshold))


def write_class_masks(writer: MapWriter, masks: np.ndarray) -> Sheet:
    """Writes the mask of each image and class, 0 and 255 at the picture's size (`class_mask_<class>.png`), the image with its
    outline (`class_mask_<class>_overlay.png`), and the sheet of one image of each true class, which is returned.

    Args:
        writer: the images, their predictions and their folders.
        masks: bool (N, K, H, W), see `class_masks`.
    """
    bands = []
    for row, sample in enumerate(writer.samples):
        tiles = [writer.original(row, _WIDTH)]
        for index, name in enumerate(writer.classes):
            stem = writer.folder / writer.names[row] / f"{CLASS_MASK}_{file_name(name)}"
            plane = cv2.resize(masks[row, index].astype(np.float32), sample.picture.shape[1::-1]) > 0.5
            write_bytes(stem.with_suffix(".png"), write_png(np.uint8(255) * plane))
            tiles.append(_tile(writer, row, index, masks[row]))
            write_bytes(stem.with_name(f"{stem.name}_overlay.png"), write_png(tiles[-1]))
        bands.append(tiles)
    caption = "Class-specific masks: the predicted lesion for the predicted class, its part with evidence for every other class"
    legend = f"green: true mask   magenta: mask of the class; evidence: from {THRESHOLD:.0%} of the Grad-CAM map's maximum"
    path = writer.folder / f"sheet_{CLASS_MASK}s.png"
    tiles = [tile for row in writer.one_of_each_class() for tile in bands[row]]
    sheet = contact_sheet(tiles, len(writer.classes) + 1, [caption, legend], writer.synthetic)
    write_bytes(path, write_png(sheet))
    return Sheet(path, f"SYNTHETIC: {caption}" if writer.synthetic else caption)


def _tile(writer: MapWriter, row: int, index: int, masks: np.ndarray) -> np.ndarray:
    """Returns the image with the outline of one class's mask; `masks` are those of all classes, (K, H, W)."""
    predicted, mask = writer.predicted(row), masks[index]
    lines = [f"{writer.classes[index]}, p = {writer.predictions['label'][row, index]:.2f}"]
    remark = ""
    if not masks[predicted].any():
        remark = "no lesion"
    elif not mask.any():
        remark = "no evidence inside the lesion"
    elif index == predicted:
        lines.append(f"predicted; {mask.mean():.0%} of the picture")
    else:
        lines.append(f"{mask.sum() / masks[predicted].sum():.0%} of the lesion")
    return overlay(
        writer.samples[row].picture,
        predicted_mask=mask,
        caption=lines,
        remark=remark,
        width=_WIDTH,
        synthetic=writer.synthetic,
    )

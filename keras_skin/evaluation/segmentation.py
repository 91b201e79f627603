"""Scores of one predicted mask against the true one, and their values where they are undefined."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

METRICS: Mapping[str, tuple[str, str]] = {
    "dsc": ("DSC", "Dice similarity coefficient of one image, 2 TP / (2 TP + FP + FN), averaged over images"),
    "iou": ("IoU", "intersection over union (Jaccard index) of one image, averaged over images"),
    "mcc": ("MCC", "Matthews correlation coefficient of one image's pixels, averaged over images"),
    "sensitivity": ("Sensitivity", "share of one image's lesion pixels that were found, averaged over images"),
    "specificity": ("Specificity", "share of one image's skin pixels predicted as skin, averaged over images"),
    "pixel_accuracy": ("Pixel accuracy", "share of one image's pixels that are right, averaged over images"),
    "hd95_relative": (
        "HD95 / diagonal",
        "95th percentile of the distances between the two outlines, as a share of the image's "
        "diagonal; a missed lesion counts as the whole diagonal",
    ),
}
PER_CLASS = ("dsc", "iou")
"""Metrics that are also averaged over the images of each true class."""

COUNTS = ("tp", "fp", "fn", "tn")
MODEL_SIZE = "_model_size"


def metric_names() -> list[str]:
    """Every segmentation metric: at the original mask's size, then (with the suffix `_model_size`) at the model's size."""
    return [*METRICS, *(name + MODEL_SIZE for name in METRICS)]


def score_mask(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Scores one predicted mask.

    | truth | predicted | DSC, IoU, MCC | sensitivity | HD95 |
    |---|---|---|---|---|
    | empty | empty | NaN: not in the mean, whose n is printed | NaN | NaN |
    | empty | some | 0 | NaN | 1 (the diagonal) |
    | some | empty | 0 | 0 | 1 (the diagonal) |

    MCC is 1 where both masks fill the image, and 0 in every other case with an empty row or column of the table of counts.
    Specificity is NaN where the true mask fills the image. The raw counts come along, for whoever prefers another convention.

    Args:
        truth: (H, W) bool.
        predicted: (H, W) bool.

    Returns:
        The metrics of `METRICS` as floats and the pixel counts `tp`, `fp`, `fn`, `tn` as integers.

    Raises:
        ValueError: if the masks are not boolean images of one size.
    """
    if truth.dtype != bool or predicted.dtype != bool or truth.ndim != 2 or truth.shape != predicted.shape:
        raise ValueError(
            f"Two boolean masks of one size (H, W) are needed, not {truth.dtype} {truth.shape} and "
            f"{predicted.dtype} {predicted.shape}."
        )
    tp = int(np.count_nonzero(truth & predicted))
    fp = int(np.count_nonzero(predicted)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    tn = truth.size - tp - fp - fn
    return {
        "dsc": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "mcc": _matthews(tp, fp, fn, tn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "pixel_accuracy": _ratio(tp + tn, truth.size),
        "hd95_relative": relative_hausdorff_95(truth, predicted),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
    }


def _ratio(share: int, whole: int) -> float:
    return share / whole if whole else math.nan


def _matthews(tp: int, fp: int, fn: int, tn: int) -> float:
    if tp + fp + fn == 0:
        return math.nan
    if fp + fn + tn == 0:
        return 1.0
    # Square roots of pairs: the product of four counts of a large image leaves the exact range of floats.
    scale = math.sqrt((tp + fp) * (tp + fn)) * math.sqrt((tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / scale if scale else 0.0


def relative_hausdorff_95(truth: np.ndarray, predicted: np.ndarray) -> float:
    """95 % Hausdorff distance of two masks' outlines, divided by the image's diagonal.

    The larger of the two directed 95th percentiles. Photographs of skin have no common scale, so the distance is given as a share
    of the diagonal: 0 is perfect, and a missed or invented lesion counts as 1 instead of dropping out of the mean.

    Args:
        truth: (H, W) bool.
        predicted: (H, W) bool.

    Returns:
        A value in 0..1; NaN if both masks are empty.
    """
    if not truth.any() or not predicted.any():
        return 1.0 if truth.any() or predicted.any() else math.nan
    a, b = _outline(truth), _outline(predicted)
    distance = max(np.percentile(cKDTree(b).query(a)[0], 95), np.percentile(cKDTree(a).query(b)[0], 95))
    return float(distance / math.hypot(*truth.shape))


def _outline(mask: np.ndarray) -> np.ndarray:
    """(N, 2) coordinates of the pixels that have a neighbour (left, right, above, below) outside the mask or the image."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside)


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a map bilinearly (half-pixel centres, with antialiasing where it shrinks): what the exported model does too.

    Args:
        probability: (h, w) in 0..1.
        size: (H, W) wanted.

    Returns:
        (H, W) float32.
    """
    image = Image.fromarray(np.ascontiguousarray(probability, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))

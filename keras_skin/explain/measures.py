"""Measures of heat maps: NumPy functions of maps and masks, one value per image.

Maps are (B, H, W), >= 0 and finite. An empty map, zero everywhere, is NaN in every measure.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

THRESHOLD = 0.5
"""Share of a map's maximum from which a pixel counts as marked."""


def relevance_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns the share of a map's relevance that lies inside the mask ("energy-based pointing game").

    Source: Wang et al., Score-CAM, CVPR workshops 2020, section 4.3.

    Args:
        maps: (B, H, W), >= 0.
        masks: (B, H, W) bool.

    Returns:
        (B,) float64 in 0..1; NaN where the map or the mask is empty.
    """
    maps = np.asarray(maps, np.float64)
    total = maps.sum(axis=(1, 2))
    usable = (total > 0) & masks.any(axis=(1, 2))
    inside = np.where(masks, maps, 0.0).sum(axis=(1, 2))
    return np.where(usable, inside / np.where(total > 0, total, 1.0), np.nan)


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns 1 where a map's strongest point lies inside the mask, else 0; for several strongest points, the share inside.

    Source: Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018, without its 15 pixels of tolerance.

    Returns:
        (B,) float64 in 0..1; NaN where the map or the mask is empty.
    """
    maximum = maps.max(axis=(1, 2), keepdims=True)
    strongest = maps == maximum
    share = (strongest & masks).sum(axis=(1, 2)) / strongest.sum(axis=(1, 2))
    return np.where((maximum[:, 0, 0] > 0) & masks.any(axis=(1, 2)), share, np.nan)


def marked(maps: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Returns whether each pixel has at least `threshold` of its map's maximum, bool of the maps' shape; an empty map marks none.

    Args:
        maps: (..., H, W), >= 0.
        threshold: share of the maximum, above 0.
    """
    maximum = maps.max(axis=(-2, -1), keepdims=True)
    return (maps >= threshold * maximum) & (maximum > 0)


def thresholded_iou(maps: np.ndarray, masks: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Returns the IoU of a mask and the pixels with at least `threshold` of their map's maximum (paper 000, section 4).

    Returns:
        (B,) float64 in 0..1; NaN where the map or the mask is empty.

    **Deviations from the paper**: the paper prints no threshold; half the maximum is common.
    """
    pixels = marked(maps, threshold)
    union = (pixels | masks).sum(axis=(1, 2))
    iou = (pixels & masks).sum(axis=(1, 2)) / np.maximum(union, 1)
    return np.where(pixels.any(axis=(1, 2)) & masks.any(axis=(1, 2)), iou, np.nan)


def entropy(maps: np.ndarray) -> np.ndarray:
    """Returns the entropy of a map's relevance over its positions, divided by that of a uniform map.

    Use maps at the layer's resolution: resizing adds positions, but no information.

    Returns:
        (B,) float64, from 0 (one position) to 1 (uniform); NaN where the map is empty.
    """
    flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
    total = flat.sum(axis=1, keepdims=True)
    shares = flat / np.where(total > 0, total, 1.0)
    terms = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    result = np.maximum(-terms.sum(axis=1), 0.0) / max(np.log(flat.shape[1]), 1e-12)
    return np.where(total[:, 0] > 0, result, np.nan)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation of two maps position by position, (B,); 0 where one of them is constant."""
    result = np.zeros(len(first))
    for index, pair in enumerate(zip(first, second, strict=True)):
        a, b = (rankdata(np.asarray(side, np.float64)) for side in pair)
        a, b = a - a.mean(), b - b.mean()
        scale = np.sqrt((a**2).sum() * (b**2).sum())
        result[index] = (a * b).sum() / scale if scale > 0 else 0.0
    return result


def centred_gaussian(size: tuple[int, int]) -> np.ndarray:
    """Returns a Gaussian in the middle of the picture, (H, W) float32 with maximum 1.

    It is the uninformed map: photographers place the lesion in the middle. Three standard deviations reach the border.
    """
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 6)) ** 2) for n in size]
    return (axes[0][:, None] * axes[1][None, :]).astype(np.float32)


def removal_order(heat: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the rank of each pixel (H, W), 0 for the most relevant; equal pixels get a random order."""
    flat = heat.ravel()
    order = np.lexsort((generator.random(flat.size), -flat))
    ranks = np.empty(flat.size, np.int64)
    ranks[order] = np.arange(flat.size)
    return ranks.reshape(heat.shape)


def without_pixels(image: np.ndarray, ranks: np.ndarray, fractions: np.ndarray, keep: bool) -> np.ndarray:
    """Returns the image with some of its pixels painted in its mean colour.

    Args:
        image: (H, W, 3).
        ranks: (H, W), see `removal_order`.
        fractions: (F,) in 0..1, shares of the pixels, the most relevant first.
        keep: keep those pixels and paint the others (insertion); False paints those pixels (deletion).

    Returns:
        float32 (F, H, W, 3).
    """
    counts = np.round(fractions * ranks.size)[:, None, None]
    visible = (ranks[None] < counts) == keep
    mean = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return np.where(visible[..., None], image[None].astype(np.float32), mean)

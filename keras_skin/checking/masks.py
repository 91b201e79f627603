"""Measures a mask: is it a careful outline, or is it empty, full, coarse or damaged?"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FULL = 0.99
"""A mask is full above this share of set pixels."""

FRAME_GAP, FRAME_AREA = 0.02, 0.7
"""A mask is full-frame if it comes within this share of all four sides of the image and covers at least this area."""

LONG_SIDES = 1.5
"""A mask is a coarse polygon if its sides are this many times as long as those of a circle with its perimeter.

Ellipses with an aspect ratio up to 3 and radii from 30 to 250 pixels reach at most 0.9. Of the 928 real masks of ISIC 2016 and
2017, a mixture of hand-drawn polygons with 9 to 20 corners and computed outlines, a fifth lies above 1.5."""

BLOCKY = 0.7
"""A mask was enlarged if this share of its rows and of its columns repeats the one before (real masks: at most 0.64)."""

FAULTS = ("empty", "full", "full_frame", "blocky", "polygon")
"""The faults of masks: no set pixel, and those of the constants above."""

SPECK = 0.02
"""Pieces smaller than this share of the largest piece are specks."""


@dataclass(frozen=True)
class MaskFacts:
    """Measurements of one mask.

    Attributes:
        area: share of set pixels.
        grey: share of pixels with neither of the two most common values; 0 for a binary mask.
        values: number of different values.
        gap: the largest of the four distances between mask and image border, as a share of the image's side.
        sides: straight sides of the largest piece's outline, without those along the image border.
        long_sides: mean length of these sides, relative to the sides of a circle; see `LONG_SIDES`.
        repeats: share of rows that repeat the one before, or of columns if smaller.
        pieces: connected pieces (8 neighbours) that are not specks.
        specks: pieces smaller than `SPECK` of the largest.
        holes: holes (4 neighbours).
    """

    area: float
    grey: float = 0.0
    values: int = 2
    gap: float = 1.0
    sides: int = 0
    long_sides: float = 0.0
    repeats: float = 0.0
    pieces: int = 0
    specks: int = 0
    holes: int = 0

    @property
    def faults(self) -> set[str]:
        """Those of `FAULTS` that the mask has; a full mask has no other."""
        if self.area > FULL:
            return {"full"}
        faults = {
            "empty": self.area == 0,
            "full_frame": self.gap <= FRAME_GAP and self.area >= FRAME_AREA,
            "blocky": self.repeats >= BLOCKY,
            "polygon": self.long_sides >= LONG_SIDES and self.repeats < BLOCKY,
        }
        return {name for name, is_true in faults.items() if is_true}


def measure(mask: np.ndarray, levels: np.ndarray) -> MaskFacts:
    """Measures a mask.

    Args:
        mask: (H, W) uint8 of 0 and 1.
        levels: (H, W) uint8, the brightest channel as its file stores it.
    """
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()
    values, total = int(np.count_nonzero(counts)), int(counts.sum())
    grey = float(1 - np.sort(counts)[-2:].sum() / total)
    area = cv2.countNonZero(mask) / mask.size
    if area == 0:
        return MaskFacts(area, grey, values)
    outlines, levels = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer = [outline for outline, level in zip(outlines, levels[0], strict=True) if level[3] < 0]
    areas = np.array([cv2.contourArea(outline) + len(outline) / 2 + 1 for outline in outer])  # Pick's theorem: in pixels
    specks = int((areas < SPECK * areas.max()).sum())
    sides, long_sides = _sides(outer[int(areas.argmax())], mask.shape)
    holes = len(outlines) - len(outer)
    return MaskFacts(area, grey, values, _gap(mask), sides, long_sides, _repeats(mask), len(outer) - specks, specks, holes)


def _gap(mask: np.ndarray) -> float:
    left, top, width, height = cv2.boundingRect(mask)
    rows, columns = mask.shape
    return max(top / rows, 1 - (top + height) / rows, left / columns, 1 - (left + width) / columns)


def _sides(outline: np.ndarray, shape: tuple[int, ...]) -> tuple[int, float]:
    """Counts the straight sides of an outline away from the image border, and compares their length with a circle's.

    A chord at most e away from a circle of radius r is sqrt(8 r e) long. A smooth closed outline of length L with one turn needs
    at most sqrt(2 pi L / 8 e) such chords (equality for the circle, by Jensen's inequality). A ragged computed outline needs far
    more, a hand-drawn polygon only its own few sides.
    """
    height, width = shape
    tolerance = max(1.5, 0.0012 * float(np.hypot(height, width)))
    corners = cv2.approxPolyDP(outline, tolerance, True)[:, 0, :].astype(np.float64)
    ends = np.roll(corners, -1, axis=0)
    lengths = np.hypot(*(ends - corners).T)
    low, high = np.minimum(corners, ends), np.maximum(corners, ends)
    on_border = ((high <= 2) | (low >= (width - 3, height - 3))).any(axis=1)
    inner, sides = lengths[~on_border].sum(), int((~on_border).sum())
    if sides < 1 or not inner:
        return sides, 0.0
    circle_sides = np.sqrt(2 * np.pi * lengths.sum() / (8 * tolerance)) * inner / lengths.sum()
    return sides, float(circle_sides / sides)


def _repeats(mask: np.ndarray) -> float:
    """Share of rows or columns in the bounding box that repeat the one before; few do in an outline drawn pixel by pixel."""
    left, top, width, height = cv2.boundingRect(mask)
    box = mask[top : top + height, left : left + width]
    if min(box.shape) < 2:
        return 0.0
    return 1 - float(max((box[1:] != box[:-1]).any(axis=1).mean(), (box[:, 1:] != box[:, :-1]).any(axis=0).mean()))

"""Stand-in lesions of the eight diagnoses that the multi-class data sets tell apart, and several photographs of one lesion.

Each look is a caricature with wide overlap: a level between benign and malignant, a tint, and a feature that most lesions of the
diagnosis and some of all others show. They teach nothing about skin.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from keras_skin.data.datasets.stand_ins.drawing import write_image, write_mask_png
from keras_skin.data.datasets.stand_ins.lesions import draw_lesion


@dataclass(frozen=True)
class _Look:
    malignant: float
    tint: tuple[float, float, float]
    feature: str = ""


@dataclass(frozen=True)
class _Spots:
    """Round marks: their colour, how many, their radius relative to the image's shorter side, how much they cover."""

    colour: tuple[int, int, int]
    count: tuple[int, int]
    radius: tuple[float, float]
    cover: float


_LOOKS = {
    "NV": _Look(0.1, (0, 0, 0)),
    "MEL": _Look(0.95, (-10, -8, 0)),
    "BCC": _Look(0.55, (24, 6, 10), "vessels"),
    "AKIEC": _Look(0.5, (30, 0, -4), "scales"),
    "BKL": _Look(0.35, (-4, 2, 14), "cysts"),
    "DF": _Look(0.2, (16, 8, 0), "scar"),
    "VASC": _Look(0.15, (26, -26, 6), "lacunae"),
    "SCC": _Look(0.75, (30, 14, 8), "crust"),
}
_SAME_LOOK = {"AK": "AKIEC", "ACK": "AKIEC", "NEV": "NV", "SEK": "BKL"}
_SPOTS = {
    "scales": _Spots((228, 210, 186), (25, 70), (0.004, 0.012), 0.75),
    "cysts": _Spots((232, 218, 190), (8, 30), (0.006, 0.014), 0.85),
    "lacunae": _Spots((128, 26, 44), (5, 16), (0.025, 0.06), 0.7),
    "crust": _Spots((96, 24, 20), (2, 5), (0.04, 0.08), 0.75),
}
_FEATURES = ("", "vessels", "scar", *_SPOTS)
_SHOWS, _STRAYS = 0.75, 0.1


def draw_diagnosis(
    rng: np.random.Generator, diagnosis: str, size: tuple[int, int] = (300, 400), artefacts: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one lesion with the look of a diagnosis.

    Args:
        rng: source of all randomness.
        diagnosis: a code of HAM10000, ISIC 2019 or PAD-UFES-20, for example `"BCC"`.
        size: (height, width), at least 32 each.
        artefacts: whether hairs, ruler marks, bubbles and dark corners may appear.

    Returns:
        The image, (height, width, 3) uint8 RGB, and the exact mask, (height, width) bool.
    """
    look = _LOOKS[_SAME_LOOK.get(diagnosis, diagnosis)]
    image, mask = draw_lesion(rng, size, float(np.clip(rng.normal(look.malignant, 0.18), 0, 1)), artefacts)
    shorter = min(size)
    inside = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(shorter / 120, 0.5)) * mask
    pixels = image.astype(np.float32)
    pixels += inside[..., None] * (np.array(look.tint) * rng.normal(1, 0.3) + rng.normal(0, 4, 3)).astype(np.float32)
    shown = {look.feature} if rng.random() < _SHOWS else set()
    if rng.random() < _STRAYS:
        shown.add(_FEATURES[rng.integers(len(_FEATURES))])
    for feature in sorted(shown - {""}):
        colour, amount = _feature(rng, feature, mask, shorter)
        amount = (amount * inside)[..., None]
        pixels += (np.array(colour, np.float32) - pixels) * amount
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mask


def _feature(rng: np.random.Generator, feature: str, mask: np.ndarray, shorter: int) -> tuple[tuple[int, int, int], np.ndarray]:
    """Colour of a feature and how much of it each pixel shows, 0 to 1."""
    amount = np.zeros(mask.shape, np.float32)
    if feature == "scar":
        depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
        reach, cover = rng.uniform(0.45, 0.65), np.float32(rng.uniform(0.5, 0.85))
        return (230, 204, 192), np.clip((depth / depth.max() - np.float32(reach)) * 5, 0, 1) * cover
    inside = np.argwhere(mask)[:, ::-1]
    if feature == "vessels":
        for _ in range(int(rng.integers(4, 10))):
            steps = rng.normal(0, shorter / 45, (14, 2)) + rng.normal(0, shorter / 50, 2)
            line = inside[rng.integers(len(inside))] + np.cumsum(steps, axis=0)
            cv2.polylines(amount, [np.round(line * 8).astype(np.int32)], False, 0.8, max(1, round(shorter / 200)), cv2.LINE_AA, 3)
        return (176, 40, 48), amount
    spots = _SPOTS[feature]
    for x, y in inside[rng.integers(len(inside), size=rng.integers(*spots.count))]:
        radius = max(1, round(shorter * rng.uniform(*spots.radius)))
        cv2.circle(amount, (int(x), int(y)), radius, float(spots.cover * rng.uniform(0.6, 1)), cv2.FILLED, cv2.LINE_AA)
    return spots.colour, cv2.GaussianBlur(amount, (0, 0), max(shorter / 300, 0.5))


def photograph(
    seed: int, lesion: str, shot: int, diagnosis: str, size: tuple[int, int] = (300, 400), artefacts: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One of several photographs of one lesion: number 0 is as drawn, others from a little farther away and in other light.

    The picture depends on the arguments alone, so one lesion looks the same in every data set that names it.
    """
    key = zlib.crc32(lesion.encode())
    image, mask = draw_diagnosis(np.random.default_rng([seed, key]), diagnosis, size, artefacts)
    if shot:
        rng = np.random.default_rng([seed, key, shot])
        height, width = size
        away = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-3, 3), rng.uniform(0.88, 0.97))
        image = cv2.warpAffine(image, away, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        mask = cv2.warpAffine(mask.astype(np.uint8), away, (width, height), flags=cv2.INTER_NEAREST) > 0
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.88, 1.1), beta=rng.uniform(-8, 8))
    return image, mask


def draw_all(
    seed: int,
    lesions: Sequence[str] | pd.Series,
    diagnoses: Sequence[str] | pd.Series,
    size: tuple[int, int],
    root: Path,
    files: Sequence[str] | pd.Series,
    masks: Sequence[str] | pd.Series | None = None,
    artefacts: bool = True,
) -> None:
    """Draws a photograph for each row and writes it, and its mask if asked, below `root`; rows of one lesion show one lesion."""
    lesions = pd.Series(list(lesions), dtype=str)
    shots = lesions.groupby(lesions).cumcount()
    targets = [root / file for file in files]
    mask_targets = [root / file for file in masks] if masks is not None else [None] * len(targets)

    def draw(row: tuple[str, int, str, Path, Path | None]) -> None:
        lesion, shot, diagnosis, target, mask_target = row
        image, mask = photograph(seed, lesion, shot, diagnosis, size, artefacts)
        write_image(target, image)
        if mask_target is not None:
            write_mask_png(mask_target, mask)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(draw, zip(lesions, shots, diagnoses, targets, mask_targets, strict=True)))

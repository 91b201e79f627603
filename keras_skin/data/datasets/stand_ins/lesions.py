"""Stand-in dermoscopic images: drawn from a seed, with exact masks, so that everything can be tried without a data set.

They look like dermoscopy from afar and teach nothing about skin: each shows the word SYNTHETIC. On average, malignant lesions
are less symmetric, more ragged and of more colours than benign ones; single features overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

WORD = "SYNTHETIC"

# RGB in 0..255: skin from very fair to dark, each with the brown that naevi have on it
_SKINS = np.array([[236, 200, 186], [228, 184, 164], [216, 168, 144], [196, 144, 116], [158, 108, 82], [112, 74, 56]], np.float32)
_SKIN_SHARES = (0.22, 0.26, 0.22, 0.15, 0.09, 0.06)
_LIGHT_BROWN = np.array([168, 112, 78], np.float32)
_DARK_BROWN = np.array([92, 56, 40], np.float32)
_EXTRA_COLOURS = {  # colours beside the browns, with how much they cover
    "black": (np.array([38, 28, 28], np.float32), 0.9),
    "blue_gray": (np.array([104, 112, 128], np.float32), 0.7),
    "red": (np.array([190, 88, 82], np.float32), 0.6),
    "white": (np.array([226, 206, 200], np.float32), 0.65),
}


@dataclass(frozen=True)
class _Traits:
    """How suspicious a lesion looks, feature by feature, each about 0 (benign) to 1 (malignant)."""

    asymmetry: float
    border: float
    colours: float
    structure: float


def draw_lesion(
    rng: np.random.Generator, size: tuple[int, int] = (300, 400), malignant: float = 0.0, artefacts: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one lesion on skin.

    Args:
        rng: source of all randomness.
        size: (height, width) of the image, at least 32 each.
        malignant: 0 for a benign lesion, 1 for a malignant one, or anything between.
        artefacts: whether hairs, ruler marks, bubbles and dark corners may appear.

    Returns:
        The image, (height, width, 3) uint8 RGB, and the exact mask, (height, width) bool, in one piece and without holes.
    """
    height, width = size
    traits = _traits(rng, float(malignant))
    field, mask = _shape(rng, height, width, traits)
    skin = _skin(rng, height, width)
    left, top, across, down = cv2.boundingRect(mask.astype(np.uint8))
    around = min(height, width) // 20 + 3
    box = (slice(max(top - around, 0), top + down + around), slice(max(left - around, 0), left + across + around))
    skin[:, *box] = _paint_lesion(rng, skin[:, *box], field[box], mask[box], traits, min(height, width))
    image = cv2.merge(list(skin))
    if artefacts:
        _artefacts(rng, image)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 0.9)) * max(height, 160) / 300)
    # one pattern of noise at half the cost of three
    grain = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(1.5, 3.5))
    pixels = cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)  # rounds and saturates
    _write_word(pixels, mask)
    return pixels, mask


def _traits(rng: np.random.Generator, malignant: float) -> _Traits:
    """Draws the features around a common level. The classes overlap in each of them; the number of colours tells them best."""
    level = 0.22 + 0.5 * malignant + rng.normal(0, 0.1)
    asymmetry, border, colours, structure = (float(np.clip(level + rng.normal(0, 0.15), 0, 1)) for _ in range(4))
    return _Traits(asymmetry, border, float(np.clip(colours + 0.3 * (malignant - 0.5), 0, 1)), structure)


def _noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 1) -> np.ndarray:
    """Smooth noise of about unit variance whose blobs are about `cell` pixels wide."""
    # coarse blobs are smooth enough to be made at a quarter of the size
    coarse = 4 if cell / 2 ** (octaves - 1) >= 10 else 1
    rows, columns = max(height // coarse, 1), max(width // coarse, 1)
    total = np.zeros((rows, columns), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = rng.standard_normal((math.ceil(height / step) + 2, math.ceil(width / step) + 2), np.float32)
        smooth = cv2.INTER_CUBIC if step >= 6 else cv2.INTER_LINEAR
        total += cv2.resize(grid, (columns, rows), interpolation=smooth) * np.float32(0.5**octave)
    return cv2.resize(total, (width, height), interpolation=cv2.INTER_LINEAR) if coarse > 1 else total


def _shape(rng: np.random.Generator, height: int, width: int, traits: _Traits) -> tuple[np.ndarray, np.ndarray]:
    """The lesion as a field that falls from about 1 at its centre to 0 at its border, and where it is positive."""
    shorter = min(height, width)
    centre_x, centre_y = width * rng.uniform(0.38, 0.62), height * rng.uniform(0.38, 0.62)
    radius = shorter * rng.uniform(0.18, 0.36)
    aspect, turn = rng.uniform(1.0, 1.25 + 0.3 * traits.asymmetry), rng.uniform(0, np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    # a margin of skin all around, so that the lesion is whole and a corner stays free
    edge = np.minimum(np.minimum(x, width - 1 - x) / width, np.minimum(y, height - 1 - y) / height)
    ragged = 0.02 + 0.11 * traits.border**1.5
    x += _noise(rng, height, width, shorter / 8, 3) * np.float32(ragged * radius)
    y += _noise(rng, height, width, shorter / 8, 3) * np.float32(ragged * radius)
    cosine, sine, stretch = math.cos(turn), math.sin(turn), math.sqrt(aspect)
    u = ((x - centre_x) * cosine + (y - centre_y) * sine) / stretch
    v = ((y - centre_y) * cosine - (x - centre_x) * sine) * stretch
    distance, angle = cv2.cartToPolar(u, v)
    angles = np.linspace(0, 2 * np.pi, 1024, endpoint=False)
    outline = np.ones_like(angles)
    for wave in range(1, 8):
        swing = 0.2 * traits.asymmetry if wave in (1, 3) else 0.05 + 0.05 * traits.border
        outline += rng.normal(0, swing / wave**0.7) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    outline = np.clip(outline, 0.5, 1.45) * radius
    limit = outline.astype(np.float32)[np.minimum((angle * (1024 / (2 * np.pi))).astype(np.int32), 1023)]
    field = 1 - distance / limit
    field = np.minimum(field, (edge - np.float32(0.06)) * 8)
    return field, _one_piece(field > 0)


def _one_piece(inside: np.ndarray) -> np.ndarray:
    """The largest connected piece, its holes filled."""
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros(inside.shape, np.uint8)
    cv2.drawContours(mask, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return mask > 0


def _skin(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Skin of a random tone with a lamp's shading, reddish patches, fine furrows and pores; (3, height, width) float32."""
    tone = _SKINS[rng.choice(len(_SKINS), p=_SKIN_SHARES)] + rng.normal(0, 6, 3).astype(np.float32)
    shorter = min(height, width)
    shade = 1 + 0.03 * _noise(rng, height, width, shorter / 2) + 0.022 * _noise(rng, height, width, shorter / 60, 2)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(rng.uniform(-0.06, 0.06))
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(rng.uniform(-0.06, 0.06))
    skin = tone[:, None, None] * (shade + x + y)
    redness = _noise(rng, height, width, shorter / 5, 2) * (rng.uniform(0.5, 4) * float(tone.mean()) / 170)
    for channel, weight in enumerate((0.5, -0.8, -0.5)):
        skin[channel] += redness * weight
    return skin


def _paint_lesion(
    rng: np.random.Generator, skin: np.ndarray, field: np.ndarray, mask: np.ndarray, traits: _Traits, shorter: int
) -> np.ndarray:
    """Lays the lesion over the skin; `shorter` is the shorter side of the whole image."""
    height, width = mask.shape
    patches = _noise(rng, height, width, shorter / 6, 2) + 0.45 * _noise(rng, height, width, shorter / 35)
    tone = float(skin.mean()) / 180
    dark = np.clip(0.15 + rng.uniform(0.2, 0.9) * field + (0.1 + 0.28 * traits.colours) * patches, 0, 1)
    warm = np.array([1.0, 0.25, -0.6], np.float32) * np.float32(rng.normal(0, 11)) + np.float32(rng.normal(0, 8))
    light, deep = (_LIGHT_BROWN + warm) * min(tone, 1.1), (_DARK_BROWN + warm) * min(tone, 1.1)
    colour = light[:, None, None] + (deep - light)[:, None, None] * dark
    names = list(_EXTRA_COLOURS)
    for name in rng.permutation(names)[: rng.binomial(len(names), 0.05 + 0.75 * traits.colours**1.3)]:
        extra, cover = _EXTRA_COLOURS[name]
        where = _noise(rng, height, width, shorter / 4, 3) + rng.uniform(-1.1, -0.3)
        amount = np.clip(where * 2, 0, 1) * np.clip(field * 6, 0, 1) * np.float32(cover * rng.uniform(0.6, 1))
        colour += (extra[:, None, None] - colour) * amount
    colour *= 1 - _structure(rng, field, traits, shorter)
    # a soft border for most naevi; an abrupt one that changes along the outline for suspicious lesions
    softness = np.float32(rng.uniform(0.04, 0.24) * (1.15 - 0.75 * traits.border))
    alpha = np.clip(0.5 + field / (2 * softness), 0, 1)
    near = cv2.GaussianBlur(cv2.dilate(mask.astype(np.float32), np.ones((3, 3))), (0, 0), max(shorter / 150, 0.8))
    alpha *= np.minimum(near * 1.4, 1) * np.float32(rng.uniform(0.8, 0.98))
    return skin + (colour - skin) * alpha


def _structure(rng: np.random.Generator, field: np.ndarray, traits: _Traits, shorter: int) -> np.ndarray:
    """How much darker the pigment network and the dots make the lesion, 0 to 1."""
    height, width = field.shape
    darker = np.zeros((height, width), np.float32)
    if rng.random() < 0.75:
        mesh = shorter / rng.uniform(30, 46)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        bend = mesh * (0.35 + 0.4 * traits.structure)
        x += _noise(rng, height, width, mesh * 2.5) * np.float32(bend)
        y += _noise(rng, height, width, mesh * 2.5) * np.float32(bend)
        scale, turn = 2 * np.pi / mesh, rng.uniform(0, np.pi)
        waves = [
            x * (math.cos(angle) * scale) + y * (math.sin(angle) * scale)
            for angle in (turn, turn + math.pi / 3, turn + 2 * math.pi / 3)
        ]
        # the sum of three waves has round maxima in a honeycomb: the holes; the lines lie between
        holes = sum(cv2.polarToCart(np.ones_like(wave), wave)[0] for wave in waves)
        lines = np.clip(0.35 - holes / 3, 0, 1)
        presence = np.clip(0.5 + _noise(rng, height, width, shorter / 4) * (0.3 + 0.9 * traits.structure), 0, 1)
        ring = np.clip(field * 8, 0, 1) * np.clip(1.3 - 1.1 * field, 0.15, 1)
        darker += lines * presence * ring * np.float32(rng.uniform(0.3, 0.75))
    dots = np.zeros((height, width), np.float32)
    inside = np.argwhere(field > 0.1)
    count = int(rng.poisson(3 + 9 * traits.structure))
    if len(inside) and count:
        for row, column in inside[rng.integers(len(inside), size=count)]:
            radius = max(1, round(shorter * rng.uniform(0.004, 0.008 + 0.008 * traits.structure)))
            cv2.circle(dots, (int(column), int(row)), radius, rng.uniform(0.2, 0.6), cv2.FILLED, cv2.LINE_AA)
    return np.clip(np.maximum(darker, cv2.GaussianBlur(dots, (0, 0), max(shorter / 400, 0.5))), 0, 0.8)


def _artefacts(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draws ruler marks, hairs, bubbles of gel and dark corners into the image, each on some images only."""
    height, width = image.shape[:2]
    if rng.random() < 0.2:
        _ruler(rng, image)
    if rng.random() < 0.55:
        _hairs(rng, image)
    if rng.random() < 0.25:
        for _ in range(rng.integers(2, 9)):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.circle(image, centre, max(1, int(min(height, width) * rng.uniform(0.006, 0.02))), (235, 225, 220), 1, cv2.LINE_AA)
    if rng.random() < 0.35:
        _dark_corners(rng, image)


def _hairs(rng: np.random.Generator, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    shorter = min(height, width)
    colour = np.array([[40, 30, 26], [74, 52, 38], [128, 98, 66]])[rng.choice(3, p=[0.5, 0.35, 0.15])]
    along = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(0, 1, 16)[:, None]
    for _ in range(int(rng.geometric(0.16))):
        start = rng.uniform((0, 0), (width, height))
        angle, length = along + rng.normal(0, 0.6), shorter * rng.uniform(0.4, 1.3)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        bow = (start + end) / 2 + rng.normal(0, 0.12 * length, 2)
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bow + steps**2 * end
        thickness = max(1, round(shorter / 300 * rng.uniform(0.7, 1.7)))
        shade = tuple(float(value) for value in colour + rng.normal(0, 8))
        cv2.polylines(image, [np.round(curve * 8).astype(np.int32)], False, shade, thickness, cv2.LINE_AA, 3)


def _ruler(rng: np.random.Generator, image: np.ndarray) -> None:
    """Ticks of a ruler along one side, every fifth longer."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    step, offset, upright = shorter * rng.uniform(0.03, 0.05), shorter * rng.uniform(0.01, 0.04), rng.random() < 0.5
    for number in range(int((height if upright else width) / step) + 1):
        reach = shorter * (0.06 if number % 5 == 0 else 0.035)
        at = round(number * step)
        start, end = (round(offset), at), (round(offset + reach), at)
        if not upright:
            start, end = (at, height - 1 - start[0]), (at, height - 1 - end[0])
        cv2.line(image, start, end, (48.0, 44.0, 44.0), max(1, round(shorter / 300)), cv2.LINE_AA)


def _dark_corners(rng: np.random.Generator, image: np.ndarray) -> None:
    """The round field of the dermoscope: black outside, in place."""
    height, width = image.shape[:2]
    reach = 0.5 * math.hypot(height, width) * rng.uniform(0.84, 0.97)
    x = (np.arange(width, dtype=np.float32) - width * rng.uniform(0.48, 0.52)) ** 2
    y = (np.arange(height, dtype=np.float32) - height * rng.uniform(0.48, 0.52)) ** 2
    light = np.clip((reach - np.sqrt(x[None] + y[:, None])) / (rng.uniform(0.02, 0.08) * reach) + 0.5, 0.04, 1)
    cv2.multiply(image, cv2.merge([light] * 3), dst=image)


def _write_word(pixels: np.ndarray, mask: np.ndarray) -> None:
    """Writes SYNTHETIC into the corner that lies farthest from the lesion; its box never covers the lesion."""
    height, width = mask.shape
    scale = width * 0.3 / cv2.getTextSize(WORD, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)[0][0]
    (across, up), below = cv2.getTextSize(WORD, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    margin, box = max(2, width // 100), (up + below, across)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    corners = [(top, left) for top in (margin, height - margin - box[0]) for left in (margin, width - margin - box[1])]
    boxes = [(slice(top, top + box[0]), slice(left, left + box[1])) for top, left in corners]
    chosen = max(boxes, key=lambda corner: distance[corner].min())
    free = np.ascontiguousarray(pixels[chosen])
    for thickness, shade in ((3, 255), (1, 0)):  # black with a white rim can be read on any skin and on dark corners
        cv2.putText(free, WORD, (0, up), cv2.FONT_HERSHEY_SIMPLEX, scale, (shade,) * 3, thickness, cv2.LINE_AA)
    pixels[chosen] = free

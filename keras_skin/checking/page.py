"""Writes a check as a self-contained HTML page with pictures of the problems."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from keras_skin.checking.audit import Check
from keras_skin.checking.findings import Finding, Item, counted
from keras_skin.checking.text import describe, verdict
from keras_skin.data.images.files import BadImage, decode_levels, decode_rgb, read_file
from keras_skin.registry import atomic_path
from keras_skin.templates import templates

PICTURED, NAMED = 12, 36
"""Items per finding that are shown with pictures, and that are named without."""

SIDE = 240
_OUTLINE = (0, 255, 255)  # cyan, which skin never is
_SPLIT_NAMES = {"": "all", "train": "training", "validation": "validation", "test": "test"}


def write_page(path: Path, check: Check) -> None:
    """Writes the page of a check; its pictures are read from the data set's files."""
    text = (
        templates("keras_skin.checking", "keras_skin.evaluation")
        .get_template("page.html.j2")
        .render(
            check=check,
            verdict=verdict(check),
            describe=describe,
            counted=counted,
            split_names=_SPLIT_NAMES,
            sections=[(finding, *_section(finding)) for finding in check.findings],
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _section(finding: Finding) -> tuple[list[tuple[Item, list[str]]], Sequence[Item], int]:
    """Items with their small pictures, items without pictures, and the number of remaining items."""
    pictured = [item for item in finding.items if item.images][:PICTURED]
    pictures = [(item, [url for image in item.images if (url := thumbnail(image, item.mask))]) for item in pictured]
    names = () if pictures else finding.items[:NAMED]
    return pictures, names, len(finding.items) - len(pictures) - len(names)


def thumbnail(image: str, mask: str = "") -> str:
    """A small JPEG with the mask's outline, as a data URL; "" for a file that does not decode."""
    try:
        header, data = read_file(Path(image))
        picture = decode_rgb(data, header, (SIDE, SIDE))
    except BadImage:
        return ""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if mask:
        _draw_outline(picture, mask)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def _draw_outline(picture: np.ndarray, mask: str) -> None:
    try:
        header, data = read_file(Path(mask))
        _, pixels = decode_levels(data, header)
    except BadImage:
        return
    small = cv2.resize(pixels, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, _OUTLINE, 2)

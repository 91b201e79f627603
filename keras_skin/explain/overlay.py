"""Pictures of an explanation: heat map over the image, contours of the masks, a caption, and sheets of many.

Everything is drawn at the picture's final size, so that lines and letters stay legible on small images.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

TRUE_COLOUR = (0, 170, 0)
"""Contour of the true mask, RGB."""
PREDICTED_COLOUR = (230, 0, 230)
"""Contour of the predicted mask, RGB."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER, _INK, _WARNING = (255, 255, 255), (20, 20, 20), (190, 0, 0)
_LINE_HEIGHT = 20
_FONT_SCALE = 0.5
_SMALLEST_SCALE = 0.38
_STRONGEST_TINT = 0.7
_RED = 70  # first index of OpenCV's colour map "hot" that is red, not black


def overlay(
    image: np.ndarray,
    heat: np.ndarray | None = None,
    *,
    true_mask: np.ndarray | None = None,
    predicted_mask: np.ndarray | None = None,
    caption: Sequence[str] = (),
    remark: str = "",
    width: int = 320,
    synthetic: bool = False,
) -> np.ndarray:
    """Draws one picture.

    Args:
        image: (H, W, 3) RGB, 0..255.
        heat: (h, w) in 0..1 of any size, drawn over the image: from no colour (0) over red and yellow to white (1).
        true_mask: (h, w) or (h, w, 1) of any size, > 0.5 is lesion; its contour is green.
        predicted_mask: the same, magenta.
        caption: lines below the picture.
        remark: a red line below the picture, for example `"no positive evidence"`.
        width: width of the picture in pixels; the height keeps the image's shape.
        synthetic: whether a red line above the picture says SYNTHETIC.

    Returns:
        uint8 RGB (height + caption, width, 3).
    """
    height = max(1, round(width * image.shape[0] / image.shape[1]))
    picture = _resized(np.clip(image, 0, 255).astype(np.uint8), height, width)
    if heat is not None:
        picture = _tinted(picture, _resized(heat.astype(np.float32), height, width))
    for mask, colour in ((true_mask, TRUE_COLOUR), (predicted_mask, PREDICTED_COLOUR)):
        if mask is not None:
            _draw_contour(picture, mask, colour)
    above = [text_strip(["SYNTHETIC"], width, colour=_WARNING)] if synthetic else []
    below = [text_strip([remark], width, colour=_WARNING)] if remark else []
    below += [text_strip(caption, width)] if caption else []
    return np.concatenate([*above, picture, *below])


def text_strip(lines: Sequence[str], width: int, scale: float = _FONT_SCALE, colour: tuple[int, int, int] = _INK) -> np.ndarray:
    """Returns lines of text on white, uint8 RGB; a line that is too wide is set smaller, then cut with "..."."""
    line_height = round(_LINE_HEIGHT * scale / _FONT_SCALE)
    strip = np.full((line_height * len(lines) + 6, width, 3), _PAPER, np.uint8)
    for number, line in enumerate(lines):
        text, fitting = _fit(line, width - 8, scale)
        cv2.putText(strip, text, (4, line_height * (number + 1) - 2), _FONT, fitting, colour, 1, cv2.LINE_AA)
    return strip


def contact_sheet(
    pictures: Sequence[np.ndarray], columns: int = 4, title: Sequence[str] = (), synthetic: bool = False, gap: int = 10
) -> np.ndarray:
    """Arranges pictures of any size in rows of `columns`, on white, under a title.

    Returns:
        uint8 RGB.

    Raises:
        ValueError: if there is no picture.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(pictures))
    cell = max(picture.shape[1] for picture in pictures)
    width = columns * (cell + gap) + gap
    rows = []
    for start in range(0, len(pictures), columns):
        row = pictures[start : start + columns]
        band = np.full((max(picture.shape[0] for picture in row) + gap, width, 3), _PAPER, np.uint8)
        for column, picture in enumerate(row):
            x = gap + column * (cell + gap)
            band[: picture.shape[0], x : x + picture.shape[1]] = picture
        rows.append(band)
    head = [text_strip(title, width, 0.55)] if title else []
    if synthetic:
        head.insert(0, text_strip(["SYNTHETIC: drawn by a program, not images of patients"], width, 0.55, _WARNING))
    return np.concatenate([*head, np.full((gap, width, 3), _PAPER, np.uint8), *rows])


def write_png(picture: np.ndarray) -> bytes:
    """Returns the PNG bytes of an RGB picture (H, W, 3) or a grey one (H, W), uint8."""
    success, data = cv2.imencode(".png", picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not success:
        raise ValueError(f"cannot write a picture of shape {picture.shape} as PNG")
    return data.tobytes()


def _resized(array: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = height * width < array.shape[0] * array.shape[1]
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _tinted(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns the image in grey, tinted by the heat. Skin is red itself and would look like heat."""
    heat = np.clip(heat, 0.0, 1.0)
    colours = cv2.cvtColor(cv2.applyColorMap((_RED + (255 - _RED) * heat).astype(np.uint8), cv2.COLORMAP_HOT), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    strength = (_STRONGEST_TINT * heat)[..., None]
    return np.round(grey * (1 - strength) + colours * strength).astype(np.uint8)


def _draw_contour(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draws a contour with a dark line beneath it, which is visible on any skin and any heat."""
    height, width = picture.shape[:2]
    plane = np.asarray(mask, np.float32).reshape(mask.shape[:2])
    binary = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, colour, 1 if width < 200 else 2, cv2.LINE_AA)


def _fit(text: str, width: int, scale: float) -> tuple[str, float]:
    while text and cv2.getTextSize(text, _FONT, scale, 1)[0][0] > width:
        if scale > _SMALLEST_SCALE:
            scale = max(_SMALLEST_SCALE, scale - 0.02)
        else:
            text = text[:-4] + "..." if len(text) > 4 else ""
    return text, scale

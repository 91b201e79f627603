"""Checks photographs before any model sees them: blurred or too dark.

Thresholds were set on 220 dermoscopic images of the ISIC archive (a quarter of those of ISIC 2016 and 2017 that are also in ISIC
2019, and 20 at full resolution): none of them is called blurred (least sharpness 3.2) or dark (least brightness 76). Of the same
images under a Gaussian blur of 1/170 of their long side 98 % are called blurred, of 1/85 all.
"""

from __future__ import annotations

import cv2
import numpy as np

SHARP = 2.8
"""Least standard deviation of the Laplacian of the grey levels, at a long side of 256 pixels and a mean level of 128."""

BRIGHT = 50.0
"""Least mean grey level, of 255."""

_SIDE = 256


def quality_problems(image: np.ndarray) -> list[str]:
    """Problems of a picture: `"blurred"`, `"too dark"`.

    Args:
        image: (H, W, 3) RGB, 0..255, of any size.

    Returns:
        The problems; empty for a good picture.
    """
    grey = cv2.cvtColor(np.clip(image, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR).astype(np.float32)
    problems = []
    brightness = float(small.mean())
    if float(cv2.Laplacian(small, cv2.CV_32F).std()) * 128 < SHARP * brightness or not brightness:
        problems.append("blurred")
    if brightness < BRIGHT:
        problems.append("too dark")
    return problems

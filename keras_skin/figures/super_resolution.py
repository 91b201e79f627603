"""The figure of an auxiliary super-resolution: input, super-resolved image and target side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_skin.evaluation.super_resolution import psnr, ssim
from keras_skin.figures.style import draw_outlines, new_figure


class SuperResolved(NamedTuple):
    """One image: the model's input (H, W, 3) in 0..255, its output and the target, both (2H, 2W, 3) in 0..1."""

    image_id: str
    input: np.ndarray
    output: np.ndarray
    target: np.ndarray


def super_resolution_figure(images: Sequence[SuperResolved], path: Path, title: str = "", synthetic: bool = False) -> Path | None:
    """Draws input, super-resolved image and target, with the output's PSNR and SSIM.

    Args:
        images: one row each.

    Returns None without images.
    """
    if not images:
        return None
    with new_figure(path, (8.2, 2.75 * len(images) + 0.5), synthetic) as figure:
        grid = figure.subplots(len(images), 3, squeeze=False)
        for number, (line, image) in enumerate(zip(grid, images, strict=True)):
            quality = f"PSNR {psnr(image.output, image.target):.1f} dB, SSIM {ssim(image.output, image.target):.3f}"
            pictures = ((image.input / 255, image.image_id), (image.output, quality), (image.target, ""))
            for axes, (picture, caption), column in zip(line, pictures, ("input", "super-resolved", "target"), strict=True):
                draw_outlines(axes, np.clip(picture, 0, 1), [])
                size = f"{picture.shape[0]} x {picture.shape[1]}"
                heading = f"{column}, {size}\n" if number == 0 else ""
                axes.set_title(heading + caption, fontsize=9, loc="left")
        figure.suptitle(title or "Super-resolution", x=0.01, ha="left", weight="bold")
    return path

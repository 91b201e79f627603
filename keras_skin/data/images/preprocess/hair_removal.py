"""Removal of dark hairs by black-hat and inpainting, in OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import tensorflow as tf

from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.data.images.preprocess import register
from keras_skin.registry import UserError

# Lengths are shares of the image's shorter side.
_AROUND = 0.12  # the square in which thin dark pixels are counted,
_CROWDED = 0.4  # and the share of them from which on they are a pigment network or globules, not hairs
_STRAIGHT = 0.12  # a hair is straight for this long, in one of so many directions,
_DIRECTIONS = 16
_FILLED = 0.9  # with this share of it dark,
_LONG = 0.2  # and, bent or not, this long altogether


@register("hair_removal")
@dataclass(frozen=True)
class HairRemoval:
    """Finds dark hairs and fills them from around.

    A hair is thinner than the kernel and darker than what lies on both sides of it: the black-hat transform (the closing minus
    the grey image), with lines of four directions, exceeds the threshold there. Such pixels are a hair where they lie along a
    straight line, in a connected piece that is long, and not so close together as those of a pigment network. They and a rim of
    one pixel are inpainted (Telea); nothing else is touched, and a lesion without hairs stays as it is.

    Runs in OpenCV: the same eagerly and in tf.data, but not exportable, see `preprocess.refuse_export`. Light
    hairs, stubble and the very crowded hairs of a pelt are not found.

    Reference: Lee et al., "DullRazor: A Software Approach to Hair Removal from Images", 1997; Telea, "An Image Inpainting
    Technique Based on the Fast Marching Method", 2004.

    **Deviations from the paper:** (DullRazor) grey instead of each colour; straightness and length are judged along lines of
    sixteen directions, not by profiles of the pixels; crowded pixels are left out; inpainting instead of bilinear interpolation.

    Args:
        kernel: length of the lines, as a share of the image's shorter side, above 0 and at most 0.2.
        threshold: how much darker than its surroundings a hair is at least, in grey levels, above 0 and at most 255.

    Call arguments: an image (H, W, 3) float32 in 0..255. Returns the same shape and range.
    """

    kernel: float = 0.04
    threshold: float = 12.0

    exportable = False

    def __post_init__(self) -> None:
        limits = {"kernel": 0.2, "threshold": 255}
        wrong = [
            f"preprocessing 'hair_removal': {name} is {getattr(self, name)!r}, expected a number above 0, at most {limit}."
            for name, limit in limits.items()
            if isinstance(getattr(self, name), bool)
            or not isinstance(getattr(self, name), int | float)
            or not 0 < getattr(self, name) <= limit
        ]
        if wrong:
            raise UserError("\n".join(wrong))

    def __call__(self, image: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(numpy_call(self._remove, [image], tf.float32), image.shape)

    def _remove(self, image: np.ndarray) -> np.ndarray:
        pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
        hairs = self.find(pixels)
        if not hairs.any():
            return image
        filled = cv2.inpaint(pixels, hairs.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        return np.where(hairs[..., np.newaxis], filled.astype(np.float32), image)

    def find(self, pixels: np.ndarray) -> np.ndarray:
        """Where an image (H, W, 3) uint8 RGB shows hairs, with a rim of one pixel; (H, W) bool."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        shorter = min(grey.shape)
        lines = _lines(self.kernel * shorter, 4)
        rim = len(lines[0])  # without it, what is dark along the edge would count as thin
        around = cv2.copyMakeBorder(grey, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
        hat = np.max([cv2.morphologyEx(around, cv2.MORPH_BLACKHAT, line) for line in lines], axis=0)[rim:-rim, rim:-rim]
        dark = (hat > self.threshold).astype(np.uint8)
        reach = max(round(_AROUND * shorter), 1)
        share = cv2.blur(dark.astype(np.float32), (reach, reach), borderType=cv2.BORDER_REFLECT_101)
        dark[share > _CROWDED] = 0  # a network or globules
        dark = _long_pieces(dark, _LONG * shorter)
        hairs = np.zeros_like(dark)
        if not dark.any():  # as in most images; what follows takes the most time
            return hairs > 0
        for line in _lines(_STRAIGHT * shorter, _DIRECTIONS):
            filled = cv2.filter2D(dark, cv2.CV_32F, line / line.sum(dtype=np.float32), borderType=cv2.BORDER_REPLICATE)
            hairs |= cv2.dilate((filled >= _FILLED).astype(np.uint8), line) & dark
        return cv2.dilate(_long_pieces(hairs, _LONG * shorter), np.ones((3, 3), np.uint8)) > 0


def _long_pieces(mask: np.ndarray, length: float) -> np.ndarray:
    """The connected pieces of a mask (H, W) uint8 whose boxes' diagonals have at least a length."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    long_enough = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= length
    long_enough[0] = False  # the background
    return long_enough[pieces].astype(np.uint8)


def _lines(length: float, directions: int) -> list[np.ndarray]:
    """Straight lines of a length in pixels through the middle of a square, in evenly spread directions; uint8 0 and 1."""
    reach = max(2, round(length / 2))
    lines = []
    for angle in np.arange(directions) * np.pi / directions:
        across, down = reach * np.cos(angle), reach * np.sin(angle)
        ends = [(round(reach + sign * across), round(reach + sign * down)) for sign in (-1, 1)]
        lines.append(cv2.line(np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8), ends[0], ends[1], 1))
    return lines

"""Similarity of a super-resolved image to its target: PSNR and SSIM."""

from __future__ import annotations

import cv2
import numpy as np

WINDOW, SIGMA = 11, 1.5


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels: 10 log10(1 / mean squared error).

    Args:
        image: (H, W, C) in [0, 1].
        target: the same.

    Returns:
        Decibels; infinite where both are the same.

    Raises:
        ValueError: if the shapes differ.
    """
    _same_shape(image, target)
    error = float(np.mean((image.astype(np.float64) - target.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(image: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity, the mean over channels and over all windows that lie inside the image.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Trans. Image Process.
    2004, equation 13: Gaussian windows of 11x11 pixels and standard deviation 1.5, K_1 = 0.01, K_2 = 0.03, range 1.

    Args:
        image: (H, W, C) in [0, 1], 11 pixels or more on each side.
        target: the same.

    Returns:
        A number from -1 to 1, 1 where both are the same.

    Raises:
        ValueError: if the shapes differ or the images are smaller than a window.
    """
    _same_shape(image, target)
    if min(image.shape[:2]) < WINDOW:
        raise ValueError(f"The images have {image.shape[0]}x{image.shape[1]} pixels, expected {WINDOW} or more on each side.")
    x, y = image.astype(np.float64), target.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x, variance_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))))


def _windowed(values: np.ndarray) -> np.ndarray:
    """Gaussian averages, where the window lies inside the image."""
    margin = WINDOW // 2
    blurred = cv2.GaussianBlur(values, (WINDOW, WINDOW), SIGMA).reshape(values.shape)  # OpenCV drops the axis of a single channel
    return blurred[margin:-margin, margin:-margin]


def _same_shape(image: np.ndarray, target: np.ndarray) -> None:
    if image.shape != target.shape or image.ndim != 3:
        raise ValueError(f"The images have shapes {image.shape} and {target.shape}, expected the same (H, W, C).")

"""PSNR and SSIM against their definitions, window by window."""

import math

import numpy as np
import pytest

from keras_skin.evaluation.super_resolution import psnr, ssim


def pictures(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    target = generator.uniform(0, 1, (16, 14, channels))
    return np.clip(target + generator.normal(0, 0.1, target.shape), 0, 1), target


def slow_ssim(image: np.ndarray, target: np.ndarray) -> float:
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(image.shape[2]):
        for row in range(image.shape[0] - 10):
            for column in range(image.shape[1] - 10):
                x, y = (each[row : row + 11, column : column + 11, channel] for each in (image, target))
                mean_x, mean_y = (window * x).sum(), (window * y).sum()
                variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
                covariance = (window * (x - mean_x) * (y - mean_y)).sum()
                luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
                values.append(luminance * (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4))
    return float(np.mean(values))


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_against_loops(channels: int) -> None:
    image, target = pictures(channels)
    assert ssim(image, target) == pytest.approx(slow_ssim(image, target), abs=1e-9)
    assert 0 < ssim(image, target) < 1


def test_ssim_of_an_image_with_itself_is_one() -> None:
    image, _ = pictures()
    assert ssim(image, image) == pytest.approx(1)
    assert ssim(image.astype(np.float32), image.astype(np.float32)) == pytest.approx(1)


def test_psnr() -> None:
    target = np.full((4, 4, 3), 0.5)
    assert psnr(target + 0.1, target) == pytest.approx(20)
    assert psnr(target, target) == math.inf


def test_images_must_fit() -> None:
    with pytest.raises(ValueError, match="same"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))
    with pytest.raises(ValueError, match="11 or more"):
        ssim(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)))

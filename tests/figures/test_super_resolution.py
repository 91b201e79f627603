import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from keras_skin.figures.super_resolution import SuperResolved, super_resolution_figure

BANNER = (0xB0, 0x00, 0x20)


def pictures(count=2):
    generator = np.random.default_rng(0)
    for number in range(count):
        target = generator.uniform(0.2, 0.8, (32, 48, 3))
        yield SuperResolved(f"image_{number}", 255 * target[::2, ::2], target + 0.1, target)


def test_quality_stands_above_each_super_resolved_image(tmp_path, monkeypatch):
    titles, arrays = [], []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **style: titles.append(text))
    draw = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, array: (arrays.append(array), draw(self, array))[1])
    images = list(pictures())
    super_resolution_figure(images, tmp_path / "figure.png")
    assert titles[0] == "input, 16 x 24\nimage_0"
    assert titles[1].startswith("super-resolved, 32 x 48\nPSNR 20.0 dB, SSIM 0.")
    assert titles[2:4] == ["target, 32 x 48\n", "image_1"]
    assert titles[4].startswith("PSNR 20.0 dB, SSIM ")
    for array, expected in zip(arrays, (images[0].input / 255, images[0].output, images[0].target), strict=False):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("synthetic", [False, True])
def test_is_written_and_marked_where_synthetic(tmp_path, synthetic):
    path = super_resolution_figure(list(pictures(1)), tmp_path / "deep" / "figure.png", synthetic=synthetic)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.std() > 0
    assert ((pixels == BANNER).all(axis=2).sum() > 1000) == synthetic
    assert [item.name for item in path.parent.iterdir()] == ["figure.png"]


def test_without_images_nothing_is_written(tmp_path):
    assert super_resolution_figure([], tmp_path / "figure.png") is None
    assert not list(tmp_path.iterdir())

"""Figures of explanations are written and marked as synthetic."""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from keras_skin.figures import explanations as figures

CLASSES = ("NV", "MEL", "BCC")
GROUPS = ("image", "age", "site")


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(20, 3, 3))


def red(path):
    picture = matplotlib.image.imread(path)
    return ((picture[..., 0] > 0.6) & (picture[..., 1] < 0.15) & (picture[..., 2] < 0.25)).sum()


@pytest.mark.parametrize("synthetic", [False, True])
def test_attributions(tmp_path, values, synthetic):
    bars = figures.attribution_bars(values, GROUPS, CLASSES, tmp_path / "bar.png", "a note", synthetic)
    ranks = {"age": np.where(np.arange(20) % 5 == 0, np.nan, np.linspace(0, 1, 20))}
    dots = figures.beeswarm(values, GROUPS, CLASSES, tmp_path / "dots.png", ranks, synthetic)
    fall = figures.waterfall(values[0, :, 1], GROUPS, -1.0, 0.4, tmp_path / "fall.png", ["x"], synthetic=synthetic)
    for path in (bars, dots, fall):
        assert (red(path) > 500) == synthetic


def test_swarm_keeps_to_its_row_and_spreads_equals():
    heights = figures._swarm(np.array([0.0] * 30 + [1.0]))
    assert np.abs(heights).max() <= 0.36
    assert len(np.unique(heights[:30])) == 30
    assert heights[30] == 0


def test_waterfall_joins_weak_groups(tmp_path):
    many = np.linspace(1, 0.01, 30)
    path = figures.waterfall(many, [f"field {i}" for i in range(30)], 0.0, 16.0, tmp_path / "fall.png", max_groups=5)
    few = figures.waterfall(many[:5], [f"field {i}" for i in range(5)], 0.0, 4.0, tmp_path / "few.png")
    assert matplotlib.image.imread(path).shape[0] < 1.3 * matplotlib.image.imread(few).shape[0]


@pytest.mark.parametrize("has_masks", [True, False])
def test_faithfulness_has_a_panel_for_the_lesion_with_masks(tmp_path, has_masks):
    generator = np.random.default_rng(0)
    inside = generator.random((10, 2)) if has_masks else np.full((10, 2), np.nan)
    table = pd.DataFrame(inside, columns=["relevance_inside", "relevance_inside_gaussian"]).assign(correct=[1, 0] * 5)
    curve = np.linspace(1, 0, 11)
    curves = {way: dict.fromkeys(("map", "gaussian", "random"), curve) for way in ("deletion", "insertion")}
    path = figures.faithfulness_figure(table, curves, np.linspace(0, 1, 11), tmp_path / "f.png", "title")
    assert matplotlib.image.imread(path).shape[1] == pytest.approx((3 if has_masks else 2) * 3.9 * 130, abs=2)

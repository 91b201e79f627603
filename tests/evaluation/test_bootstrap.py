import time

import numpy as np
import pytest

from keras_skin.evaluation.bootstrap import bootstrap, weight_blocks, weighted_means
from keras_skin.evaluation.classification import classification_scores, image_counts, resampled_scores


def means(values, groups=None, **arguments):
    values = np.asarray(values, float)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    counts = {"m": int(np.sum(~np.isnan(values)))}
    return bootstrap(weighted_means({"m": values}), {"m": np.nanmean(values)}, counts, groups, **arguments)["m"]


def test_weights_draw_as_many_groups_as_there_are_and_keep_groups_together():
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    weights = np.concatenate(list(weight_blocks(groups, 50, seed=1)))
    assert weights.shape == (50, 6)
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    assert len(np.unique(weights, axis=0)) > 5


def test_memory_stays_bounded(monkeypatch):
    monkeypatch.setattr("keras_skin.evaluation.bootstrap.BLOCK_ELEMENTS", 1000)
    blocks = list(weight_blocks(np.arange(90), 100, seed=0))
    assert max(block.size for block in blocks) <= 1000
    assert sum(len(block) for block in blocks) == 100


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random(30)
    assert means(values, seed=4) == means(values, seed=4)
    assert means(values, seed=4) != means(values, seed=5)


def test_interval_of_a_mean_has_the_expected_width():
    values = np.random.default_rng(0).normal(size=400)
    result = means(values, resamples=4000)
    low, high = result["ci95"]
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_intervals_cover_the_truth_about_as_often_as_they_promise():
    random = np.random.default_rng(7)
    covered = 0
    for trial in range(300):
        low, high = means(random.normal(2.0, 1.0, size=60), resamples=300, seed=trial)["ci95"]
        covered += low <= 2.0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_groups_widen_the_interval_of_values_that_repeat():
    values = np.repeat(np.random.default_rng(0).random(20), 10)
    low, high = means(values)["ci95"]
    low_grouped, high_grouped = means(values, groups=np.repeat(np.arange(20), 10))["ci95"]
    assert high_grouped - low_grouped > 2 * (high - low)


def test_undefined_resamples_are_skipped_and_counted():
    result = means([np.nan, np.nan, 1.0, 3.0], resamples=1000)
    assert result["value"] == 2.0
    assert result["n"] == 2
    assert result["ci95"] == [1.0, 3.0]
    assert 30 < result["resamples_skipped"] < 100  # both are missed with probability 1/16


def test_one_group_has_no_interval():
    assert means([1.0, 2.0], groups=[5, 5]) == {"value": 1.5, "ci95": None, "n": 2}
    assert means([1.0, 2.0], resamples=0)["ci95"] is None


def test_undefined_values_are_left_out():
    assert bootstrap(weighted_means({"m": np.array([np.nan])}), {"m": np.nan}, {"m": 0}, np.arange(1)) == {}


def test_a_thousand_resamples_of_every_metric_take_seconds():
    random = np.random.default_rng(0)
    truth, probabilities = random.integers(2, size=400), random.dirichlet([1, 1], size=400)
    classes = ("benign", "malignant")
    began = time.process_time()
    result = bootstrap(
        resampled_scores(truth, probabilities, classes),
        classification_scores(truth, probabilities, classes),
        image_counts(truth, classes),
        np.arange(400),
    )
    assert len(result) > 25
    assert time.process_time() - began < 6  # about one second on an idle core

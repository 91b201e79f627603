"""Seeds pooled, and differences: against `compare`, which draws the same resamples."""

import numpy as np
import pytest

from keras_skin.evaluation.comparison import compare, name_sides
from keras_skin.evaluation.measured_run import read_run, read_runs
from keras_skin.evaluation.seeds import Sample, difference, pool, run_samples
from keras_skin.registry import UserError
from tests.evaluation.run_folders import images, write_run

METRICS = {"segmentation": ["dsc", "hd95_relative"], "classification": ["f1_weighted", "auc", "tpr/malignant", "auc/unknown"]}


def random():
    return np.random.default_rng(0)


def sample(value, resamples, images="a"):
    return Sample(value, 10, np.asarray(resamples, float), images)


def test_one_run_has_the_values_and_intervals_of_compare_and_so_has_a_paired_difference(tmp_path):
    paths = [write_run(tmp_path / name, images(60), seed=seed, skill=skill) for name, seed, skill in (("a", 1, 0.5), ("b", 2, 2))]
    first, second = (run_samples(read_run(path, "test"), METRICS) for path in paths)
    comparison = compare(name_sides([[run] for run in read_runs(paths, "test")]))
    rows = {(row.task, row.metric): row for row in comparison.rows}
    assert set(first) == {(task, metric) for task, names in METRICS.items() for metric in names if metric != "auc/unknown"}
    for key in first:
        one, other = pool([first[key]], random()), pool([second[key]], random())
        expected = rows[key].values[0]
        assert (one.value, one.n, one.spread) == (pytest.approx(expected["value"]), expected["n"], None)
        assert one.ci95 == pytest.approx(expected["ci95"])
        between = difference(other, one, random())
        assert between.paired
        assert between.value == pytest.approx(rows[key].differences[1]["value"])
        assert between.ci95 == pytest.approx(rows[key].differences[1]["ci95"])


def test_several_seeds_have_a_mean_a_spread_and_a_wider_interval(tmp_path):
    table = images(60)
    runs = [run_samples(read_run(write_run(tmp_path / str(seed), table, seed=seed), "test"), METRICS) for seed in range(4)]
    samples = [run["segmentation", "dsc"] for run in runs]
    pooled = pool(samples, random())
    values = [one.value for one in samples]
    assert pooled.value == pytest.approx(np.mean(values))
    assert pooled.spread == pytest.approx(np.std(values, ddof=1))
    assert pooled.ci95[0] < pooled.value < pooled.ci95[1]
    alike = pool([samples[0]] * 4, random())
    assert alike.spread == 0
    assert alike.ci95 == pytest.approx(pool(samples[:1], random()).ci95)


def test_runs_are_resampled_with_replacement():
    """Images never vary here, so the interval is that of the mean of two draws among 0 and 1: 0, 0.5 or 1."""
    pooled = pool([sample(0, [0] * 4000), sample(1, [1] * 4000)], random())
    values, counts = np.unique(pooled.resamples, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert (pooled.value, pooled.ci95) == (0.5, [0, 1])


def test_a_difference_on_the_same_images_is_paired_and_on_others_independent():
    drawn = np.random.default_rng(1).normal(size=4000)
    first, same, other = (pool([sample(0, drawn + shift, name)], random()) for shift, name in ((0, "a"), (1, "a"), (1, "b")))
    assert difference(same, first, random()).ci95 == pytest.approx([1, 1])
    independent = difference(other, first, random())
    assert not independent.paired
    # the difference of two independent normal values has the standard deviation sqrt(2)
    assert independent.ci95 == pytest.approx([1 - 1.96 * np.sqrt(2), 1 + 1.96 * np.sqrt(2)], abs=0.15)


def test_seeds_on_different_images_are_refused():
    with pytest.raises(UserError, match="measured different images"):
        pool([sample(0, [0], "a"), sample(0, [0], "b")], random())


def test_a_single_group_has_no_interval(tmp_path):
    table = images(8).assign(group_id="P")
    pooled = pool([run_samples(read_run(write_run(tmp_path / "a", table), "test"), METRICS)["segmentation", "dsc"]], random())
    assert pooled.ci95 is None

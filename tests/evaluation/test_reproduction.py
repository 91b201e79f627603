"""Rows of a table measured from run folders, and claims judged from their numbers."""

import numpy as np
import pytest

from keras_skin.evaluation.reproduction import ClaimedOrder, Outcome, RowRuns, judge, measure_row, measured_numbers
from keras_skin.evaluation.seeds import Pooled
from tests.evaluation.run_folders import images, write_run

METRICS = {"segmentation": ["dsc"], "classification": ["f1_weighted", "auc"]}
PUBLISHED = {"test": {"segmentation": {"dsc": 0.9}, "classification": {"auc": 0.8}}}


def random():
    return np.random.default_rng(0)


def pooled(values, images="a"):
    return Pooled((float(np.mean(values)),), 10, np.asarray(values, float), images)


def verdict(first, second, metric="auc", task="classification", split="test"):
    claim = ClaimedOrder("A is better than B.", ["test", "validation"], task, metric, "A", "B")
    numbers = {(name, (split, task, metric)): side for name, side in (("A", first), ("B", second)) if side is not None}
    return judge(claim, numbers, random())


def test_published_measured_and_difference(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    result = measure_row(RowRuns("A", "x", runs=runs, paper={"results": PUBLISHED}), ["test"], METRICS, random())
    lines = {line.metric: line for line in result.lines}
    assert list(lines) == ["dsc", "f1_weighted", "auc"]
    assert lines["dsc"].difference == pytest.approx(lines["dsc"].measured.value - 0.9)
    assert lines["f1_weighted"].difference is None
    assert lines["auc"].price is None
    assert measured_numbers([result])["A", ("test", "classification", "auc")] is lines["auc"].measured


def test_the_price_of_the_leak_is_image_level_minus_leak_free(tmp_path):
    run = write_run(tmp_path / "a", images(40), skill=0)
    leaky = write_run(tmp_path / "b", images(60).assign(split="validation"), skill=3, seed=3)
    (leaky / "metrics.json").write_text("{}")
    row = RowRuns(
        "A", "x", runs=[run], protocol_runs=[leaky], protocol_split={"test": "validation"}, paper={"results": PUBLISHED}
    )
    line = measure_row(row, ["test"], METRICS, random()).lines[2]
    assert line.price.value == pytest.approx(line.protocol.value - line.measured.value)
    assert 0 < line.price.ci95[0] < line.price.value < line.price.ci95[1]
    assert not line.price.paired
    assert line.protocol_difference == pytest.approx(line.protocol.value - 0.8)


def test_a_seed_on_other_images_and_a_split_that_was_not_measured_are_reported(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", images(39))]
    result = measure_row(RowRuns("A", "x", runs=runs), ["test", "external/ph2"], METRICS, random())
    assert [len(line.measured.values) for line in result.lines] == [1, 1, 1]
    assert "b measured other images of 'test' than the first seed and is left out." in result.problems
    assert any("measured no 'external/ph2'" in problem for problem in result.problems)


def test_a_published_number_without_a_run_has_a_line():
    (dsc, auc) = measure_row(RowRuns("A", "x", paper={"results": PUBLISHED}), ["test"], METRICS, random()).lines
    assert (dsc.published, dsc.measured, dsc.difference, auc.published) == (0.9, None, None, 0.8)


@pytest.mark.parametrize(
    ("shift", "outcome", "words"),
    [
        (5, Outcome.SHOWED_UP, "Showed up"),
        (-5, Outcome.DID_NOT_SHOW_UP, "Did not show up"),
        (0.1, Outcome.UNDECIDED, "Undecided"),
    ],
)
def test_a_claim_is_judged_by_the_interval(shift, outcome, words):
    drawn, other = np.random.default_rng(1).normal(size=(2, 1000))
    result = verdict(pooled(drawn + shift), pooled(other))
    assert result.outcome == outcome
    numbers = f"AUC of A minus B: {result.difference.value:+.4f} (95 % interval "
    assert result.sentence.startswith(f"{words}: A is better than B. {numbers}")
    distance = verdict(pooled(drawn + shift), pooled(other), "hd95_relative", "segmentation").outcome
    opposite = {Outcome.SHOWED_UP: Outcome.DID_NOT_SHOW_UP, Outcome.DID_NOT_SHOW_UP: Outcome.SHOWED_UP}
    assert distance == opposite.get(outcome, outcome), "a distance is better if it is smaller"


def test_rows_on_different_images_are_compared_without_pairs():
    drawn = np.random.default_rng(1).normal(size=1000)
    assert verdict(pooled(drawn + 1), pooled(drawn)).outcome == Outcome.SHOWED_UP
    result = verdict(pooled(drawn + 1), pooled(drawn, "b"))
    assert result.outcome == Outcome.UNDECIDED
    assert result.sentence.endswith(", on different images.")


def test_a_split_that_was_not_measured_gives_way_to_the_next():
    drawn = np.random.default_rng(1).normal(size=1000)
    result = verdict(pooled(drawn + 1), pooled(drawn), split="validation")
    assert (result.outcome, result.split) == (Outcome.SHOWED_UP, "validation")
    assert result.sentence.endswith(", Validation split.")


def test_a_claim_without_numbers_gives_the_reason():
    result = verdict(None, pooled([1, 2]))
    assert (result.outcome, result.sentence) == (
        Outcome.NOT_MEASURED,
        "Not measured: A is better than B. There is no result of A.",
    )
    assert "no result of A and of B" in verdict(None, None).sentence
    alone = Pooled((0.5,), 10, np.empty(0), "a")
    assert "only one patient or lesion" in verdict(alone, alone).sentence

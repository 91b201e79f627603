import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from keras_skin.evaluation.comparison import compare, differing_settings, group_by_seed, name_sides
from keras_skin.evaluation.evaluate import summarise
from keras_skin.evaluation.measured_run import read_runs
from keras_skin.registry import UserError
from keras_skin.run_folder import DRY_RUN_BANNER
from tests.evaluation.run_folders import BINARY, images, write_run

EIGHT = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", "scc")


def seeds(tmp_path, name, count=3, table=None, **model):
    return [
        write_run(
            tmp_path / f"{name}-2026010{seed}-101500",
            table,
            overrides=[f"train.seed={seed}", *model.get("overrides", ())],
            seed=seed + 100 * len(name),
            **{key: value for key, value in model.items() if key != "overrides"},
        )
        for seed in range(count)
    ]


def row(comparison, metric):
    (result,) = [row for row in comparison.rows if row.metric == metric]
    return result


def test_values_are_those_of_the_runs_own_reports_and_differences_are_theirs(tmp_path):
    table = images(60)
    paths = [write_run(tmp_path / name, table, skill=skill, seed=seed) for name, skill, seed in (("a", 0.5, 1), ("b", 2.0, 2))]
    runs = read_runs(paths, "test")
    comparison = compare(group_by_seed(runs), resamples=200)
    reports = [summarise(run.predictions, BINARY, run.predictions["group_id"].tolist(), resamples=200).metrics for run in runs]
    assert {(row.task, row.metric) for row in comparison.rows} == {
        (task, metric) for task, metrics in reports[0].items() for metric in metrics
    }
    for result in comparison.rows:
        own = [report[result.task][result.metric] for report in reports]
        for value, expected in zip(result.values, own, strict=True):
            assert (value["value"], value["n"]) == (pytest.approx(expected["value"]), expected["n"])
            assert value["ci95"] == pytest.approx(expected["ci95"])  # it is the same bootstrap
        assert result.differences[0] is None
        assert result.differences[1]["value"] == pytest.approx(own[1]["value"] - own[0]["value"])
    assert (comparison.images, comparison.groups) == (60, table["group_id"].nunique()) == (60, 48)


@pytest.mark.slow
def test_intervals_of_differences_are_paired_and_by_group(tmp_path):
    """Against a bootstrap written out: draw patients, measure both runs on the same images, subtract."""
    table = images(60)
    paths = [write_run(tmp_path / name, table, seed=seed, skill=skill) for name, seed, skill in (("a", 1, 1), ("b", 2, 1.5))]
    a, b = (run.predictions for run in read_runs(paths, "test"))
    comparison = compare(group_by_seed(read_runs(paths, "test")), resamples=4000)
    random = np.random.default_rng(3)
    members = [np.flatnonzero(a["group_id"] == group) for group in a["group_id"].unique()]
    truth = (a["label"] == "malignant").to_numpy().astype(int)
    guesses = [(run["predicted"] == "malignant").to_numpy().astype(int) for run in (a, b)]
    dsc, f1 = [], []
    for _ in range(1200):
        chosen = np.concatenate([members[index] for index in random.integers(len(members), size=len(members))])
        dsc.append(b["dsc"].to_numpy()[chosen].mean() - a["dsc"].to_numpy()[chosen].mean())
        first, second = (f1_score(truth[chosen], guess[chosen], average="macro") for guess in guesses)
        f1.append(second - first)
    for metric, sample in (("dsc", dsc), ("f1_macro", f1)):
        expected = np.percentile(sample, [2.5, 97.5])
        result = row(comparison, metric).differences[1]
        assert result["ci95"] == pytest.approx(expected, abs=0.1 * np.ptp(expected)), metric


def test_pairing_makes_the_interval_of_like_runs_narrow(tmp_path):
    table = images(60)
    a = write_run(tmp_path / "a", table, seed=1, skill=0.8)
    b = write_run(tmp_path / "b", table, seed=1, skill=0.9)  # nearly the same predictions
    result = row(compare(group_by_seed(read_runs([a, b], "test"))), "accuracy")
    widths = [np.ptp(value["ci95"]) for value in (result.values[0], result.differences[1])]
    assert widths[1] < 0.5 * widths[0]


def test_seeds_of_one_experiment_are_averaged_and_widen_the_interval(tmp_path):
    table = images(80)
    lucky = seeds(tmp_path, "recipe", 2, table, skill=1.0)
    lucky.append(
        write_run(tmp_path / "recipe-20260107-101500", table, overrides=["train.seed=7"], skill=4.0, seed=7)
    )  # one training went far better than the others
    base = write_run(tmp_path / "plain", table, overrides=["train.epochs=3"], skill=0.5, seed=50)
    runs = read_runs([base, *lucky], "test")
    comparison = compare(group_by_seed(runs))
    assert [side.name for side in comparison.sides] == ["plain", "recipe (3 runs)"]
    result = row(comparison, "accuracy")
    each = [row(compare(name_sides([[runs[0]], [run]])), "accuracy").values[1]["value"] for run in runs[1:]]
    assert result.values[1]["value"] == pytest.approx(np.mean(each))
    one = row(compare(name_sides([[runs[0]], [runs[1]]])), "accuracy")
    assert np.ptp(result.differences[1]["ci95"]) > 1.1 * np.ptp(one.differences[1]["ci95"])
    assert any("recipe (3 runs): the mean over its runs (seeds 0, 1, 7)" in note for note in comparison.notes)
    assert any(note.startswith("plain is a single run") for note in comparison.notes)


def test_the_spread_of_the_runs_alone_enters_the_interval(tmp_path):
    """With images that are all predicted alike within a run, only the draw of runs is left: three of three values."""
    table = images(30)
    paths = [write_run(tmp_path / f"m-2026010{seed}-101500", table, overrides=[f"train.seed={seed}"]) for seed in range(3)]
    base = write_run(tmp_path / "base", table, overrides=["train.epochs=3"])
    for path, value in zip([*paths, base], (0.6, 0.7, 0.9, 0.5), strict=True):
        predictions = pd.read_csv(path / "predictions.csv")
        predictions.assign(dsc=value).to_csv(path / "predictions.csv", index=False)
    result = row(compare(group_by_seed(read_runs([base, *paths], "test")), resamples=3000), "dsc")
    assert result.differences[1]["value"] == pytest.approx(np.mean([0.6, 0.7, 0.9]) - 0.5)
    # the same run three times over is drawn once in 27 times: more often than the 2.5 % beyond each end of the interval
    assert result.differences[1]["ci95"] == pytest.approx([0.1, 0.4])


def test_recipe_against_recipe_with_eight_classes(tmp_path):
    table = images(160, EIGHT)
    good = seeds(tmp_path, "good", 3, table, classes=EIGHT, skill=2.0, tasks=("label",))
    plain = seeds(tmp_path, "plain", 3, table, classes=EIGHT, skill=1.0, tasks=("label",), overrides=["train.epochs=3"])
    runs = read_runs([*good, *plain], "test")
    comparison = compare(name_sides([runs[:3], runs[3:]]), reference=1)
    result = row(comparison, "f1_macro")
    assert result.reference == 1
    assert result.differences[1] is None
    assert result.differences[0]["ci95"][0] > 0
    assert result.verdict(0) == "better"
    assert result.verdict(1) == ""
    assert {"f1/scc", "tnr/df", "top2_accuracy", "npv/mel"} <= {row.metric for row in comparison.rows}
    again = compare(name_sides([runs[:3], runs[3:]]), reference=1)
    assert again.to_json() == comparison.to_json()


@pytest.mark.slow
def test_equal_recipes_are_mostly_not_told_apart(tmp_path):
    verdicts, trials = 0, 12
    for trial in range(trials):
        table = images(60)
        runs = read_runs(
            [
                write_run(
                    tmp_path / f"{trial}{name}{seed}",
                    table,
                    tasks=("label",),
                    experiment="resnet50_isic2016",
                    seed=1000 * trial + 10 * index + seed,
                )
                for index, name in enumerate("ab")
                for seed in range(2)
            ],
            "test",
        )
        verdicts += bool(row(compare(name_sides([runs[:2], runs[2:]]), resamples=200), "f1_macro").verdict(1))
    assert verdicts <= 4


def test_lower_distances_are_better(tmp_path):
    table = images(60)
    far, near = (write_run(tmp_path / f"shift{shift}", table, shift=shift) for shift in (5, 1))
    comparison = compare(group_by_seed(read_runs([far, near], "test")))
    assert row(comparison, "hd95_relative").differences[1]["value"] < 0
    assert [row(comparison, name).verdict(1) for name in ("hd95_relative", "hd95_relative_model_size", "dsc", "dsc/benign")] == [
        "better",
        "better",
        "better",
        "better",
    ]


def test_runs_with_other_tasks_are_compared_where_they_can_be(tmp_path):
    table = images()
    unet = write_run(tmp_path / "unet", table, experiment="unet_isic2016", tasks=("mask",))
    resnet = write_run(tmp_path / "resnet", table, experiment="resnet50_isic2016", tasks=("label",))
    joint = write_run(tmp_path / "joint", table, stamp="groups may straddle")
    comparison = compare(group_by_seed(read_runs([unet, resnet, joint], "test")), resamples=20)
    dsc, auc = row(comparison, "dsc"), row(comparison, "auc")
    assert (dsc.reference, auc.reference) == (0, 1)
    assert [value is None for value in dsc.values] == [False, True, False]
    assert [value is None for value in auc.differences] == [True, True, False]
    assert dsc.values[2]["stamp"] == "groups may straddle"
    assert "stamp" not in dsc.values[0]
    assert any("Stamped numbers are too good" in note for note in comparison.notes)
    assert dsc.published == (0.9104, None, 0.8948)
    with pytest.raises(UserError, match="no metric in common: unet has masks, resnet has classes"):
        compare(group_by_seed(read_runs([unet, resnet], "test")))


def test_names_are_as_short_as_they_can_be(tmp_path):
    table = images()
    one = write_run(tmp_path / "x" / "jrl-20260101-101500", table)
    two = write_run(tmp_path / "x" / "jrl-20260102-101500", table, overrides=["train.epochs=3"])
    three = write_run(tmp_path / "y" / "jrl-20260102-101500", table, overrides=["train.epochs=4"])
    other = write_run(tmp_path / "x" / "unet-20260102-101500-2", table, overrides=["train.epochs=5"])

    def names(*paths):
        return [side.name for side in group_by_seed(read_runs(paths, "test"))]

    assert names(one, other) == ["jrl", "unet"]
    assert names(one, two) == ["jrl-20260101-101500", "jrl-20260102-101500"]
    assert names(two, three) == [str(two), str(three)]


def test_seeds_of_a_single_experiment_are_compared_with_each_other(tmp_path):
    sides = group_by_seed(read_runs(seeds(tmp_path, "m", 3, images()), "test"))
    assert [len(side.runs) for side in sides] == [1, 1, 1]


def test_repetitions_with_one_seed_do_not_count_as_seeds(tmp_path):
    table = images()
    paths = [write_run(tmp_path / name, table) for name in ("a", "b")]
    other = write_run(tmp_path / "c", table, overrides=["train.epochs=3"])
    assert [len(side.runs) for side in group_by_seed(read_runs([*paths, other], "test"))] == [1, 1, 1]


def test_what_differs_between_experiments_is_listed(tmp_path):
    table = images()
    a = write_run(tmp_path / "a", table)
    b = write_run(tmp_path / "b", table, overrides=["train.epochs=3", "title=Other", "train.optimizer.learning_rate=0.5"])
    settings = differing_settings(group_by_seed(read_runs([a, b], "test")))
    assert settings == {"train.epochs": ["50", "3"], "train.optimizer.learning_rate": ["0.003", "0.5"]}
    mixed = compare(name_sides([read_runs([a, b], "test"), [read_runs([a, b], "test")[0]]]), resamples=0)
    assert any("differ in more than their seed: train.epochs, train.optimizer.learning_rate" in note for note in mixed.notes)


def test_a_changed_run_lists_its_changes_and_shows_no_published_number(tmp_path):
    table = images()
    changed = write_run(tmp_path / "b", table, overrides=["model.variant=mtl1"], seed=4)
    comparison = compare(group_by_seed(read_runs([write_run(tmp_path / "a", table), changed], "test")), resamples=10)
    assert row(comparison, "dsc").published == (0.8948, None)
    assert "b is not the experiment of its file: model.variant is mtl1 (file: mtl3)." in comparison.notes
    assert any("model.variant is mtl1 (published: mtl3)" in note for note in comparison.notes)
    assert comparison.banner == ""


def test_dry_runs_and_uneven_images_are_said(tmp_path):
    table = images()
    a, b = write_run(tmp_path / "a", table), write_run(tmp_path / "b", table, record={"dry_run": True}, seed=4)
    predictions = pd.read_csv(b / "predictions.csv")
    predictions.loc[0, "dsc"] = np.nan
    predictions.to_csv(b / "predictions.csv", index=False)
    comparison = compare(group_by_seed(read_runs([a, b], "test")), resamples=10)
    assert any(note.startswith("b: a dry run") for note in comparison.notes)
    assert (
        "b: the published numbers are not shown, because they belong to another experiment: it is a dry run." in comparison.notes
    )
    assert row(comparison, "dsc").published == (0.8948, None)
    assert comparison.banner == DRY_RUN_BANNER
    assert any("Not every side has a value for the same images in DSC" in note for note in comparison.notes)
    assert [value["n"] for value in row(comparison, "dsc").values] == [40, 39]
    assert row(comparison, "dsc").differences[1]["n"] == 39

"""The audit finds a shortcut that was put there, none where there is none, and does not leak."""

import numpy as np
import pandas as pd
import pytest

from keras_skin.checking.shortcuts import shortcut

CLASSES = ("benign", "malignant")


@pytest.fixture
def labels():
    return np.random.default_rng(0).choice(CLASSES, 240)


def test_a_column_that_tells_the_class_is_found_and_named(labels):
    random = np.random.default_rng(1)
    features = pd.DataFrame(
        {
            "width": np.where(labels == "malignant", 1024, 600) + random.integers(0, 600, 240),
            "bytes": random.integers(0, 9999, 240),
        }
    )
    result = shortcut("file properties", features, dict.fromkeys(features, "numeric"), labels, CLASSES, np.arange(240))
    assert result.above_chance
    assert 0.9 < result.auc < 1
    assert result.auc_interval[0] < result.auc < result.auc_interval[1]
    assert result.strongest[0][0] == "width"
    assert result.chance == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_at_chance(labels, seed):
    features = pd.DataFrame(np.random.default_rng(10 + seed).normal(size=(240, 3)), columns=["a", "b", "c"])
    result = shortcut("noise", features, dict.fromkeys(features, "numeric"), labels, CLASSES, np.arange(240))
    assert not result.above_chance
    assert abs(result.auc - 0.5) < 0.15


@pytest.mark.slow
def test_groups_do_not_leak():
    """Ten images of each lesion, each lesion with a width of its own and a random label: only one who saw the lesion can tell."""
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 10)
    labels = random.permutation(np.repeat(CLASSES, 20))[groups]
    features = pd.DataFrame({"width": random.permutation(40)[groups] * 10.0})
    kinds = {"width": "numeric"}
    assert not shortcut("width", features, kinds, labels, CLASSES, groups).above_chance
    assert shortcut("width", features, kinds, labels, CLASSES, np.arange(400)).auc > 0.9  # the same without groups


def test_missing_values_and_categories_seen_once_are_no_mistake(labels):
    sex = pd.Series(np.where(labels == "malignant", "male", "female")).where(np.arange(240) % 3 > 0, "")
    sex[7] = "other"
    age = pd.Series(["", "unknown", "35.0", "80"] * 60)
    result = shortcut(
        "metadata",
        pd.DataFrame({"sex": sex, "age": age}),
        {"sex": "categorical", "age": "numeric"},
        labels,
        CLASSES,
        np.arange(240),
    )
    assert result.above_chance
    assert result.strongest[0][0] == "sex"


def test_classes_with_too_few_groups_are_left_out(labels):
    all_labels = np.append(labels, ["rare"] * 12)
    features = pd.DataFrame({"a": np.arange(252.0)})
    result = shortcut("a", features, {"a": "numeric"}, all_labels, (*CLASSES, "rare"), np.append(np.arange(240), [999] * 12))
    assert result.classes == CLASSES
    assert result.images == 240


@pytest.mark.parametrize(
    ("columns", "count", "why"),
    [([], 240, "no such columns"), (["a"], 12, "fewer than two classes"), (["same"], 240, "no column varies")],
)
def test_what_cannot_be_measured_says_why(labels, columns, count, why):
    features = pd.DataFrame({"a": np.arange(240.0), "same": 1.0})[columns][:count]
    result = shortcut("x", features, dict.fromkeys(columns, "numeric"), labels[:count], CLASSES, np.arange(count))
    assert why in result.not_measured
    assert not result.above_chance


@pytest.mark.slow
def test_twice_the_same(labels):
    features = pd.DataFrame({"a": np.random.default_rng(5).normal(size=240)})
    once, again = (shortcut("a", features, {"a": "numeric"}, labels, CLASSES, np.arange(240)) for _ in range(2))
    assert once == again

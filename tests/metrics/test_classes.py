"""Accuracy, balanced accuracy, weighted F1 and AUC against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from keras_skin import metrics
from keras_skin.metrics.auc import AUC
from keras_skin.metrics.balanced_accuracy import BalancedAccuracy
from keras_skin.metrics.f1_weighted import F1Weighted


def draw(classes: int, scale: float, images: int = 120) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(classes)
    truth = generator.choice(classes, images, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = generator.normal(size=(images, classes))
    logits[np.arange(images), truth] += 1
    return truth, (scale * logits).astype("float32")


def score(name: str, truth: np.ndarray, logits: np.ndarray) -> float:
    metric = metrics.get(name).builder()
    for start in range(0, len(truth), 50):
        part = slice(start, start + 50)
        metric.update_state(np.eye(logits.shape[1], dtype="float32")[truth[part]], logits[part])
    return float(metric.result())


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_accuracy_and_f1(classes: int) -> None:
    truth, logits = draw(classes, 1.0)
    assert score("accuracy", truth, logits) == pytest.approx(accuracy_score(truth, logits.argmax(1)), abs=1e-6)
    balanced = balanced_accuracy_score(truth, logits.argmax(1))
    assert balanced != pytest.approx(accuracy_score(truth, logits.argmax(1)), abs=1e-3)
    assert score("balanced_accuracy", truth, logits) == pytest.approx(balanced, abs=1e-6)
    assert score("f1_weighted", truth, logits) == pytest.approx(f1_score(truth, logits.argmax(1), average="weighted"), abs=1e-6)


@pytest.mark.parametrize("scale", [0.5, 1.0, 5.0])  # the last is over-confident: probabilities next to 0 and 1
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_auc(classes: int, scale: float) -> None:
    truth, logits = draw(classes, scale)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (
        roc_auc_score(truth, probabilities[:, 1])
        if classes == 2
        else roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    )
    assert score("auc", truth, logits) == pytest.approx(expected, abs=2e-3)


def test_balanced_accuracy_leaves_out_classes_that_do_not_occur() -> None:
    truth, logits = draw(3, 1.0)
    truth, logits = truth[truth != 1], logits[truth != 1]
    predicted = logits.argmax(1)
    assert (predicted == 1).any()
    expected = np.mean([np.mean(predicted[truth == k] == k) for k in (0, 2)])
    assert score("balanced_accuracy", truth, logits) == pytest.approx(expected, abs=1e-6)
    assert float(BalancedAccuracy().result()) == 0


def test_balanced_accuracy_weights() -> None:
    truth, logits = draw(3, 1.0)
    weights = np.random.default_rng(0).uniform(0.1, 2, len(truth)).astype("float32")
    metric = BalancedAccuracy()
    metric.update_state(np.eye(3)[truth], logits, sample_weight=weights)
    expected = balanced_accuracy_score(truth, logits.argmax(1), sample_weight=weights)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_auc_leaves_out_classes_that_do_not_occur() -> None:
    truth, logits = draw(3, 1.0)
    truth, logits = truth[truth < 2], logits[truth < 2]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.mean([roc_auc_score(truth == k, probabilities[:, k]) for k in (0, 1)])
    assert score("auc", truth, logits) == pytest.approx(expected, abs=2e-3)


def test_auc_of_ties_is_a_half_and_of_one_class_or_nothing_is_zero() -> None:
    assert score("auc", np.array([0, 1, 1]), np.zeros((3, 2), "float32")) == pytest.approx(0.5)
    assert score("auc", np.array([1, 1]), np.array([[0.0, 1.0], [0.0, 2.0]], "float32")) == 0
    assert float(AUC().result()) == 0


def test_auc_weights() -> None:
    truth, logits = draw(2, 1.0)
    weights = np.random.default_rng(0).uniform(0.1, 2, len(truth)).astype("float32")
    metric = AUC()
    metric.update_state(np.eye(2)[truth], logits, sample_weight=weights)
    expected = roc_auc_score(truth, logits[:, 1] - logits[:, 0], sample_weight=weights)
    assert float(metric.result()) == pytest.approx(expected, abs=2e-3)


def test_f1_predicts_one_class_when_logits_are_equal_or_zero() -> None:
    metric = F1Weighted()
    metric.update_state(np.eye(2, dtype="float32"), np.zeros((2, 2), "float32"))
    # Both predicted as class 0: F1 of class 0 is 2/3, of class 1 is 0.
    assert float(metric.result()) == pytest.approx(1 / 3)

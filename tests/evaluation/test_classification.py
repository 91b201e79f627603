import math

import numpy as np
import pytest
from sklearn import metrics as sk

from keras_skin.evaluation import classification
from keras_skin.evaluation.classification import classification_scores, confusion_counts, image_counts, resampled_scores

BINARY, FOUR = ("benign", "malignant"), ("a", "b", "c", "d")


def from_confusion(tn, fp, fn, tp):
    """Truth and hard probabilities with these counts."""
    truth = np.repeat([0, 0, 1, 1], [tn, fp, fn, tp])
    predicted = np.repeat([0, 1, 0, 1], [tn, fp, fn, tp])
    return truth, np.eye(2)[predicted] * 0.8 + 0.1


def test_published_confusion_matrix_gives_the_published_row():
    # Paper 001, MTL4 on ISIC 2016: confusion matrix 248/56/17/58; table 3 prints TPR 80.74, TNR 81.58, F1 82.07 (weighted).
    scores = classification_scores(*from_confusion(248, 56, 17, 58), BINARY)
    assert scores["tpr_weighted"] == pytest.approx(0.8074, abs=5e-5)
    assert scores["accuracy"] == pytest.approx(0.8074, abs=5e-5)
    assert scores["tnr"] == pytest.approx(0.8158, abs=5e-5)
    assert scores["f1_weighted"] == pytest.approx(0.8207, abs=5e-5)
    assert scores["tpr"] == pytest.approx(0.773, abs=5e-4)  # table 5, unweighted
    assert scores["tpr/benign"] == scores["tnr"]


def test_binary_values_by_hand():
    scores = classification_scores(*from_confusion(6, 2, 1, 3), BINARY)
    assert scores["precision"] == pytest.approx(3 / 5)
    assert scores["f1"] == pytest.approx(6 / 9)
    assert scores["balanced_accuracy"] == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert scores["mcc"] == pytest.approx((6 * 3 - 2 * 1) / math.sqrt(5 * 4 * 8 * 7))
    assert scores["kappa"] == pytest.approx((9 / 12 - (8 * 7 + 4 * 5) / 144) / (1 - (8 * 7 + 4 * 5) / 144))
    assert scores["auc"] == pytest.approx((6 * 3 + 0.5 * (6 * 1 + 2 * 3)) / 32)
    assert scores["npv/malignant"] == scores["npv"] == pytest.approx(6 / 7)
    assert scores["npv_weighted"] == pytest.approx((8 * 3 / 5 + 4 * 6 / 7) / 12)
    assert scores["f1_macro"] == pytest.approx((12 / 15 + 6 / 9) / 2)
    assert scores["precision_macro"] == pytest.approx((6 / 7 + 3 / 5) / 2)
    assert scores["tnr_weighted"] == pytest.approx((8 * 3 / 4 + 4 * 6 / 8) / 12)
    assert "top2_accuracy" not in scores


@pytest.fixture
def sample():
    random = np.random.default_rng(2)
    truth = random.choice(4, p=[0.5, 0.3, 0.15, 0.05], size=120)
    probabilities = random.dirichlet(np.ones(4), size=120) + 0.5 * np.eye(4)[truth] * random.random((120, 1))
    probabilities = np.round(probabilities / probabilities.sum(axis=1, keepdims=True), 2)  # ties
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_multi_class_against_scikit_learn(sample):
    truth, probabilities = sample
    predicted = probabilities.argmax(axis=1)
    scores = classification_scores(truth, probabilities, FOUR)
    assert scores["tpr"] == pytest.approx(sk.recall_score(truth, predicted, average="macro"))
    assert scores["f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert scores["f1_weighted"] == pytest.approx(sk.f1_score(truth, predicted, average="weighted"))
    assert scores["precision_weighted"] == pytest.approx(sk.precision_score(truth, predicted, average="weighted"))
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert scores["auc"] == pytest.approx(sk.roc_auc_score(truth, probabilities, multi_class="ovr"))
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, predicted))
    assert scores["tnr/b"] == pytest.approx(sk.recall_score(truth != 1, predicted != 1))
    assert scores["accuracy/c"] == pytest.approx(np.mean((truth == 2) == (predicted == 2)))


def test_eight_classes_against_scikit_learn():
    random = np.random.default_rng(5)
    truth = np.concatenate([np.arange(8), random.choice(8, p=[0.5, 0.2, 0.1, 0.08, 0.06, 0.03, 0.02, 0.01], size=392)])
    logits = random.normal(size=(400, 8)) + 1.5 * np.eye(8)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted, classes = probabilities.argmax(axis=1), tuple("abcdefgh")
    scores = classification_scores(truth, probabilities, classes)
    report = sk.classification_report(truth, predicted, labels=range(8), target_names=classes, output_dict=True, zero_division=0)
    for average, suffix in (("macro avg", "macro"), ("weighted avg", "weighted")):
        assert scores[f"f1_{suffix}"] == pytest.approx(report[average]["f1-score"])
        assert scores[f"precision_{suffix}"] == pytest.approx(report[average]["precision"])
    assert scores["f1"] == scores["f1_macro"]
    assert scores["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, predicted))
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, predicted))
    assert scores["top2_accuracy"] == pytest.approx(sk.top_k_accuracy_score(truth, probabilities, k=2))
    counts = image_counts(truth, classes)
    for index, name in enumerate(classes):
        own, guessed = truth == index, predicted == index
        assert counts[f"tpr/{name}"] == report[name]["support"]
        assert scores[f"tpr/{name}"] == pytest.approx(report[name]["recall"])
        assert scores[f"precision/{name}"] == pytest.approx(report[name]["precision"])
        assert scores[f"f1/{name}"] == pytest.approx(report[name]["f1-score"])
        assert scores[f"tnr/{name}"] == pytest.approx(sk.recall_score(~own, ~guessed))
        assert scores[f"npv/{name}"] == pytest.approx(sk.precision_score(~own, ~guessed))
        assert scores[f"auc/{name}"] == pytest.approx(sk.roc_auc_score(own, probabilities[:, index]))
        assert scores[f"average_precision/{name}"] == pytest.approx(sk.average_precision_score(own, probabilities[:, index]))
    assert scores["npv"] == pytest.approx(np.mean([scores[f"npv/{name}"] for name in classes]))


def test_top_two_accuracy():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    scores = classification_scores(np.array([0, 1, 2]), probabilities, ("a", "b", "c"))
    assert scores["top2_accuracy"] == pytest.approx(2 / 3)
    assert scores["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("classes", [BINARY, FOUR])
def test_resampled_scores_equal_the_scores_of_the_repeated_images(sample, classes):
    truth, probabilities = sample
    if classes == BINARY:
        truth = (truth > 1).astype(int)
        probabilities = np.stack([probabilities[:, :2].sum(1), probabilities[:, 2:].sum(1)], axis=1)
    weights = np.random.default_rng(0).integers(0, 4, size=(6, len(truth))).astype(float)
    resampled = resampled_scores(truth, probabilities, classes)(weights)
    for row, weight in enumerate(weights.astype(int)):
        expected = classification_scores(np.repeat(truth, weight), np.repeat(probabilities, weight, axis=0), classes)
        assert set(expected) == set(resampled)
        for name, value in expected.items():
            assert resampled[name][row] == pytest.approx(value, nan_ok=True), name


def test_resample_without_a_class_is_undefined_not_zero():
    truth, probabilities = from_confusion(3, 1, 1, 2)
    weights = np.stack([truth == 0, truth == 1, np.ones(7)]).astype(float)
    scores = resampled_scores(truth, probabilities, BINARY)(weights)
    for name in ("auc", "mcc", "kappa", "balanced_accuracy"):
        assert np.isnan(scores[name][:2]).all(), name
        assert not np.isnan(scores[name][2]), name
    np.testing.assert_allclose(scores["tnr"], [0.75, np.nan, 0.75])
    np.testing.assert_allclose(scores["tpr"], [np.nan, 2 / 3, 2 / 3])
    assert np.isnan(scores["f1"][0])


@pytest.mark.parametrize(("only", "defined", "undefined"), [(0, "tnr", "tpr"), (1, "tpr", "tnr")])
def test_one_class_test_set(only, defined, undefined):
    truth, probabilities = np.full(5, only), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3], [0.55, 0.45]])
    scores = classification_scores(truth, probabilities, BINARY)
    recall = [0.8, 0.2][only]
    assert scores["accuracy"] == scores["tpr_weighted"] == scores[defined] == pytest.approx(recall)
    assert all(math.isnan(scores[name]) for name in (undefined, "auc", "average_precision", "balanced_accuracy", "mcc", "kappa"))
    resampled = resampled_scores(truth, probabilities, BINARY)(np.ones((1, 5)))
    for name, value in scores.items():
        assert resampled[name][0] == pytest.approx(value, nan_ok=True), name


def test_absent_class_of_several_leaves_the_means():
    truth, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 3, 1, 1, 0])
    scores = classification_scores(truth, np.eye(4)[predicted] * 0.6 + 0.1, FOUR)
    assert scores["balanced_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert math.isnan(scores["tpr/d"])
    assert not math.isnan(scores["auc"])


def test_counts_behind_each_metric():
    counts = image_counts(np.array([0, 0, 0, 1]), BINARY)
    assert (counts["tpr"], counts["tnr"], counts["auc"], counts["tpr/benign"], counts["tnr/benign"]) == (1, 3, 4, 3, 1)


def test_confusion_has_every_class():
    np.testing.assert_array_equal(
        confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), ("a", "b", "c")), [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    )


def test_every_score_has_a_label(sample):
    named = {name for name in classification_scores(*sample, FOUR) if "/" not in name}
    assert named == set(classification.METRICS)

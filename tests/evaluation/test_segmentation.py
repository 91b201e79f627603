import math

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, matthews_corrcoef

from keras_skin.evaluation import segmentation
from keras_skin.evaluation.segmentation import relative_hausdorff_95, resize_probability, score_mask


def mask(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def test_hand_worked_counts_and_scores():
    scores = score_mask(mask("##..", "##.."), mask("#...", "##.#"))
    assert (scores["tp"], scores["fp"], scores["fn"], scores["tn"]) == (3, 1, 1, 3)
    assert scores["dsc"] == pytest.approx(6 / 8)
    assert scores["iou"] == pytest.approx(3 / 5)
    assert scores["mcc"] == pytest.approx((3 * 3 - 1 * 1) / math.sqrt(4 * 4 * 4 * 4))
    assert scores["sensitivity"] == pytest.approx(3 / 4)
    assert scores["specificity"] == pytest.approx(3 / 4)
    assert scores["pixel_accuracy"] == pytest.approx(6 / 8)


def test_agrees_with_scikit_learn_on_random_masks():
    random = np.random.default_rng(1)
    for _ in range(5):
        truth, predicted = random.random((2, 9, 13)) < 0.4
        scores = score_mask(truth, predicted)
        assert scores["mcc"] == pytest.approx(matthews_corrcoef(truth.ravel(), predicted.ravel()))
        assert scores["iou"] == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()))


EMPTY, FULL, SOME = np.zeros((4, 5), bool), np.ones((4, 5), bool), np.eye(4, 5, dtype=bool)


@pytest.mark.parametrize(
    ("truth", "predicted", "dsc", "iou", "mcc", "sensitivity", "specificity", "hd95"),
    [
        (EMPTY, EMPTY, math.nan, math.nan, math.nan, math.nan, 1.0, math.nan),
        (EMPTY, SOME, 0.0, 0.0, 0.0, math.nan, 0.8, 1.0),
        (SOME, EMPTY, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0),
        (EMPTY, FULL, 0.0, 0.0, 0.0, math.nan, 0.0, 1.0),
        (FULL, FULL, 1.0, 1.0, 1.0, 1.0, math.nan, 0.0),
        (SOME, SOME, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
        (FULL, SOME, 1 / 3, 0.2, 0.0, 0.2, math.nan, None),
    ],
)
def test_degenerate_masks(truth, predicted, dsc, iou, mcc, sensitivity, specificity, hd95):
    scores = score_mask(truth, predicted)
    expected = {"dsc": dsc, "iou": iou, "mcc": mcc, "sensitivity": sensitivity, "specificity": specificity}
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, nan_ok=True), name
    if hd95 is not None:
        assert scores["hd95_relative"] == pytest.approx(hd95, nan_ok=True)
    assert scores["tp"] + scores["fp"] + scores["fn"] + scores["tn"] == 20


def test_mcc_of_a_large_image_does_not_overflow():
    truth, predicted = np.zeros((2, 4000, 4000), bool)
    truth[:2000], predicted[100:2100] = True, True
    assert score_mask(truth, predicted)["mcc"] == pytest.approx(0.9)


def test_hausdorff_of_a_shifted_square_is_the_shift():
    truth, predicted = np.zeros((2, 30, 40), bool)
    truth[5:15, 5:15], predicted[5:15, 9:19] = True, True
    assert relative_hausdorff_95(truth, predicted) == pytest.approx(4 / 50)


def test_hausdorff_agrees_with_all_pairs():
    random = np.random.default_rng(3)
    truth, predicted = random.random((2, 12, 9)) < 0.3

    def outline(m):
        p = np.pad(m, 1)
        return [
            (i, j)
            for i, j in zip(*np.nonzero(m), strict=True)
            if not (p[i, j + 1] and p[i + 2, j + 1] and p[i + 1, j] and p[i + 1, j + 2])
        ]

    a, b = outline(truth), outline(predicted)
    ab = [min(math.dist(p, q) for q in b) for p in a]
    ba = [min(math.dist(p, q) for q in a) for p in b]
    expected = max(np.percentile(ab, 95), np.percentile(ba, 95)) / math.hypot(12, 9)
    assert relative_hausdorff_95(truth, predicted) == pytest.approx(expected)


def test_masks_of_different_sizes_or_types_are_refused():
    with pytest.raises(ValueError, match="one size"):
        score_mask(EMPTY, np.zeros((5, 4), bool))
    with pytest.raises(ValueError, match="boolean"):
        score_mask(EMPTY, EMPTY.astype("uint8"))


def test_enlarging_is_bilinear_with_half_pixel_centres():
    small = np.array([[0.0, 1.0]])
    assert resize_probability(small, (1, 4))[0] == pytest.approx([0.0, 0.25, 0.75, 1.0])
    assert resize_probability(np.full((3, 4), 0.3), (7, 9)) == pytest.approx(np.full((7, 9), 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(37, 51), (5, 6), (12, 4)])
def test_resizing_equals_the_exported_models(size):
    tf = pytest.importorskip("tensorflow")
    probability = np.random.default_rng(0).random((12, 16)).astype("float32")
    expected = tf.image.resize(probability[..., None], size, antialias=True)[..., 0]
    np.testing.assert_allclose(resize_probability(probability, size), expected, atol=1e-5)


def test_every_metric_has_a_label_and_a_meaning():
    scores = score_mask(SOME, FULL)
    assert list(scores) == [*segmentation.METRICS, *segmentation.COUNTS]
    assert len(segmentation.metric_names()) == 2 * len(segmentation.METRICS)

"""DSC and IoU, worked by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from keras_skin.metrics.dsc import DSC
from keras_skin.metrics.iou import IoU


@pytest.mark.parametrize(
    ("truth", "logits", "dsc", "iou"),
    [
        ([1, 1, 0, 0], [9, 9, -9, -9], 1, 1),
        ([1, 1, 0, 0], [9, -9, -9, -9], 2 / 3, 1 / 2),
        ([1, 1, 0, 0], [-9, -9, 9, -9], 0, 0),
        ([1, 1, 0, 0], [0, 0, 0, 0], 0, 0),  # probability 0.5 is not above the threshold
        ([0, 0, 0, 0], [-9, -9, -9, -9], 1, 1),
        ([0, 0, 0, 0], [-9, 9, -9, -9], 0, 0),
    ],
)
def test_worked_by_hand(truth: list[float], logits: list[float], dsc: float, iou: float) -> None:
    shape = (1, 2, 2, 1)
    for metric, expected in ((DSC(), dsc), (IoU(), iou)):
        metric.update_state(np.reshape(truth, shape).astype("float32"), np.reshape(logits, shape).astype("float32"))
        assert float(metric.result()) == pytest.approx(expected)


def test_mean_over_images_against_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random((7, 9, 11, 1)) > 0.6).astype("float32")
    logits = (truth - 0.5 + generator.normal(size=truth.shape)).astype("float32")
    pairs = [(image.ravel() > 0, values.ravel() > 0) for image, values in zip(truth, logits, strict=True)]
    for metric, score in ((DSC(), f1_score), (IoU(), jaccard_score)):
        for start in (0, 3, 6):
            metric.update_state(truth[start : start + 3], logits[start : start + 3])
        assert float(metric.result()) == pytest.approx(np.mean([score(*pair) for pair in pairs]), abs=1e-6)


def test_sample_weights() -> None:
    truth = np.ones((2, 1, 1, 1), "float32")
    logits = np.array([5.0, -5.0], "float32").reshape(2, 1, 1, 1)
    metric = DSC()
    metric.update_state(truth, logits, sample_weight=np.array([3.0, 1.0]))
    assert float(metric.result()) == pytest.approx(0.75)

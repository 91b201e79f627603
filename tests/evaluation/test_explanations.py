"""Numbers of explanations against scikit-learn, and the sentences made of them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from keras_skin.evaluation.explanations import FEW, METRICS, doubts, explanation_rows, red_lines, summarise


@pytest.fixture
def table():
    generator = np.random.default_rng(0)
    entropy = generator.random(30)
    entropy[3] = np.nan
    return pd.DataFrame(
        {
            "explained": ["a", "b", "c"] * 10,
            "correct": (generator.random(30) > 0.4).astype(float),
            "entropy": entropy,
            "iou_predicted_mask": generator.random(30),
        }
    )


def test_means_by_class_and_entropy_of_errors(table):
    measures = summarise(table, np.arange(30), resamples=200)
    known = table.dropna()
    assert measures["entropy"]["value"] == pytest.approx(known["entropy"].mean())
    assert measures["entropy"]["n"] == 29
    assert measures["iou_predicted_mask/b"]["value"] == pytest.approx(table["iou_predicted_mask"][1::3].mean())
    assert measures["entropy_of_wrong"]["value"] == pytest.approx(known["entropy"][known["correct"] == 0].mean())
    auc = measures["entropy_tells_errors"]
    assert auc["value"] == pytest.approx(roc_auc_score(known["correct"] == 0, known["entropy"]))
    assert auc["ci95"][0] < auc["value"] < auc["ci95"][1]


def test_the_resampled_auc_is_that_of_the_resample(table):
    from keras_skin.evaluation.bootstrap import weight_blocks

    known = table.dropna()
    (weights,) = weight_blocks(np.arange(30), 100, 0)
    rows = [np.repeat(np.arange(30), row.astype(int)) for row in weights]
    samples = [table.iloc[row].dropna() for row in rows]
    expected = [roc_auc_score(part["correct"] == 0, part["entropy"]) for part in samples]
    measures = summarise(table, np.arange(30), resamples=100)["entropy_tells_errors"]["ci95"]
    np.testing.assert_allclose(measures, np.percentile(expected, [2.5, 97.5]), rtol=1e-9)
    assert len(known) == 29


def test_without_errors_nothing_is_said_of_them(table):
    assert "entropy_tells_errors" not in summarise(table.assign(correct=1.0), np.arange(30), resamples=0)


def metric(value, low, high, n=40):
    return {"value": value, "ci95": [low, high], "n": n}


def test_red_lines_say_what_failed_and_by_how_much():
    fine = {
        "relevance_inside": metric(0.8, 0.7, 0.9),
        "relevance_inside_gain": metric(0.3, 0.2, 0.4),
        "deletion_auc": metric(0.2, 0.1, 0.3),
        "deletion_gain_gaussian": metric(0.1, 0.05, 0.2),
        "shuffled_correlation": metric(0.1, 0.0, 0.2),
    }
    assert red_lines("cam_features", fine) == []
    (line,) = red_lines("cam_features", {**fine, "relevance_inside_gain": metric(-0.1, -0.2, -0.05)})
    assert "no better" in line
    assert "0.80 against 0.90" in line
    assert "40 images" in line
    (line,) = red_lines("cam_features", {**fine, "deletion_gain_gaussian": metric(0.1, -0.01, 0.2)})
    assert "not shown to be better" in line
    assert "0.200 against 0.300" in line
    assert red_lines("cam_features", {**fine, "deletion_gain_gaussian": metric(-0.1, -0.3, 0.2, n=FEW - 1)}) == []
    assert len(red_lines("cam_features", {**fine, "deletion_gain_gaussian": metric(-0.1, -0.3, -0.05, n=FEW - 1)})) == 1
    (line,) = red_lines("cam_features", {**fine, "deletion_gain_gaussian": {"value": 0.1, "ci95": None, "n": 1}})
    assert "too few images" in line
    (line,) = red_lines("cam_features", {**fine, "shuffled_correlation": metric(0.7, 0.6, 0.8)})
    assert "shuffled weights" in line


def test_a_run_s_doubts_are_the_red_lines_of_all_its_layers():
    bad = {"relevance_inside": metric(0.8, 0.7, 0.9), "relevance_inside_gain": metric(-0.1, -0.2, -0.05)}
    layers = {"cam_features": bad, "decoder_1": bad}
    assert doubts({"test": {}, "explanations": layers}) == [line for name in layers for line in red_lines(name, bad)]
    assert len(doubts({"explanations": layers})) == 2
    assert doubts({"test": {}}) == []


def test_shap_values_that_do_not_add_up_are_called_so():
    gap = {"value": 0.1, "ci95": None, "n": 16}
    assert red_lines("metadata_shap", {"relative_gap": gap}) == []
    (line,) = red_lines("metadata_shap", {"relative_gap": {**gap, "value": 0.64}})
    assert "64% of what the logits moved" in line


def test_rows_of_the_report_are_in_the_order_of_their_names():
    values = {"entropy": metric(0.5, 0.4, 0.6), "iou_predicted_mask/b": metric(1, 1, 1), "relevance_inside": metric(1, 1, 1)}
    ((layer, rows),) = explanation_rows({"cam_features": values}, {"entropy": "> 0.4"})
    assert layer == "cam_features"
    assert [row[0] for row in rows] == [
        METRICS["relevance_inside"][0],
        f"{METRICS['iou_predicted_mask'][0]}, b",
        METRICS["entropy"][0],
    ]
    assert [row[2] for row in rows] == [None, None, "> 0.4"]

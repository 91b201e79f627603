"""Charts of metrics class by class: heights, intervals, and what is undefined."""

import pytest
from matplotlib.axes import Axes

from keras_skin.figures.class_charts import class_chart

CLASSES = ("MEL", "NV", "BCC")
METRICS = {
    "precision/MEL": {"value": 0.64, "ci95": [0.5, 0.75], "n": 9},
    "tpr/MEL": {"value": 0.63, "ci95": None, "n": 9},
    "precision/NV": {"value": 0.9, "ci95": [0.88, 0.92], "n": 9},
    "tpr/NV": {"value": 0.94, "ci95": [0.9, 0.97], "n": 9},
    "precision/BCC": {"value": 0.0, "ci95": None, "n": 9},
}


@pytest.fixture
def calls(monkeypatch):
    calls = {"bar": [], "annotate": []}
    bar, annotate = Axes.bar, Axes.annotate
    monkeypatch.setattr(Axes, "bar", lambda self, *args, **style: calls["bar"].append((args, style)) or bar(self, *args, **style))
    monkeypatch.setattr(
        Axes, "annotate", lambda self, *args, **style: calls["annotate"].append(args) or annotate(self, *args, **style)
    )
    return calls


def test_bars_have_the_values_and_an_undefined_one_a_hyphen(tmp_path, calls):
    path = class_chart(METRICS, ("precision", "tpr"), CLASSES, tmp_path / "chart.png", "title")
    assert path.is_file()
    heights = {style["label"]: list(args[1]) for args, style in calls["bar"]}
    assert heights == {"PPV (precision)": [0.64, 0.9, 0.0], "TPR (recall)": [0.63, 0.94, 0.0]}
    assert [args[0] for args in calls["annotate"]] == ["0.64", "0.90", "0.00", "0.63", "0.94", "-"]
    above_interval = [args[1][1] for args in calls["annotate"]][:2]
    assert above_interval == [0.75, 0.92]
    for (first, _), (second, _) in zip(calls["bar"], calls["bar"][1:], strict=False):
        assert all(right - left == pytest.approx(0.4) for left, right in zip(first[0], second[0], strict=True))


def test_nothing_is_drawn_without_values(tmp_path):
    assert class_chart({}, ("tnr",), CLASSES, tmp_path / "chart.png") is None
    assert not (tmp_path / "chart.png").exists()

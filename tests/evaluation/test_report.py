import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image

from keras_skin.evaluation.report import (
    Picture,
    ReportContext,
    comparison_rows,
    format_table,
    metric_label,
    split_label,
    write_report,
)

HOSTILE = '<script>alert("x")</script><img src=http://evil.example/a.png>'
VOID = {"meta", "img", "br", "line", "circle", "link", "input"}


def measured(value, n=10, ci95=(0.5, 0.9)):
    return {"value": value, "ci95": list(ci95) if ci95 else None, "n": n}


METRICS = {
    "validation": {"segmentation": {"dsc": measured(0.9), "dsc_model_size": measured(0.91)}},
    "test": {
        "segmentation": {"dsc": measured(0.88)},
        "classification": {
            "accuracy": measured(0.8),
            "tnr": measured(0.7, 6, None),
            "tpr/malignant": measured(0.6, 4),
            "auc": measured(0.75) | {"resamples_skipped": 17},
        },
    },
}
PAPER = {
    "citation": "Author: Title, 2024",
    "doi": "10.1/x",
    "results": {
        "test": {"segmentation": {"dsc": 0.8948, "iou": 0.8246}, "classification": {"tnr": 0.8158, "kappa": None}},
        "external/ph2": {"segmentation": {"dsc": 0.8881}},
    },
    "notes": ["a misprint"],
}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the page would load."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.loads, self.text, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [
            value
            for name, value in attributes
            if name in ("src", "srcset", "data", "action", "poster") or (name == "href" and tag != "a")
        ]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def context(tmp_path):
    Image.new("RGB", (4, 3), "red").save(tmp_path / "figure.png")
    Image.new("RGB", (4, 3), "red").save(tmp_path / "sheet.jpg")
    return ReportContext(
        title=HOSTILE,
        description=HOSTILE,
        metrics=METRICS,
        paper=PAPER | {"notes": [HOSTILE]},
        summary={"Model": HOSTILE, "Parameters": 10_902_000},
        data=pd.DataFrame({"part": [HOSTILE], "images": [12], "share": [0.25]}),
        excluded=pd.DataFrame({"image_id": ["im1"], "reason": [HOSTILE]}),
        notes=[HOSTILE],
        evaluation_notes={"test": [HOSTILE]},
        figures=[Picture(tmp_path / "figure.png", HOSTILE)],
        explanations=[Picture(tmp_path / "sheet.jpg", "Grad-CAM")],
        environment={"python": "3.11", "packages": {"keras": "3.15"}},
        experiment={"title": HOSTILE, "seed": 0},
        commands={HOSTILE: "serve"},
        citation=HOSTILE,
    )


def written(path, context):
    write_report(path, context)
    return path.read_text(encoding="utf-8")


def test_full_report_is_well_formed_loads_nothing_and_escapes(tmp_path, context):
    text = written(tmp_path / "report.html", context)
    page = Page(text)
    assert "script" not in page.tags
    assert len(page.loads) == 2
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", load) for load in page.loads)
    assert not re.search(r"url\(|@import", text)
    assert "default-src 'none'" in text
    assert "".join(page.text).count(HOSTILE) >= 10
    assert "not a medical device" in text
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["figure.png", "report.html", "sheet.jpg"]


def test_numbers_stand_in_the_report(tmp_path, context):
    text = " ".join(" ".join(Page(written(tmp_path / "report.html", context)).text).split())
    assert "DSC 0.8948 0.8800" in text
    assert "-0.0148" in text
    assert "not measured" in text  # external/ph2
    assert "0.5000 to 0.9000" in text
    assert "17 resamples skipped" in text
    assert "External: ph2" in text
    assert "keras 3.15" in text
    assert json.dumps(HOSTILE) in text


def test_smallest_report(tmp_path):
    page = Page(written(tmp_path / "report.html", ReportContext(title="Empty", metrics={})))
    assert page.loads == []
    assert "SYNTHETIC" not in "".join(page.text)


def test_label_only_and_nothing_excluded(tmp_path):
    metrics = {"test": {"classification": {"accuracy": measured(0.8), "tpr/a": measured(1.0)}}}
    text = written(tmp_path / "report.html", ReportContext(title="t", metrics=metrics, excluded=pd.DataFrame({"image_id": []})))
    assert "No image was excluded." in text
    assert "published" not in "".join(Page(text).text)


def test_synthetic_report_says_so(tmp_path, context):
    plain = written(tmp_path / "plain.html", context)
    paper = {"citation": "Author: Title, 2024", "dropped": "its images were drawn by a program"}
    text = written(
        tmp_path / "report.html", ReportContext(title="t", metrics=METRICS, paper=paper, banner="SYNTHETIC DATA: drawn.")
    )
    assert "<title>SYNTHETIC DATA: t</title>" in text
    assert '<div class="banner" role="alert">SYNTHETIC DATA: drawn.</div>' in text
    assert "not shown, because they belong to another experiment: its images were drawn by a program." in text
    assert "SYNTHETIC" not in plain


def test_what_else_a_paper_prints_stands_beside_what_is_measured(tmp_path):
    paper = {
        "results": {"test": {"classification": {"accuracy": "> 0.85"}}},
        "other_results": {"table 2": {"test": {"classification": {"accuracy": 0.8432}}}},
        "efficiency": {"latency_ms": "> 40", "parameters": 11_500_000},
        "explanations": {"iou_predicted_mask": 0.7736},
        "cited": [
            {"method": "CUMED", "source": "[12]", "results": {"test": {"segmentation": {"dsc": 0.897}}}},
            {"method": "AuxNet", "source": "[32]", "rebuilt": True, "results": {"test": {"classification": {"auc": 0.96}}}},
        ],
    }
    context = ReportContext(
        title="t",
        metrics=METRICS,
        paper=paper,
        efficiency={"latency_ms": 12.345, "training_minutes": 30.0},
        explanation_metrics={"cam_features": {"iou_predicted_mask": measured(0.3)}},
        missing={"test": 190},
    )
    text = re.sub(r"<[^>]+>|\s+", " ", written(tmp_path / "report.html", context))
    text = re.sub(r" +", " ", text)
    assert "Accuracy &gt; 0.85 0.8000" in text
    assert "Another evaluation in the paper: table 2" in text
    assert "Accuracy 0.8432 0.8000" in text
    assert "Milliseconds per image &gt; 40 12.35" in text
    assert "Parameters 11,500,000 -" in text
    assert "Minutes of training - 30" in text
    assert "CUMED [12] Test split DSC 0.8970" in text
    assert "AUC 0.9600 (cited)" in text
    assert "0.8970 (cited)" not in text, "another method's number does not stand beside the measured one"
    assert "0.7736" in text
    assert "10 of 200" in text
    (row,) = [row for row in comparison_rows(paper, METRICS, {"test": 190}) if row.metric == "accuracy"]
    assert (row.published, row.difference, row.count) == ("> 0.85", None, "10 of 200")
    (of_one_class,) = [row for row in comparison_rows(paper, METRICS, {"test": 190}) if row.metric == "tnr"]
    assert of_one_class.count == "6"


def test_pictures_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "figure.svg").write_text("<svg/>")
    with pytest.raises(ValueError, match=r"figure\.svg"):
        write_report(
            tmp_path / "report.html", ReportContext(title="t", metrics={}, figures=[Picture(tmp_path / "figure.svg", "")])
        )
    assert not (tmp_path / "report.html").exists()


def test_comparison_rows_order_and_content():
    rows = comparison_rows(PAPER, METRICS)
    assert [(row.split, row.metric) for row in rows] == [
        ("test", "dsc"),
        ("test", "iou"),
        ("test", "tnr"),
        ("test", "auc"),
        ("external/ph2", "dsc"),
        ("validation", "dsc"),
    ]
    first, iou = rows[:2]
    assert (first.published, first.measured, first.ci95, first.n) == (0.8948, 0.88, (0.5, 0.9), 10)
    assert first.difference == pytest.approx(-0.0148)
    assert (iou.published, iou.measured, iou.ci95, iou.n, iou.difference) == (0.8246, None, None, None, None)
    assert rows[2].ci95 is None
    assert [row.published for row in comparison_rows(None, METRICS)] == [None] * 4
    assert comparison_rows(None, {}) == []


def test_terminal_table():
    table = format_table(comparison_rows(PAPER, METRICS))
    lines = table.splitlines()
    assert table.isascii()
    assert lines[0].split() == ["split", "metric", "published", "measured", "95", "%", "interval", "n"]
    assert lines[2].split() == ["test", "DSC", "0.8948", "0.8800", "0.5000", "..", "0.9000", "10"]
    assert lines[3].split() == ["IoU", "0.8246", "-", "-", "-"]
    assert len({len(line) for line in lines[1:3]}) == 1
    assert format_table([]) == "Nothing was measured."


def test_a_stamp_stands_on_every_number(tmp_path):
    stamped = {"test": {"segmentation": {"dsc": measured(0.88) | {"stamp": "groups may straddle"}}}}
    line = format_table(comparison_rows(PAPER, stamped)).splitlines()[2]
    assert "DSC (groups may straddle)" in line
    write_report(
        tmp_path / "report.html",
        ReportContext(title="t", metrics=stamped, paper=PAPER, warnings=["3 lesions lie on both sides <b>"]),
    )
    text = (tmp_path / "report.html").read_text()
    assert text.count('<small class="stamp">groups may straddle</small>') == 2  # among the results and among all metrics
    assert "3 lesions lie on both sides &lt;b&gt;" in text


def test_failed_claims_of_explanations_are_red_lines_above_their_numbers(tmp_path):
    values = {"relevance_inside": measured(0.31, 48), "iou_predicted_mask/mel": measured(0.5, 7)}
    context = ReportContext(
        title="t",
        metrics={},
        explanation_metrics={"cam_features": values},
        explanation_warnings=["cam_features: the maps are no better <b>"],
    )
    page = Page(written(tmp_path / "report.html", context))
    assert (
        '<p class="notice warning" role="alert"><strong>cam_features: the maps are no better &lt;b&gt;'
        in (tmp_path / "report.html").read_text()
    )
    text = " ".join(" ".join(page.text).split())
    assert "Relevance inside the lesion share of the map inside the true mask; 1 is all 0.3100 0.5000 to 0.9000 48" in text
    assert "IoU with the predicted mask, mel 0.5000" in text


def test_masks_stand_by_true_class(tmp_path):
    metrics = {"test": {"segmentation": {"dsc": measured(0.88), "dsc/nv": measured(0.91, 7), "dsc/mel": measured(0.71, 3)}}}
    page = Page(written(tmp_path / "report.html", ReportContext(title="t", metrics=metrics)))
    text = " ".join(" ".join(page.text).split())
    assert "Segmentation by true class true class images DSC IoU nv 7 0.9100" in text
    assert "mel 3 0.7100 0.5000 to 0.9000 -" in text


def test_labels():
    assert metric_label("segmentation", "dsc/mel") == "DSC, mel"
    assert metric_label("segmentation", "dsc_model_size") == "DSC, model's size"
    assert metric_label("classification", "tpr/malignant") == "TPR (recall), malignant"
    assert metric_label("classification", "something_new") == "something_new"
    assert split_label("external/ph2") == "External: ph2"
    assert split_label("fold_1") == "fold_1"

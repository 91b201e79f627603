import json
import re
from dataclasses import replace

import numpy as np
import pytest

from keras_skin.evaluation.comparison import compare, group_by_seed
from keras_skin.evaluation.comparison_report import (
    format_comparison,
    headline,
    with_notes,
    write_folder,
    write_page,
)
from keras_skin.evaluation.measured_run import read_runs
from keras_skin.figures.comparison import draw_figures
from keras_skin.registry import UserError
from tests.evaluation.run_folders import SIZE, images, truth_of, write_run

HOSTILE = '<script>alert("x")</script>'


def load(dataset, image_id):
    return np.full((*SIZE, 3), 120, np.uint8), truth_of(int(image_id[-7:]))


def without_originals(comparison, folder):
    return draw_figures(comparison, folder, None)


@pytest.fixture
def comparison(tmp_path):
    table = images()
    paths = [
        write_run(tmp_path / "runs" / "unet", table, experiment="unet_isic2016", tasks=("mask",), shift=0),
        write_run(tmp_path / "runs" / "jrl", table, stamp="groups may straddle", shift=5, overrides=[f"title={HOSTILE}"]),
        write_run(tmp_path / "runs" / "resnet", table, experiment="resnet50_isic2016", tasks=("label",), skill=-2),
    ]
    return compare(group_by_seed(read_runs(paths, "test")), resamples=100)


def test_terminal_table(comparison):
    text = format_comparison(comparison)
    assert text.isascii()
    lines = text.splitlines()
    assert lines[0] == "Test split: 40 images of 32 patients or lesions. Differences: each run minus unet."
    assert lines[2].split() == ["metric", "run", "measured", "published", "difference", "95", "%", "interval", "n"]
    assert re.match(r"DSC +unet +1\.0000 +0\.9104 +- +- +40$", lines[4])
    difference = next(row for row in comparison.rows if row.metric == "dsc").differences[1]
    low, high = difference["ci95"]
    numbers = rf"{difference['value']:+.4f} +{low:+.4f} \.\. {high:+.4f}"
    expected = rf" +jrl \(groups may straddle\) +\S+ +0\.8948 +{numbers} +\* worse +40"
    assert re.match(f"{expected}$", lines[5])
    assert any(re.match(r"AUC +jrl \(compared with\) \(groups may straddle\)", line) for line in lines)
    assert any(line.startswith("- Stamped numbers are too good") for line in lines)
    assert "SYNTHETIC" not in text


def test_measures_of_maps_stand_side_by_side(comparison, tmp_path):
    write_page(tmp_path / "without.html", comparison, [])
    assert "Grad-CAM, measured" not in (tmp_path / "without.html").read_text()
    folder = comparison.sides[1].runs[0].folder
    inside = {"value": 0.61, "ci95": [0.5, 0.7], "n": 40}
    folder.write_json("metrics.json", {**folder.metrics, "explanations": {"cam_features": {"relevance_inside": inside}}})
    write_page(tmp_path / "page.html", comparison, [])
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", (tmp_path / "page.html").read_text().split("Grad-CAM, measured")[1])
    assert cells[:3] == ["-", "0.610 (0.500 to 0.700), n = 40", "-"]


def test_columns_without_numbers_are_left_out(comparison):
    rows = tuple(replace(row, published=(None,) * 3) for row in comparison.rows)
    assert "published" not in format_comparison(replace(comparison, rows=rows))


def test_headline_metrics_come_in_their_order_and_published_ones_are_among_them(comparison):
    names = [row.metric for row in headline(comparison)]
    assert names == ["dsc", "iou", "mcc", "tpr_weighted", "tnr", "f1_weighted", "tpr", "auc", "balanced_accuracy", "f1_macro"]


def test_page_tells_everything_loads_nothing_and_escapes(comparison, tmp_path):
    pictures = draw_figures(comparison, tmp_path / "figures", load)
    assert [picture.path.name for picture in pictures] == ["differences.png", "box_plots.png", "curves.png", "outlines.png"]
    write_page(tmp_path / "page.html", comparison, pictures)
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert set(re.findall(r'src="(data:image/png|[^"]{0,20})', text)) == {"data:image/png"}
    assert not re.search(r"url\(|@import", text)
    flat = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    for words in (
        "3 runs compared on the same images",
        "40 images of 32 patients or lesions",
        "groups may straddle",
        "Al-masni",
        "0.8948",
        "compared with (the first that has it)",
        "model.name unet jrl resnet50",
        "not a medical device",
        "NPV, malignant",
        "DSC, benign",
    ):
        assert words in flat, words
    assert "SYNTHETIC" not in text


def test_synthetic_comparisons_say_so_everywhere(comparison, tmp_path):
    marked = with_notes(comparison, ["a note <b>"], synthetic=True)
    assert "SYNTHETIC DATA" in format_comparison(marked)
    assert "- a note <b>" in format_comparison(marked)
    write_page(tmp_path / "page.html", marked, [])
    text = (tmp_path / "page.html").read_text()
    assert "<title>SYNTHETIC DATA: 3 runs" in text
    assert "SYNTHETIC DATA" in text
    assert "a note &lt;b&gt;" in text


def test_folder_holds_the_numbers_the_page_and_the_figures_and_is_never_overwritten(comparison, tmp_path):
    write_folder(tmp_path / "out", comparison, without_originals)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.html", "comparison.json", "figures"]
    assert not (tmp_path / "out" / "figures" / "outlines.png").exists()
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content == json.loads(json.dumps(comparison.to_json()))
    assert content["sides"][1] == {"name": "jrl", "runs": ["jrl"], "seeds": [0]}
    (dsc,) = [row for row in content["rows"] if row["metric"] == "dsc"]
    assert dsc["verdicts"] == ["", "worse", ""]
    with pytest.raises(UserError, match="nothing is overwritten"):
        write_folder(tmp_path / "out", comparison, without_originals)


def test_a_failure_leaves_no_folder_behind(comparison, tmp_path):
    def broken(dataset, image_id):
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        write_folder(tmp_path / "out", comparison, lambda sides, folder: draw_figures(sides, folder, broken))
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

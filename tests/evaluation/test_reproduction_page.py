"""The page, the CSV file and the terminal's table of a reproduced table."""

import csv

import numpy as np
import pytest

from keras_skin.evaluation.departures import Departure, DepartureKind
from keras_skin.evaluation.reproduction import ClaimedOrder, RowRuns, judge, measure_row, measured_numbers
from keras_skin.evaluation.reproduction_page import Reproduction, format_table, write_csv, write_page
from tests.evaluation.run_folders import images, write_run

HOSTILE = '<script>alert("x")</script>'
METRICS = {"segmentation": ["dsc"], "classification": ["auc"]}


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    paper = {"results": {"test": {"segmentation": {"dsc": 0.9}}}}
    runs = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in range(3)]
    leaky = write_run(tmp_path / "leaky", images(60), skill=4)
    departures = [Departure(DepartureKind.LENGTH, "8 epochs instead of 50"), Departure(DepartureKind.ENCODER, "other encoder: x")]
    rows = [
        RowRuns(
            "A", "exp_a", [f"title={HOSTILE}"], departures, "8 epochs instead of 50", paper, runs, [leaky], has_protocol=True
        ),
        RowRuns("B", "exp_b", paper=paper, length="50 epochs", missing={"b-seed0": HOSTILE}),
        RowRuns("C", "exp_c", length="50 epochs", missing={"c-seed0": "not started yet"}),
    ]
    results = [measure_row(row, ["test"], METRICS, random) for row in rows]
    claim = ClaimedOrder(f"A beats B. {HOSTILE}", ["test"], "segmentation", "dsc", "A", "B")
    return Reproduction("Ladder", "Somebody", "", ["test"], results, [judge(claim, measured_numbers(results), random)])


def test_the_page_shows_every_number_loads_nothing_and_escapes(table, tmp_path):
    write_page(tmp_path / "out" / "table.html", table)
    page = (tmp_path / "out" / "table.html").read_text()
    line = table.results[0].lines[0]
    for expected in (
        f"{line.measured.value:.4f}",
        f"{line.measured.ci95[0]:.4f} to {line.measured.ci95[1]:.4f}",
        f"3 seeds: sd {line.measured.spread:.4f}",
        f"{line.difference:+.4f}",
        f"{line.price.value:+.4f}",
        f"{line.price.ci95[0]:+.4f} to {line.price.ci95[1]:+.4f}",
        "8 epochs instead of 50",
        "other encoder: x",
        "nothing measured yet",
        "c-seed0: not started yet",
        'href="run1/report.html"',
        "There is no result of B.",
    ):
        assert expected in page, expected
    assert page.count("8 epochs instead of 50") == 1
    assert HOSTILE not in page
    assert "SYNTHETIC" not in page
    assert "Research software, not a medical device." in page


def test_without_the_paper_protocol_nothing_is_said_about_it(table, tmp_path):
    write_page(tmp_path / "table.html", Reproduction("Ladder", "", "", ["test"], table.results[1:], []))
    page = (tmp_path / "table.html").read_text()
    assert "price of the leak" not in page
    assert "Claims" not in page


def test_synthetic_images_are_announced(tmp_path):
    run = write_run(tmp_path / "run", record={"demo": True})
    result = measure_row(RowRuns("A", "x", runs=[run]), ["test"], METRICS, np.random.default_rng(0))
    write_page(tmp_path / "table.html", Reproduction("Ladder", "", "", ["test"], [result], []))
    assert (tmp_path / "table.html").read_text().count("SYNTHETIC") == 2


def test_the_csv_has_a_line_for_every_metric_and_for_rows_without_runs(table, tmp_path):
    write_csv(tmp_path / "table.csv", table)
    with (tmp_path / "table.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["row"], line["metric"], line["published"]) for line in lines] == [
        ("A", "dsc", "0.9"),
        ("A", "auc", ""),
        ("B", "dsc", "0.9"),
        ("C", "", ""),
    ]
    assert (lines[0]["n"], lines[0]["seeds"], lines[2]["n"]) == ("40", "3", "")
    assert lines[0]["departures"] == "8 epochs instead of 50; other encoder: x"
    assert lines[3]["missing"] == "c-seed0: not started yet"


def test_the_terminal_shows_the_same(table):
    text = format_table(table)
    assert text.isascii()
    lines = text.splitlines()
    assert lines[0].endswith("seeds          difference  image-level  price of the leak")
    assert lines[3].split()[:3] == ["A", "DSC", "0.9000"]
    assert "3 (sd 0." in lines[3]
    assert any(line.split() == ["C", "not", "finished:", "c-seed0"] for line in lines)
    assert lines[-1].startswith("Not measured: A beats B.")

"""What the terminal shows: short, the worst first, numbers in plain words."""

from dataclasses import replace

import pytest

from keras_skin.checking.audit import check_dataset
from keras_skin.checking.findings import Finding, Item
from keras_skin.checking.shortcuts import Shortcut
from keras_skin.checking.text import describe, summary, verdict


@pytest.fixture(scope="module")
def check(stand_ins):
    from keras_skin.checking.places import resolve

    return check_dataset(resolve("isic2016", str(stand_ins)))


def test_a_summary_fits_a_screen_and_says_what_matters(check):
    many = [
        Finding(kind, f"finding {n}", "", tuple(Item(f"id{k}", "why") for k in range(50)))
        for n, kind in enumerate(["error"] * 3 + ["warning"] * 6)
    ]
    lines = summary(replace(check, findings=tuple(many))).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    text = "\n".join(lines)
    assert "SYNTHETIC" in lines[0]
    assert text.index("ERROR     finding 0") < text.index("WARNING   finding 3")
    assert "id0: why; id1: why; id2: why; id3: why; and 46 more" in text
    assert lines[-1] == "Failed: 3 errors, 6 warnings. Research software, not a medical device."


def test_nothing_found(check):
    assert "No findings." in summary(check)
    assert verdict(check).startswith("Passed: 0 errors, 0 warnings.")


def test_shortcuts_in_plain_words():
    measured = Shortcut("file properties", "", 90, ("a", "b", "c"), 0.81, (0.7, 0.9), 0.55, (0.5, 0.6), (("width", 0.2),))
    assert describe(measured) == (
        "file properties: AUC 0.81 (0.70 to 0.90; chance 0.50), balanced accuracy 0.55 (0.50 to 0.60; chance 0.33): "
        "well above chance; strongest: width (AUC -0.20)."
    )
    assert describe(Shortcut("x", "no labels")) == "x: not measured: no labels."

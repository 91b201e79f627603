"""The measures of explanations come out well where the lesion tells the class, and badly where a sticker does."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from keras_skin.evaluation.report import Picture, ReportContext, write_report

FILE = Path(__file__).resolve().parent.parent / "tools" / "explanation_proofs.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("explanation_proofs", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def report(proof, path):
    explained = proof.explanations
    context = ReportContext(
        title="proof",
        metrics={},
        explanations=[Picture(*sheet) for sheet in explained.sheets],
        explanation_metrics=explained.metrics,
        explanation_warnings=explained.warnings,
    )
    write_report(path, context)
    return path.read_text()


def test_pictures_are_what_they_claim_to_be(tool):
    pictures = tool.draw(6, 0, stickers=True)
    assert pictures.images.shape == (6, *tool.SIZE, 3)
    assert not (pictures.lesions & pictures.stickers).any()
    for image, sticker, label in zip(pictures.images, pictures.stickers, pictures.labels, strict=True):
        assert (image[sticker] == tool.STICKERS[label]).all()
    assert not tool.draw(2, 0, stickers=False).stickers.any()


@pytest.mark.nightly
@pytest.mark.slow
def test_maps_lie_in_the_lesion_where_it_tells_the_class(tool, tmp_path):
    proof = tool.prove(False, tmp_path / "explain")
    measured = proof.explanations.metrics["cam_features"]
    assert proof.accuracy > 0.9
    assert measured["relevance_inside"]["value"] > 0.7
    assert measured["relevance_inside_gain"]["ci95"][0] > 0
    assert not any("relevance inside" in line for line in proof.explanations.warnings)
    assert measured["shuffled_correlation"]["value"] < 0.5


@pytest.mark.slow
def test_a_sticker_that_gives_the_class_away_is_found_out(tool, tmp_path):
    proof = tool.prove(True, tmp_path / "explain")
    measured = proof.explanations.metrics["cam_features"]
    assert proof.accuracy > 0.95
    assert proof.relevance_on_sticker > 0.5 > 5 * proof.sticker_share
    assert measured["relevance_inside"]["value"] < 0.3
    text = report(proof, tmp_path / "report.html")
    assert re.search(r'role="alert"><strong>cam_features: by relevance inside the lesion, the maps are no better', text)

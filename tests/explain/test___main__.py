"""The command: mistakes are refused before the heavy imports, and a run gives a page."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from keras_skin.explain.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "mole.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    return path


def test_help_imports_nothing_heavy():
    code = (
        "import sys, keras_skin.explain.__main__ as command; command.parser(); "
        "assert not {'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_all_mistakes_are_reported_at_once(tmp_path, picture, capsys):
    arguments = [str(tmp_path), str(picture), "gone.jpg", "--metadata", "site", "--metadata", "age=1", "--metadata", "age=2"]
    assert main([*arguments, "--methods", "gradcam", "--html", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    for text in (
        "FIELD=VALUE",
        "age is given twice",
        "Did you mean 'grad_cam'",
        "gone.jpg: no such file",
        "is a folder",
        "--help",
    ):
        assert text in error


def test_a_folder_that_is_no_run_is_refused(tmp_path, picture, capsys):
    assert main([str(tmp_path), str(picture)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_page_from_a_preset(preset, tmp_path, picture, capsys):
    page = tmp_path / "page.html"
    assert main([str(preset), str(picture), "--html", str(page), "--methods", "grad_cam"]) == 0
    assert "mole.png: " in capsys.readouterr().out
    assert page.read_text().count("<img") == 2


def test_masks_of_classes_are_on_the_page_and_in_a_folder(preset, tmp_path, picture, capsys):
    page, out = tmp_path / "page.html", tmp_path / "mole"
    arguments = [str(preset), str(picture), "--html", str(page), "--out", str(out), "--methods", "class_masks"]
    assert main(arguments) == 0
    assert f"masks: {out}" in capsys.readouterr().out
    masks = {
        path.stem: cv2.imread(str(path))[..., 0] for path in out.glob("*/mole/class_mask_*.png") if "overlay" not in path.stem
    }
    assert set(masks) == {"class_mask_benign", "class_mask_malignant"}
    assert {mask.shape for mask in masks.values()} == {(40, 60)}  # the picture's size
    assert {value for mask in masks.values() for value in np.unique(mask)} <= {0, 255}
    html = page.read_text()
    assert html.count("<img") == 3
    assert 'alt="mask of malignant"' in html
    assert main(arguments) == 2
    assert "the folder exists and is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_a_page_from_a_run(tiny_run, tmp_path, picture, capsys):
    page = tmp_path / "page.html"
    arguments = [str(tiny_run), str(picture), "--html", str(page)]
    assert main([*arguments, "--methods", "grad_cam", "grad_cam++", "occlusion"]) == 0
    assert "mole.png: " in capsys.readouterr().out
    html = page.read_text()
    for text in ("Grad-CAM: ", "Grad-CAM++: ", "Occlusion sensitivity: ", "predicted outline", "SYNTHETIC"):
        assert text in html
    assert html.count("<img") == 4
    assert main([*arguments, "--metadata", "site=back"]) == 2
    assert "takes no clinical metadata" in capsys.readouterr().err
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    assert main([str(tiny_run), str(tmp_path / "broken.jpg")]) == 2
    assert "broken.jpg cannot be used" in capsys.readouterr().err

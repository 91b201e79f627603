"""The page about one patient: everything is on it, nothing is loaded, and what a file's name says is not obeyed."""

import re

import cv2
import numpy as np

from keras_skin.evaluation.patient_page import PatientImage, PatientPage, write_patient_page
from keras_skin.evaluation.report import Picture
from keras_skin.run_folder import DRY_RUN_BANNER


def test_page_tells_everything_and_loads_nothing(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    pictures = [Picture(tmp_path / "a.png", "Grad-CAM: MEL")]
    images = [
        PatientImage("<script>.jpg", pictures, {"NV": 0.25, "MEL": 0.75}),
        PatientImage("b.jpg", pictures),
        PatientImage("c.jpg", [], {"NV": 0.9, "MEL": 0.1}, {"NV": tmp_path / "a.png", "MEL": tmp_path / "a.png"}),
    ]
    assert images[0].predicted == "MEL"
    assert images[1].predicted == ""
    page = PatientPage(
        "a title", "run-1", images, {"age": "54", "site": ""}, ["a note"], ["no better than a Gaussian"], DRY_RUN_BANNER
    )
    write_patient_page(tmp_path / "page.html", page)
    text = (tmp_path / "page.html").read_text()
    for part in ("a title", "run-1", "0.7500", "Grad-CAM: MEL", "54", "not known", "a note", "no better than", DRY_RUN_BANNER):
        assert part in text
    assert text.count("mask of the class") == 1
    assert text.count('alt="mask of MEL"') == 1
    assert "not a medical device" in text
    assert "<script>" not in text
    assert not re.search(r"(src|href)=.https?:", text)


def test_a_model_without_metadata_says_nothing_of_them(tmp_path):
    write_patient_page(tmp_path / "page.html", PatientPage("t", "r", [PatientImage("a.jpg", [])]))
    text = (tmp_path / "page.html").read_text()
    assert "Clinical metadata" not in text
    assert 'class="banner"' not in text

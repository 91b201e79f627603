"""What the form takes, and what is told about an upload."""

import base64

import cv2
import numpy as np
import pytest

from keras_skin.serving import page
from keras_skin.serving.attributions import RunExtras
from keras_skin.serving.limits import Refused
from keras_skin.serving.page import FormField, check_answers, form_fields, predict_upload

UNKNOWN = {"age": "", "sex": "", "localization": ""}


def pixels(picture):
    data = base64.b64decode(picture.source.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_the_form_has_exactly_the_fields_of_the_model(plain, clinical):
    assert form_fields(plain.model) == []
    age, sex, site = form_fields(clinical.model)
    assert (age.name, age.label, age.kind, age.span) == ("age", "Age", "numeric", (20.0, 80.0))
    assert (sex.name, sex.values) == ("sex", ("female", "male"))
    assert site.values == ("back", "face", "scalp")


def test_answers_are_checked_all_at_once(clinical):
    fields = form_fields(clinical.model)
    assert check_answers(fields, {"age": " 54.5 ", "sex": "male"}) == {"age": "54.5", "sex": "male", "localization": ""}
    with pytest.raises(Refused) as refusal:
        check_answers(fields, {"age": "abc", "sex": "mail", "site": "back"})
    for words in (
        "Age is 'abc'; expected a number from 0 to 1,000,000, or nothing",
        "Sex is 'mail'; expected one of female, male, or nothing. Did you mean 'male'?",
        "The model has no field 'site'.",
        "It takes: age, sex, localization.",
    ):
        assert words in str(refusal.value)
    assert refusal.value.status == 400


@pytest.mark.parametrize(("height", "width"), [(640, 32), (32, 640), (1, 1), (20, 1), (480, 640)])
def test_what_is_drawn_is_bounded(height, width):
    picture = page._data_url(np.zeros((height, width, 3), np.float32), None, None)
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(picture.split(",")[1]), np.uint8), cv2.IMREAD_COLOR).shape
    assert min(drawn) >= 1
    assert max(drawn) <= 960
    assert drawn[0] / drawn[1] == pytest.approx(height / width, rel=0.05)


@pytest.mark.parametrize("answer", ["-1", "nan", "inf", "1e9", "0x10", "5 5"])
def test_what_is_no_age(answer):
    assert "expected a number" in FormField("age", "numeric").problem(answer)


def test_a_model_of_complete_answers_wants_them_all(clinical):
    with pytest.raises(Refused, match="Sex is required") as refusal:
        check_answers(form_fields(clinical.model, complete=True), {"age": "3", "localization": "back"})
    assert "Age" not in str(refusal.value)


def test_an_upload_is_told_about(plain, lesion):
    result = predict_upload(plain, RunExtras(), "mole.png", lesion, {})
    assert result.label in plain.model.classes
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert result.probabilities[result.label] == max(result.probabilities.values())
    outlined, heat = result.pictures
    assert pixels(outlined).shape[1] / pixels(outlined).shape[0] == pytest.approx(90 / 60, rel=0.02)
    assert "outline" in outlined.alternative or "no lesion" in outlined.alternative
    assert f"for {result.label}" in heat.caption
    assert result.contributions is None


def test_a_model_without_masks_and_with_fields(clinical, clinical_extras, lesion):
    result = predict_upload(clinical, clinical_extras, "mole.png", lesion, {**UNKNOWN, "age": "54"})
    assert result.lesion_share is None
    assert result.pictures[0].caption == "The image."
    assert result.contributions.of_class == result.label
    other = predict_upload(clinical, RunExtras(), "mole.png", lesion, UNKNOWN)
    assert other.contributions is None
    assert other.probabilities != result.probabilities


def test_the_quality_of_a_picture_is_remarked(plain):
    dark = cv2.imencode(".png", np.full((50, 50, 3), 9, np.uint8))[1].tobytes()
    assert set(predict_upload(plain, RunExtras(), "dark.png", dark, {}).remarks) >= {"blurred", "too dark"}


def test_a_map_without_evidence_says_so():
    image = np.full((20, 20, 3), 128, np.float32)
    (picture,) = page._heat_maps(image, None, {"grad_cam": np.zeros((1, 2, 2), np.float32)}, "nv")
    assert picture.caption == picture.alternative == "Grad-CAM: no positive evidence for nv."


@pytest.mark.parametrize(
    ("hot", "place"),
    [((0, 0), "at the top left"), ((1, 1), "in the middle"), ((2, 1), "at the bottom"), ((1, 2), "at the right")],
)
def test_where_a_map_is_hot_is_said_in_words(hot, place):
    heat = np.zeros((1, 3, 3), np.float32)
    heat[0][hot] = 2
    (picture,) = page._heat_maps(np.zeros((9, 9, 3)), None, {"grad_cam_segmented": heat}, "nv")
    assert picture.alternative.endswith(f"strongest {place}")
    assert "segmented branch" in picture.caption

"""What each clinical field adds: the sum, the signs, and what there is for a SavedModel alone."""

import json
import shutil

import numpy as np
import pytest

from keras_skin.serving.attributions import NO_RUN, open_extras
from keras_skin.workflow.prediction import open_exported

ANSWERS = {"age": "54", "sex": "male", "localization": "back"}


def test_the_parts_add_up_to_what_the_export_says(clinical, clinical_extras, lesion):
    contributions = clinical_extras.attributions(lesion, ANSWERS)
    assert set(contributions.fields) == {"image", "age", "sex", "localization"}
    total = contributions.start + sum(contributions.fields.values()) + contributions.rest
    assert total == pytest.approx(contributions.logit, abs=1e-4)
    assert max(abs(value) for value in contributions.fields.values()) > 0
    inputs = {"image_bytes": [lesion], "age": [54.0], "sex": ["male"], "localization": ["back"]}
    served = clinical.run("serving_default", inputs)
    assert contributions.of_class == served["label"][0].decode()
    chosen = clinical.model.classes.index(contributions.of_class)
    index = 0 if chosen else 1
    other = clinical_extras.attributions._explainer.explain(
        {key: value[None] for key, value in _seen(clinical_extras, lesion).items()}
    ).logits[0]
    # the difference of two logits is the logarithm of the ratio of two probabilities
    ratio = np.log(served["probabilities"][0, chosen] / served["probabilities"][0, index])
    assert contributions.logit - other[index] == pytest.approx(ratio, abs=1e-3)


def _seen(extras, lesion):
    from keras_skin.workflow.patient import model_inputs

    return model_inputs(extras.attributions._run, lesion, ANSWERS)[0]


def test_another_answer_changes_its_own_field(clinical_extras, lesion):
    male, female = (clinical_extras.attributions(lesion, {**ANSWERS, "sex": sex}) for sex in ("male", "female"))
    moved = {name: abs(male.fields[name] - female.fields[name]) for name in male.fields}
    assert moved["sex"] > 0
    assert male.of_class != female.of_class or max(moved, key=moved.get) == "sex"


def test_a_preset_has_the_doubts_of_its_run(preset, plain):
    extras = open_extras(preset, plain.model)
    assert (extras.attributions, extras.reason) == (None, "")
    assert any("no better than a Gaussian" in doubt for doubt in extras.doubts)


def test_what_a_folder_can_tell(clinical_run, clinical, tiny_run, plain, tmp_path):
    alone = open_extras(clinical_run / "saved_model" / "1", clinical.model)
    assert (alone.attributions, alone.reason) == (None, NO_RUN)
    assert open_extras(tiny_run / "saved_model", plain.model).reason == ""
    extras = open_extras(tiny_run, plain.model)
    assert (extras.attributions, extras.reason) == (None, "")
    copy = tmp_path / "run"
    shutil.copytree(clinical_run, copy)
    (copy / "explain" / "shap_background.npz").unlink()
    encoder = json.loads((copy / "metadata.json").read_text())
    assert encoder["missing"] == "mask"
    without = open_extras(copy, open_exported(copy))
    assert without.attributions is None
    assert "has no training images" in without.reason

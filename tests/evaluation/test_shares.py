"""Warnings about predicted shares."""

import pytest

from keras_skin.evaluation.shares import share_warning

TRAINING = {"benign": 727, "malignant": 173}


def predictions(malignant, total=150):
    return ["malignant"] * malignant + ["benign"] * (total - malignant)


def test_shown_more_often_and_predicted_more_often_names_the_prior():
    text = share_warning(predictions(132), TRAINING, {"benign": 2908.0, "malignant": 2768.0})
    assert "'benign' is predicted for 12% of the images and is 81% of the training split" in text
    assert "'malignant' is predicted for 88% of the images and is 19% of the training split" in text
    assert 'set "predict": {"prior": "training"}' in text


@pytest.mark.parametrize("shown", [None, {"benign": 727.0, "malignant": 173.0}])
def test_without_resampling_something_else_helps(shown):
    text = share_warning(predictions(0), TRAINING, shown)
    assert text.startswith(
        "Validation: 'malignant' is predicted for 0% of the images and is 19% of the training split. Train longer"
    )


@pytest.mark.parametrize("malignant", [15, 29, 57])
def test_up_to_a_factor_of_two_nothing_is_said(malignant):
    assert share_warning(predictions(malignant), TRAINING, {"benign": 1.0, "malignant": 1.0}) is None


def test_a_few_images_prove_nothing():
    assert share_warning(predictions(7, total=7), TRAINING) is None
    assert share_warning(predictions(1, total=30), {"benign": 27, "malignant": 3}) is None

"""What separates a run from its paper, in words, and whether the printed number can stand beside the measured one."""

import json

import pytest

from keras_skin.evaluation.departures import departures, training_length
from keras_skin.experiment import load_experiment


def settings(name, *overrides):
    return json.loads(load_experiment(name, overrides).to_json())


def texts(run, paper, comparable=None):
    return [item.text for item in departures(run, paper) if comparable in (None, item.comparable)]


def test_the_papers_own_experiment_departs_in_nothing():
    paper = settings("jrl_isic2016_mtl0")
    assert (
        texts(settings("jrl_isic2016_mtl0", "train.seed=3", "title=x", "data.train.folder=here", "data.external=[]"), paper) == []
    )


@pytest.mark.parametrize(
    ("override", "text", "comparable"),
    [
        ("model.variant=mtl1", "other model: variant mtl1", False),
        ("data.train.name=isic2017", "other images: data.train", False),
        ("split.scheme=stratified", "split by patient or lesion, the paper's official", False),
        ("image.size=[96,128]", "input of 96x128 pixels instead of 192x256", True),
        ("train.epochs=8", "8 epochs instead of 50", True),
        ("train.steps_per_epoch=9", "9 steps per epoch instead of all images", True),
        ("train.batch_size=4", "other settings: train.batch_size", True),
        ("losses.mask.weight=0.9", "other settings: losses", True),
        ("data.leak_guard=exclude", "other settings: data", True),
    ],
)
def test_each_kind_of_departure(override, text, comparable):
    (item,) = departures(settings("jrl_isic2016_mtl0", override), settings("jrl_isic2016_mtl0"))
    assert item.text.startswith(text)
    assert item.comparable is comparable


def test_an_encoder_is_named():
    run, paper = settings("dualrefnet_isic2019_mobilenet_v2"), settings("dualrefnet_isic2019")
    assert "other encoder: mobilenet_v2" in texts(run, paper, comparable=False)


def test_weights_of_another_library_do_not_make_another_encoder():
    paper = settings("dualrefnet_isic2019_paper_protocol", "model.backbone=mobilenet_v2")
    run = {**paper, "model": {**paper["model"], "backbone": "mobilenet_v2_torch"}}
    assert texts(run, paper) == []


def test_an_argument_that_is_null_is_the_default():
    paper = settings("dual_task_ham10000_paper_protocol")
    run = {**paper, "model": {**paper["model"], "encoder": None}}
    assert texts(run, paper) == []


def test_a_paper_without_an_official_split_splits_image_by_image():
    paper = settings("msfa_ham10000")
    assert texts(paper, paper) == ["split by patient or lesion, the paper's image by image"]
    assert texts(settings("msfa_ham10000_paper_protocol"), paper) == []


def test_the_length_of_a_training():
    paper = settings("jrl_isic2016")
    assert training_length(paper, paper) == ""
    run = settings("jrl_isic2016", "train.epochs=8", "train.steps_per_epoch=100")
    assert training_length(run, paper) == "8 epochs instead of 50, 100 steps per epoch instead of all images"

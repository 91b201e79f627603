"""Settings of runs that take seconds: a model with few features on small rendered images."""

import json
from pathlib import Path

from keras_skin import models
from keras_skin.experiment import load_experiment
from keras_skin.experiment.components import REGISTRIES

SHORT = [
    "train.epochs=2",
    "train.steps_per_epoch=3",
    "train.batch_size=4",
    "train.precision=float32",
    "train.deterministic=true",
    "explain.images=2",
    "explain.measured=2",
]

OWN_ENCODER = ["model.init=null", "model.backbone=null", "explain.layer=null", "explain.classes=[]"]
"""The joint model's own encoder and maps, in demos that start from a preset."""

TINY_UNET = ["image.size=[32, 64]", "model.filters=[2, 3, 4, 4, 4, 4]", *SHORT]
"""Overrides for the U-Net of paper 001."""

TINY = [*OWN_ENCODER, *TINY_UNET, "augmentation.copies.malignant=16"]
"""Overrides for the joint model of paper 001. With these copies the six steps of `make_tiny_run` leave maps that have evidence
and are no better than a Gaussian; tests expect the red line."""


def tiny(name: str) -> list[str]:
    """Overrides for any shipped experiment: the size and the arguments with which the conformance tests build its model."""
    entry = models.get(load_experiment(name).model.name)
    registry, reserved = REGISTRIES["model"]
    arguments = {
        key: value for key, value in entry.info["tiny"].items() if key in registry.parameters(entry.name) and key not in reserved
    }
    size = list(entry.info["tiny"]["image_size"])
    own_encoder = OWN_ENCODER if load_experiment(name, demo=True).model.init else []
    return [*own_encoder, f"image.size={size}", *(f"model.{key}={json.dumps(value)}" for key, value in arguments.items()), *SHORT]


def stratified(dataset: str) -> list[str]:
    """Overrides that replace an experiment's data sets by one that has no official split."""
    return [
        f"data.train.name={dataset}",
        "data.test=null",
        "data.external=[]",
        "data.extra_train=[]",
        "split.scheme=stratified",
        "split.validation=0.2",
        "split.test=0.2",
    ]


def arguments(*more: str, overrides: list[str] = TINY) -> list[str]:
    """Arguments of `python -m keras_skin.run` for a tiny demo run."""
    return [*more, "--demo", *(item for text in overrides for item in ("--set", text))]


def make_tiny_run(out: Path) -> None:
    """Trains jrl_ph2 on drawn images in a new folder of `out`."""
    from keras_skin.run import main

    assert main(arguments("jrl_ph2", "--out", str(out))) == 0


def make_crossval_run(out: Path) -> None:
    """Trains the two folds of a cross-validation of the joint model in a new folder of `out`."""
    from keras_skin.run import main

    overrides = [*TINY, "split.folds=2", "train.epochs=1"]
    assert main(arguments("jrl_ph2_crossval", "--out", str(out), overrides=overrides)) == 0

"""Optimizers from dictionaries."""

import inspect
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_skin.registry import UserError
from keras_skin.training.optimizers import OPTIMIZERS, make_optimizer


def make(**settings):
    return make_optimizer(settings, None, epochs=2, steps=3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_listed_arguments_are_those_of_keras(name):
    class_name, arguments = OPTIMIZERS[name]
    known = set(inspect.signature(getattr(keras.optimizers, class_name)).parameters)
    left_out = {"use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor", "name", "kwargs"}
    assert set(arguments) == known - left_out


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_made_with_its_learning_rate(name):
    optimizer = make(name=name, learning_rate=0.25)
    assert type(optimizer).__name__ == OPTIMIZERS[name][0]
    assert float(optimizer.learning_rate) == 0.25


def test_arguments_reach_the_optimizer_and_null_keeps_the_default():
    optimizer = make(name="adam", learning_rate=1, clipnorm=2.0, gradient_accumulation_steps=4, weight_decay=None, momentum=None)
    assert (optimizer.clipnorm, optimizer.gradient_accumulation_steps, optimizer.weight_decay) == (2.0, 4, None)


def test_the_schedule_is_used():
    optimizer = make_optimizer({"name": "sgd", "learning_rate": 0.1}, {"name": "exponential", "factor": 0.1}, epochs=2, steps=3)
    optimizer.iterations.assign(6)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "adm", "learning_rate": 1.0}, ["'adm'", "Did you mean 'adam'?"]),
        ({"learning_rate": 1.0}, ["no optimizer None"]),
        (
            {"name": "adam", "momentum": 0.9, "beta1": 0.9},
            ["takes no 'momentum'", "takes no 'beta1'", "Did you mean 'beta_1'?", "learning_rate above 0, got None"],
        ),
        ({"name": "sgd", "learning_rate": -1.0}, ["above 0, got -1.0"]),
        ({"name": "sgd", "learning_rate": 1.0, "clipnorm": 1.0, "clipvalue": 1.0}, ["Optimizer 'sgd'", "Only one of"]),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(UserError) as error:
        make(**settings)
    for word in words:
        assert word in str(error.value)


def test_a_mistake_in_the_schedule_is_told_as_such():
    with pytest.raises(UserError, match=r"^Schedule 'exponential' needs 'factor'\.$"):
        make_optimizer({"name": "sgd", "learning_rate": 0.1}, {"name": "exponential"}, epochs=2, steps=3)


def test_names_are_listed_without_importing_keras():
    code = (
        "import sys; from keras_skin.training import optimizers, schedules, precision; "
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0

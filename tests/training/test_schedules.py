"""Learning-rate schedules."""

import keras
import numpy as np
import pytest

from keras_skin.training.schedules import make_schedule

EPOCHS, STEPS = 6, 10


def rate(schedule, step):
    return float(schedule(step))


def test_exponential_falls_at_every_step_to_its_factor_at_the_end():
    schedule = make_schedule({"name": "exponential", "factor": 0.1}, 0.003, EPOCHS, STEPS)
    assert rate(schedule, 0) == pytest.approx(0.003)
    assert rate(schedule, 1) == pytest.approx(0.003 * 0.1 ** (1 / 60))
    assert rate(schedule, EPOCHS * STEPS // 2) == pytest.approx(0.003 * 0.1**0.5)
    assert rate(schedule, EPOCHS * STEPS) == pytest.approx(0.0003)


def test_step_halves_after_every_second_epoch_and_not_before():
    schedule = make_schedule({"name": "step", "factor": 0.5, "every": 2}, 0.4, EPOCHS, STEPS)
    assert [rate(schedule, step) for step in (0, 19, 20, 39, 40, 59)] == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.1, 0.1])


def test_cosine_warms_up_for_an_epoch_and_ends_at_zero():
    schedule = make_schedule({"name": "cosine"}, 0.01, EPOCHS, STEPS)
    rates = [rate(schedule, step) for step in range(EPOCHS * STEPS + 1)]
    np.testing.assert_allclose(
        rates[: STEPS + 1], 0.01 * np.interp(np.arange(STEPS + 1), [0, STEPS], [1 / (STEPS + 1), 1]), rtol=1e-5
    )
    assert rates[STEPS + 25] == pytest.approx(0.01 / 2)
    assert rates[STEPS + 50] == pytest.approx(0, abs=1e-8)
    assert np.all(np.diff(rates[STEPS:]) < 0)


def test_cosine_takes_warm_up_and_factor():
    schedule = make_schedule({"name": "cosine", "warmup_epochs": 0.5, "factor": 0.1}, 0.01, EPOCHS, STEPS)
    assert [rate(schedule, step) for step in (0, 5, 60)] == pytest.approx([0.01 / 6, 0.01, 0.001])
    assert rate(make_schedule({"name": "cosine", "warmup_epochs": 0}, 0.01, EPOCHS, STEPS), 0) == pytest.approx(0.01)


def test_a_training_of_one_epoch_warms_up_for_at_most_half_of_it():
    schedule = make_schedule({"name": "cosine"}, 0.01, 1, 10)
    assert [rate(schedule, step) for step in (5, 10)] == pytest.approx([0.01, 0.0], abs=1e-8)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "constant"},
        {"name": "constant", "factor": None, "every": None},
        {"name": "plateau", "factor": 0.1, "patience": 5},
    ],
)
def test_constant(settings):
    assert make_schedule(settings, 0.01, EPOCHS, STEPS) == 0.01


def test_a_schedule_of_keras_comes_out():
    schedule = make_schedule({"name": "step", "factor": 0.5, "every": 2}, 0.4, EPOCHS, STEPS)
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)

"""A learning rate that falls where the monitored value stays, and resumes of such trainings."""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_skin.training.best_weights import BestWeights
from keras_skin.training.fit import fit
from keras_skin.training.monitor import Monitor
from keras_skin.training.optimizers import make_optimizer
from keras_skin.training.plateau import FallOnPlateau, Plateau
from keras_skin.training.unfreeze import UnfreezePlan, train_gently

RATE = 0.01
PATIENT = Plateau(factor=0.1, patience=2)


class BestOf(BestWeights):
    """The best epoch, without any weights."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = self.monitor.value(logs)
        if self.monitor.improves(value, self.best_value):
            self.best_epoch, self.best_value = epoch + 1, value


def rates(values: list[float], plateau: Plateau, maximise: bool = True, stop_at: int | None = None) -> list[float]:
    """The learning rate after each epoch; at `stop_at` the callbacks are replaced by new ones that take over their state."""

    def callbacks() -> list[Any]:
        best = BestOf("best.weights.h5", Monitor(("value",), maximise))
        return [best, FallOnPlateau(plateau, best)]

    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=RATE))
    used, result = callbacks(), []
    for epoch, value in enumerate(values):
        if epoch == stop_at:
            states = [callback.get_state() for callback in used]
            used = callbacks()
            used[0].best_epoch, used[0].best_value = states[0]["best_epoch"], states[0]["best_value"]
            used[1].set_state(states[1])
        for callback in used:
            callback.set_model(model)
            callback.on_epoch_end(epoch, {"value": value})
        result.append(model.optimizer.learning_rate)
    return result


def rates_of_keras(values: list[float], plateau: Plateau, maximise: bool) -> list[float]:
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=RATE))
    callback = keras.callbacks.ReduceLROnPlateau(
        "value", plateau.factor, plateau.patience, mode="max" if maximise else "min", min_delta=0.0
    )
    callback.set_model(model)
    callback.on_train_begin()
    result = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"value": value})
        result.append(float(model.optimizer.learning_rate))
    return result


# When it falls


def test_falls_after_patience_and_counts_anew_after_each_fall() -> None:
    values = [0.5, 0.6, 0.6, 0.55, 0.4, 0.6, 0.7, 0.6, 0.6]
    steps = [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001]
    assert rates(values, PATIENT) == pytest.approx([RATE * step for step in steps])


def test_a_value_that_never_is_a_number_is_no_improvement() -> None:
    assert rates([math.nan] * 3, PATIENT) == pytest.approx([RATE, RATE * 0.1, RATE * 0.1])


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=15),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 14),
)
def test_falls_when_keras_own_does_also_after_a_stop(values: list[float], patience: int, maximise: bool, stop_at: int) -> None:
    plateau = Plateau(0.5, patience)
    expected = rates_of_keras(values, plateau, maximise)
    assert rates(values, plateau, maximise) == pytest.approx(expected)
    assert rates(values, plateau, maximise, stop_at) == pytest.approx(expected)


# Within a training


class Killed(Exception):
    """What a kill leaves: the state as it was saved last."""


class KillAt(keras.callbacks.Callback):
    """Ends the training after a step of an epoch (both from 0), with no chance to save."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.at, self._epoch = (epoch, step), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == self.at:
            raise Killed


def staged_model() -> keras.Model:
    """Two feature layers with batch normalisation and dropout behind them."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="encoder_1")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="encoder_2")(x)
    x = keras.layers.Dropout(0.3)(x)
    mask = keras.layers.Conv2D(1, 1, dtype="float32", name="mask_logits")(x)
    label = keras.layers.Dense(2, dtype="float32", name="label_logits")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model({"image": image}, {"mask": mask, "label": label})


def train(
    small: ModuleType,
    folder: Any,
    *callbacks: keras.callbacks.Callback,
    plan: UnfreezePlan | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[keras.Model, list[float]]:
    """Trains four epochs that maximise the loss, so that the rate falls; returns the model and its rates."""
    keras.utils.set_random_seed(seed)
    model, used = staged_model(), list(callbacks)
    optimizer = make_optimizer(
        {"name": "sgd", "learning_rate": RATE, "momentum": 0.9},
        {"name": "plateau", "factor": 0.5, "patience": 1},
        epochs=4,
        steps=small.STEPS,
    )
    if plan:
        optimizer, unfreezing = train_gently(model, optimizer, plan, small.STEPS)
        used.append(unfreezing)
    model.compile(
        optimizer,
        loss={
            "mask": keras.losses.BinaryCrossentropy(from_logits=True),
            "label": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
    )
    result = fit(
        model,
        small.SmallData(),
        epochs=4,
        folder=folder,
        callbacks=used,
        monitor="loss",
        mode="max",
        plateau=Plateau(factor=0.5, patience=1),
        **settings,
    )
    return model, result.history["learning_rate"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("plan", [None, UnfreezePlan(rate=0.2, frozen_epochs=1, stage_epochs=1)], ids=["plain", "two rates"])
def test_a_resume_after_a_kill_is_exact(small: ModuleType, tmp_path: Any, plan: UnfreezePlan | None) -> None:
    """Killed in the third epoch, when the rate has fallen, before and after a save; continued with a model of another seed."""
    whole, fallen = train(small, tmp_path / "whole", plan=plan)
    assert min(fallen) < RATE
    for step in (0, 3):
        with pytest.raises(Killed):
            train(small, tmp_path / "parts", KillAt(2, step), plan=plan, save_every_steps=2, resume=step > 0, seed=step)
    resumed, rates_of_parts = train(small, tmp_path / "parts", plan=plan, resume=True, seed=9)
    assert rates_of_parts == fallen
    for mine, other in zip(
        [*resumed.variables, *resumed.optimizer.variables], [*whole.variables, *whole.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(mine.numpy(), other.numpy(), err_msg=mine.path)


def test_a_backbones_rate_stays_its_share(small: ModuleType) -> None:
    """After a fall to a half, every step is half as long, of the backbone's variables as of the others'."""
    changes = []
    for factor in (1.0, 0.5):
        keras.utils.set_random_seed(0)
        model = staged_model()
        optimizer, _ = train_gently(model, keras.optimizers.SGD(RATE), UnfreezePlan(rate=0.1), small.STEPS)
        model.compile(
            optimizer,
            loss={
                "mask": keras.losses.BinaryCrossentropy(from_logits=True),
                "label": keras.losses.CategoricalCrossentropy(from_logits=True),
            },
        )
        best = BestOf("best.weights.h5", Monitor(("value",), True))
        falls = FallOnPlateau(Plateau(factor, 1), best)
        falls.set_model(model)
        falls.on_epoch_end(0, {"value": 0.0})
        before = [np.array(variable.numpy()) for variable in model.trainable_variables]
        model.train_on_batch(*small.SmallData().batch(0, 0))
        changes.append([variable.numpy() - old for variable, old in zip(model.trainable_variables, before, strict=True)])
    for whole, half in zip(*changes, strict=True):
        np.testing.assert_allclose(half, 0.5 * whole, rtol=1e-3, atol=1e-7)


def test_works_with_a_loss_scale(small: ModuleType, tmp_path: Any) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, fallen = train(small, tmp_path)
    finally:
        keras.config.set_dtype_policy(before)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert float(model.optimizer.inner_optimizer.learning_rate) < RATE
    assert min(fallen) < RATE

"""Averaged weights: their numbers, where they are used, and that the training does not notice them."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from keras_skin.training.averaging import WeightAveraging
from keras_skin.training.fit import fit
from keras_skin.training.optimizers import make_optimizer
from keras_skin.training.unfreeze import UnfreezePlan, train_gently

EPOCHS = 3


class Watch(keras.callbacks.Callback):
    """Keeps the float weights after every step, and those of the model at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[np.ndarray]] = []
        self.epochs: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps.append(floats(self.model))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(floats(self.model))


def floats(model: keras.Model) -> list[np.ndarray]:
    return [np.array(variable.numpy()) for variable in model.variables if "float" in str(variable.dtype)]


def moving_average(steps: list[list[np.ndarray]], start: list[np.ndarray], momentum: float) -> list[list[np.ndarray]]:
    """The averages after each step, as the documentation writes them."""
    average, results = [array.astype(float) for array in start], []
    for number, weights in enumerate(steps, start=1):
        m = min(momentum, (1 + number) / (10 + number))
        average = [m * old + (1 - m) * new for old, new in zip(average, weights, strict=True)]
        results.append(average)
    return results


def train(
    small: ModuleType, folder: Any, ema: float | None, monitor: str = "val_loss", **optimizer: Any
) -> tuple[keras.Model, Watch, list[np.ndarray], Any]:
    keras.utils.set_random_seed(5)
    settings = {"name": "adam", "learning_rate": 0.01, **optimizer}
    model, watch = small.compiled_model(make_optimizer(settings, epochs=EPOCHS, steps=5)), Watch()
    start = floats(model)
    validation = small.validation_data() if "val" in monitor else None
    result = fit(model, small.SmallData(), validation, epochs=EPOCHS, folder=folder, callbacks=[watch], monitor=monitor, ema=ema)
    return model, watch, start, result


def assert_close(weights: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for value, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.999, 0.3])
def test_the_average_is_what_is_validated_and_kept_and_the_training_goes_on_from_the_weights(
    small: ModuleType, tmp_path: Any, momentum: float
) -> None:
    model, watch, start, result = train(small, tmp_path / "averaged", momentum)
    _, plain, _, plain_result = train(small, tmp_path / "plain", None)
    assert len(start) == 10, "three layers, and the weights and statistics of a batch normalisation"
    for step, other in zip(watch.steps, plain.steps, strict=True):
        for value, expected in zip(step, other, strict=True):
            np.testing.assert_array_equal(value, expected)
    averages = moving_average(watch.steps, start, momentum)[4::5]
    for epoch, average in zip(watch.epochs, averages, strict=True):
        assert_close(epoch, average)
    assert_close(floats(model), averages[result.best_epoch - 1])
    assert model.evaluate(small.validation_data(), verbose=0, return_dict=True)["loss"] == pytest.approx(result.best_value)
    assert np.abs(result.history["val_loss"] - plain_result.history["val_loss"]).max() > 1e-4
    np.testing.assert_array_equal(result.history["loss"], plain_result.history["loss"])


def test_the_initial_weights_leave_the_average_within_a_few_steps() -> None:
    start = moving_average([[np.zeros(1)]] * 20, [np.ones(1)], 0.9999)
    assert start[0][0] == pytest.approx(2 / 11)
    assert start[19][0] < 1e-4


def test_accumulated_batches_count_as_one_update(small: ModuleType, tmp_path: Any) -> None:
    _, watch, start, _ = train(small, tmp_path, 0.999, monitor="loss", gradient_accumulation_steps=2)
    updates = watch.steps[1::2]  # 5 steps an epoch: after two of them, the average is that of 2, 5 and 7 updates
    averages = moving_average(updates, start, 0.999)
    for epoch, number in zip(watch.epochs, (2, 5, 7), strict=True):
        assert_close(epoch, averages[number - 1])


def test_the_average_is_kept_where_no_epoch_is_best(small: ModuleType, tmp_path: Any) -> None:
    keras.utils.set_random_seed(5)
    model, watch = small.compiled_model(), Watch()
    start = floats(model)

    class Never(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["loss"] = float("nan")

    fit(model, small.SmallData(), epochs=1, folder=tmp_path, callbacks=[watch, Never()], monitor="loss", ema=0.99)
    assert_close(floats(model), moving_average(watch.steps, start, 0.99)[-1])


@pytest.mark.slow
def test_works_with_stages_that_unfreeze_and_every_precision(small: ModuleType, precision: str, tmp_path: Any) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    for stage in (1, 2):
        x = keras.layers.Conv2D(4, 3, padding="same")(x)
        x = keras.layers.ReLU(name=f"encoder_{stage}")(keras.layers.BatchNormalization()(x))
    label = keras.layers.Dense(2, dtype="float32")(keras.layers.GlobalAveragePooling2D()(x))
    mask = keras.layers.Conv2D(1, 1, dtype="float32")(x)
    model = keras.Model({"image": image}, {"mask": mask, "label": label})
    optimizer = make_optimizer({"name": "adamw", "learning_rate": 0.01}, epochs=EPOCHS, steps=5)
    optimizer, unfreezing = train_gently(model, optimizer, UnfreezePlan(rate=0.1, frozen_epochs=1, stage_epochs=1), steps=5)
    model.compile(
        optimizer,
        loss={
            "mask": keras.losses.BinaryCrossentropy(from_logits=True),
            "label": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
    )
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    watch, start = Watch(), floats(model)
    fit(model, small.SmallData(), epochs=EPOCHS, folder=tmp_path, callbacks=[unfreezing, watch], monitor="loss", ema=0.9)
    averages = moving_average(watch.steps, start, 0.9)[4::5]
    for epoch, average in zip(watch.epochs, averages, strict=True):
        assert_close(epoch, average)
    np.testing.assert_array_equal(watch.epochs[0][0], start[0])
    assert np.abs(watch.epochs[2][0] - start[0]).max() > 0


def test_an_update_takes_little_time() -> None:
    """A model of 300 arrays: under ten milliseconds, a percent of a step on two cores."""
    image = keras.Input((4,))
    x = image
    for _ in range(75):
        x = keras.layers.BatchNormalization()(x)
    model = keras.Model(image, x)
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    averaging = WeightAveraging(model, 0.9, 100)
    averaging.set_model(model)
    averaging.on_train_batch_end(0)
    seconds = []
    for step in range(1, 10):
        start = time.perf_counter()
        averaging.on_train_batch_end(step)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1, f"{min(seconds):.3f} s"

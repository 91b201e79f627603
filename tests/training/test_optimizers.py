"""Optimizers from dictionaries."""

from typing import get_args

import keras
import numpy as np
import pytest

from keras_skin.experiment.fields import OptimizerSettings
from keras_skin.training.optimizers import OPTIMIZERS, make_optimizer


def make(**settings):
    return make_optimizer(settings, None, epochs=2, steps=3)


def test_every_optimizer_of_the_experiments_is_made_with_its_learning_rate():
    assert set(get_args(OptimizerSettings.model_fields["name"].annotation)) == set(OPTIMIZERS)
    for name, kind in OPTIMIZERS.items():
        optimizer = make_optimizer(OptimizerSettings(name=name, learning_rate=0.25).model_dump(), epochs=2, steps=3)
        assert type(optimizer) is kind
        assert float(optimizer.learning_rate) == 0.25


def test_arguments_reach_the_optimizer_and_null_keeps_the_default():
    optimizer = make(name="adam", learning_rate=1.0, clipnorm=2.0, gradient_accumulation_steps=4, weight_decay=None)
    assert (optimizer.clipnorm, optimizer.gradient_accumulation_steps, optimizer.weight_decay) == (2.0, 4, None)


def test_the_schedule_is_used():
    optimizer = make_optimizer({"name": "sgd", "learning_rate": 0.1}, {"name": "exponential", "factor": 0.1}, epochs=2, steps=3)
    optimizer.iterations.assign(6)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)


def adam_as_pytorch_writes_it(weights, gradients, learning_rate, decay):
    """`torch.optim.Adam(lr, weight_decay=decay)`, step by step in float64."""
    weights, first, second = np.array(weights, float), 0.0, 0.0
    for number, gradient in enumerate(gradients, start=1):
        gradient = gradient + decay * weights
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        root = np.sqrt(second / (1 - 0.999**number))
        weights = weights - learning_rate * (first / (1 - 0.9**number)) / (root + 1e-7)
    return weights


def test_l2_is_that_of_pytorchs_adam():
    gradients = np.random.default_rng(0).normal(size=(5, 3))
    start, after = [1.0, -2.0, 0.5], []
    for l2 in (0.0, 0.3):
        variable = keras.Variable(start)
        optimizer = make(name="adam", learning_rate=0.1, l2=l2)
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        after.append(keras.ops.convert_to_numpy(variable))
        assert after[-1] == pytest.approx(adam_as_pytorch_writes_it(start, gradients, 0.1, l2), abs=1e-5)
    assert np.abs(after[0] - after[1]).max() > 0.01


def test_l2_survives_its_configuration():
    optimizer = make(name="sgd", learning_rate=0.1, l2=0.25, momentum=0.5)
    again = type(optimizer).from_config(optimizer.get_config())
    assert (again.l2, again.momentum, type(again).__name__) == (0.25, 0.5, "SGD")


def test_accumulated_small_batches_are_one_large_batch():
    """Without batch normalisation, whose statistics are those of the small batches."""
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(32, 6, 6, 3)).astype("float32"), np.eye(3, dtype="float32")[rng.integers(3, size=32)]

    def trained(batch_size, accumulated):
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(3, dtype="float32"),
            ]
        )
        optimizer = make(name="adam", learning_rate=0.01, l2=1e-4, gradient_accumulation_steps=accumulated)
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
        before = model.get_weights()
        model.fit(images, labels, batch_size=batch_size, epochs=3, shuffle=False, verbose=0)
        return before, model.get_weights()

    (start, large), (_, small) = trained(32, None), trained(4, 8)
    for initial, one, other in zip(start, large, small, strict=True):
        assert np.abs(one - initial).max() > 0.01
        np.testing.assert_allclose(one, other, atol=2e-5)

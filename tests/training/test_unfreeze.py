"""Backbones that train more slowly, and stage by stage; resumes of such trainings."""

from __future__ import annotations

import signal
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from keras_skin.registry import UserError
from keras_skin.training.errors import TrainingInterrupted
from keras_skin.training.fit import fit
from keras_skin.training.optimizers import make_optimizer
from keras_skin.training.unfreeze import UnfreezePlan, backbone_stages, train_gently


def staged_model() -> keras.Model:
    """Three stages with batch normalisation and dropout, a decoder with a skip connection, a classifier."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    skips = []
    for stage in (1, 2, 3):
        x = keras.layers.Conv2D(4, 3, padding="same", name=f"conv_{stage}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{stage}")(x)
        x = keras.layers.ReLU(name=f"encoder_{stage}")(x)
        skips.append(x)
    x = keras.layers.Dropout(0.3)(x)
    label = keras.layers.Dense(2, dtype="float32", name="label_logits")(keras.layers.GlobalAveragePooling2D()(x))
    decoded = keras.layers.Concatenate()([x, skips[0]])
    mask = keras.layers.Conv2D(1, 1, dtype="float32", name="mask_logits")(decoded)
    return keras.Model({"image": image}, {"mask": mask, "label": label})


def prepared(plan: UnfreezePlan, steps: int = 5, schedule: dict | None = None, **optimizer: Any) -> tuple[keras.Model, Any]:
    """Returns a compiled model, the same in every call, and its callback."""
    keras.utils.set_random_seed(0)
    model = staged_model()
    settings = {"name": "adam", "learning_rate": 0.01, **optimizer}
    built, callback = train_gently(model, make_optimizer(settings, schedule, epochs=4, steps=steps), plan, steps)
    model.compile(
        built,
        loss={
            "mask": keras.losses.BinaryCrossentropy(from_logits=True),
            "label": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
    )
    return model, callback


def weights(model: keras.Model, name: str) -> list[np.ndarray]:
    return [np.array(values) for values in model.get_layer(name).get_weights()]


class Watch(keras.callbacks.Callback):
    """Notes which layers an epoch has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[set[str]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before = {layer.name: layer.get_weights() for layer in self.model.layers if layer.weights}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        after = {name: self.model.get_layer(name).get_weights() for name in self._before}
        self.changed.append(
            {
                name
                for name, values in self._before.items()
                if any((old != new).any() for old, new in zip(values, after[name], strict=True))
            }
        )


# Stages


def test_stages_are_what_leads_to_a_feature_layer() -> None:
    names = [[layer.name for layer in stage] for stage in backbone_stages(staged_model())]
    assert names == [["conv_3", "norm_3"], ["conv_2", "norm_2"], ["conv_1", "norm_1"]]


def test_the_deepest_stages_of_two_backbones_go_together() -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(2, 1, name="encoder_2")(keras.layers.Conv2D(2, 1, name="encoder_1")(image))
    y = keras.layers.Conv2D(2, 1, name="other_encoder_1")(image)
    label = keras.layers.Dense(2, name="dense")(keras.layers.Concatenate()([x, y]))
    names = [[layer.name for layer in stage] for stage in backbone_stages(keras.Model({"image": image}, {"label": label}))]
    assert names == [["encoder_2", "other_encoder_1"], ["encoder_1"]]


# Freezing


@pytest.mark.slow
def test_stages_unfreeze_from_the_deepest(small: ModuleType, tmp_path: Any) -> None:
    model, callback = prepared(UnfreezePlan(rate=0.5, frozen_epochs=1, stage_epochs=1))
    watch = Watch()
    fit(model, small.SmallData(), epochs=4, folder=tmp_path, callbacks=[callback, watch], monitor="loss")
    always = {"label_logits", "mask_logits"}
    third, second, first = ({f"conv_{stage}", f"norm_{stage}"} for stage in (3, 2, 1))
    assert watch.changed == [always, always | third, always | third | second, always | third | second | first]
    assert all(layer.trainable for layer in model.layers)


@pytest.mark.slow
def test_all_stages_unfreeze_together(small: ModuleType, tmp_path: Any) -> None:
    model, callback = prepared(UnfreezePlan(frozen_epochs=2))
    watch = Watch()
    fit(model, small.SmallData(), epochs=3, folder=tmp_path, callbacks=[callback, watch], monitor="loss")
    assert [len(changed) for changed in watch.changed] == [2, 2, 8]


def test_a_frozen_stage_is_the_model_without_it(small: ModuleType, tmp_path: Any) -> None:
    """The head learns what it learns when Keras trains a model whose backbone never was trainable."""
    model, callback = prepared(UnfreezePlan(frozen_epochs=3))
    other, _ = prepared(UnfreezePlan())
    for layer in (layer for stage in backbone_stages(other) for layer in stage):
        layer.trainable = False
    for each, callbacks, folder in ((model, [callback], "staged"), (other, [], "plain")):
        for layer in each.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        fit(each, small.SmallData(), epochs=3, folder=tmp_path / folder, callbacks=callbacks, monitor="loss")
    for name in ("label_logits", "mask_logits", "norm_2"):
        for mine, plain in zip(weights(model, name), weights(other, name), strict=True):
            np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-6)


# Rates


def one_step(plan: UnfreezePlan, small: ModuleType, **optimizer: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The change of every kernel in the first step, and the kernels before."""
    model, _ = prepared(plan, **optimizer)
    kernels = {layer.name: layer.kernel for layer in model.layers if hasattr(layer, "kernel")}
    before = {name: np.array(kernel.numpy()) for name, kernel in kernels.items()}
    model.train_on_batch(*small.SmallData().batch(0, 0))
    return {name: kernel.numpy() - before[name] for name, kernel in kernels.items()}, before


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [{"name": "adam"}, {"name": "sgd", "momentum": 0.9}, {"name": "rmsprop"}])
def test_the_rate_is_that_of_the_backbone_alone(small: ModuleType, optimizer: dict) -> None:
    """Adam takes steps whose length does not depend on the gradient's: the rate must act on the step."""
    plain, _ = one_step(UnfreezePlan(), small, **optimizer)
    slow, _ = one_step(UnfreezePlan(rate=0.1), small, **optimizer)
    for name, change in plain.items():
        expected = change if name.endswith("logits") else 0.1 * change
        np.testing.assert_allclose(slow[name], expected, rtol=2e-3, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_weight_decay_has_the_backbones_rate_too(small: ModuleType) -> None:
    plain, _ = one_step(UnfreezePlan(rate=0.1), small, name="adamw", weight_decay=0.0)
    decayed, before = one_step(UnfreezePlan(rate=0.1), small, name="adamw", weight_decay=0.2)
    for name, change in plain.items():
        factor = 0.2 * 0.01 * (1 if name.endswith("logits") else 0.1)
        np.testing.assert_allclose(decayed[name] - change, -factor * before[name], rtol=1e-2, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_a_late_stage_begins_with_steps_of_the_rates_length(small: ModuleType, tmp_path: Any) -> None:
    """Adam's first step is as long as the learning rate, for a stage that unfreezes in the third epoch, too."""
    model, callback = prepared(UnfreezePlan(rate=0.1, frozen_epochs=2))
    before = weights(model, "conv_3")[0]
    steps: list[np.ndarray] = []

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            steps.append(np.abs(weights(self.model, "conv_3")[0] - before))

    fit(model, small.SmallData(), epochs=3, folder=tmp_path, callbacks=[callback, Stop()], monitor="loss")
    assert max(step.max() for step in steps[:10]) == 0
    np.testing.assert_allclose(np.median(steps[10]), 0.001, rtol=0.01)


# Resuming


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": {"name": "exponential", "factor": 0.1}},
        {"name": "adamw", "weight_decay": 0.1, "gradient_accumulation_steps": 2},
    ],
)
def test_a_resume_is_exact(small: ModuleType, tmp_path: Any, settings: dict) -> None:
    """Interrupted in the middle of the epoch in which a stage unfreezes, and resumed with another model of another seed."""
    plan = UnfreezePlan(rate=0.2, frozen_epochs=1, stage_epochs=1)

    def train(folder: str, seed: int, *callbacks: keras.callbacks.Callback, resume: bool = False) -> keras.Model:
        model, callback = prepared(plan, **settings)
        keras.utils.set_random_seed(seed)
        if resume:
            for variable in model.trainable_variables:
                variable.assign(keras.ops.zeros_like(variable))
        fit(
            model,
            small.SmallData(),
            epochs=4,
            folder=tmp_path / folder,
            callbacks=[callback, *callbacks],
            monitor="loss",
            resume=resume,
        )
        return model

    whole = train("whole", 1)
    with pytest.raises(TrainingInterrupted):
        train("parts", 1, small.SignalAt(2, 1, signal.SIGTERM))
    resumed = train("parts", 2, resume=True)
    for mine, other in zip(
        [*resumed.variables, *resumed.optimizer.variables], [*whole.variables, *whole.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(mine.numpy(), other.numpy(), err_msg=mine.path)


@pytest.mark.slow
def test_works_with_a_loss_scale(small: ModuleType, tmp_path: Any) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, callback = prepared(UnfreezePlan(rate=0.1, frozen_epochs=1, stage_epochs=0))
    finally:
        keras.config.set_dtype_policy(before)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    watch = Watch()
    fit(model, small.SmallData(), epochs=2, folder=tmp_path, callbacks=[callback, watch], monitor="loss")
    assert [len(changed) for changed in watch.changed] == [2, 8]
    assert all(np.isfinite(variable.numpy()).all() for variable in model.trainable_variables)


# Messages


def test_mistakes_are_named() -> None:
    image = keras.Input((4,), name="image")
    model = keras.Model({"image": image}, {"label": keras.layers.Dense(2)(image)}, name="plain")
    with pytest.raises(UserError, match=r"Model 'plain' has no feature layers"):
        train_gently(model, keras.optimizers.Adam(), UnfreezePlan(rate=0.1), steps=3)

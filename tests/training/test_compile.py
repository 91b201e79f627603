"""Losses, weights and metrics of every output."""

import keras
import numpy as np
import pytest

from keras_skin import losses
from keras_skin.registry import UserError
from keras_skin.training.compile import compile_model
from keras_skin.training.fit import build_training_state

LOSSES = {"mask": {"name": "dice", "weight": 0.25}, "label": {"name": "categorical_crossentropy", "weight": 2.0}}


def spec(small):
    return small.SmallData().dataset().element_spec


def test_total_is_the_weighted_sum_and_every_part_has_its_own_name(small, seeded):
    model = compile_model(small.small_model(dropout=0.0), LOSSES, optimizer="sgd", metrics=False)
    inputs, targets = small.SmallData().batch(0, 0)
    logs = model.test_on_batch(inputs, targets, return_dict=True)
    predicted = model.predict_on_batch(inputs)
    dice = float(losses.get("dice").builder()(targets["mask"], predicted["mask"]))
    entropy = float(losses.get("categorical_crossentropy").builder()(targets["label"], predicted["label"]))
    assert logs["mask_loss"] == pytest.approx(dice, rel=1e-5)
    assert logs["label_loss"] == pytest.approx(entropy, rel=1e-5)
    assert logs["loss"] == pytest.approx(0.25 * dice + 2.0 * entropy, rel=1e-5)
    assert set(logs) == {"loss", "mask_loss", "label_loss"}


def test_a_weight_left_out_is_one_and_arguments_reach_the_loss(small, seeded):
    losses = {"mask": {"name": "dice", "smooth": 5.0}, "label": {"name": "categorical_crossentropy"}}
    model = compile_model(small.small_model(), losses, optimizer="sgd", metrics=False)
    logs = model.test_on_batch(*small.SmallData().batch(0, 0), return_dict=True)
    assert logs["loss"] == pytest.approx(logs["mask_loss"] + logs["label_loss"], rel=1e-5)
    assert model.loss["mask"].smooth == 5.0


def test_default_metrics(small, seeded):
    model = compile_model(small.small_model(), LOSSES, optimizer="sgd")
    names = build_training_state(model, spec(small))
    assert set(names) == {
        "loss",
        "mask_loss",
        "label_loss",
        "mask_dsc",
        "mask_iou",
        "label_accuracy",
        "label_balanced_accuracy",
        "label_f1_weighted",
        "label_auc",
    }


def test_a_single_output_is_logged_under_the_same_names(small, seeded):
    whole = small.small_model()
    model = keras.Model(whole.input, {"mask": whole.output["mask"]})
    compile_model(model, {"mask": LOSSES["mask"]}, optimizer="sgd")
    data = small.SmallData().dataset().map(lambda inputs, targets: (inputs, {"mask": targets["mask"]}))
    assert set(build_training_state(model, data.element_spec)) == {"loss", "mask_dsc", "mask_iou"}
    logs = model.evaluate(data, steps=2, verbose=0, return_dict=True)
    assert np.isfinite(logs["mask_dsc"])


def test_float16_gets_a_loss_scale(small, seeded, precision):
    model = compile_model(small.small_model(), LOSSES, optimizer=keras.optimizers.Adam(0.01))
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_every_mistake_is_named_at_once(small):
    losses = {"maks": {"name": "dice"}, "label": {"name": "categorical_crossentropy", "label_smoothing": 3}}
    with pytest.raises(UserError) as error:
        compile_model(small.small_model(), losses, optimizer="sgd")
    for words in (
        "no output 'maks' for a loss. Did you mean 'mask'?",
        "output 'mask' has no loss",
        "The loss 'categorical_crossentropy': label_smoothing must be in",
    ):
        assert words in str(error.value)

"""The losses of single images: recorded right whatever the batches, and a curriculum that goes by them resumes bit for bit."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_skin.data.pipeline.balance.curriculum import Curriculum
from keras_skin.losses.categorical_crossentropy import CategoricalCrossentropy
from keras_skin.training.compile import compile_model
from keras_skin.training.fit import fit
from keras_skin.training.sample_losses import SampleLosses, SampleLossFeedback

SCRIPT = Path(__file__).with_name("curriculum_training.py")
REPOSITORY = SCRIPT.parents[2]


@pytest.fixture(scope="module")
def training(small):
    """The module `curriculum_training`, which is a script, too."""
    spec = importlib.util.spec_from_file_location("curriculum_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Noted:
    """A receiver that records its calls."""

    def __init__(self):
        self.calls = []

    def record(self, epoch, rows, losses):
        self.calls.append((epoch, rows, losses))

    def get_state(self):
        return {"calls": len(self.calls)}

    def set_state(self, state):
        pass


class StepLosses(keras.callbacks.Callback):
    """Notes the loss of every step: Keras logs the mean over the images of the epoch so far."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.losses = []

    def on_epoch_begin(self, epoch, logs=None):
        self.total, self.count = 0.0, 0

    def on_train_batch_end(self, batch, logs=None):
        size = self.sizes[batch]
        total, count = logs["loss"] * (self.count + size), self.count + size
        self.losses.append((total - self.total) / size)
        self.total, self.count = total, count


def cross_entropy(one_hot, logits):
    """A NumPy loop."""
    return np.array(
        [np.log(np.exp(row).sum()) - row[truth.argmax()] for truth, row in zip(one_hot, logits.astype("float64"), strict=True)]
    )


def test_records_batches_of_any_size_in_order():
    rng = np.random.default_rng(0)
    one_hot, logits = np.eye(3, dtype="float32")[rng.integers(3, size=11)], rng.normal(size=(11, 3)).astype("float32")
    metric = SampleLosses(CategoricalCrossentropy(), 8, weight=0.5)
    metric.update_state(one_hot[:4], logits[:4])
    metric.update_state(one_hot[4:5], logits[4:5])
    metric.update_state(one_hot[5:7], logits[5:7], sample_weight=[0.0, 0.0])
    expected = 0.5 * cross_entropy(one_hot, logits)
    np.testing.assert_allclose(metric.losses, [*expected[:7], 0.0], rtol=1e-6)
    assert int(metric.recorded) == 7
    metric.update_state(one_hot[7:], logits[7:])  # one fits, three do not
    np.testing.assert_allclose(metric.losses, expected[:8], rtol=1e-6)
    metric.update_state(one_hot[:4], logits[:4])
    np.testing.assert_allclose(metric.losses, expected[:8], rtol=1e-6)
    assert int(metric.recorded) == 15
    metric.reset_state()
    assert int(metric.recorded) == 0
    assert not np.asarray(metric.losses).any()
    assert metric.result() == {}


def test_further_axes_are_averaged():
    masks = np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))]).astype("float32")
    metric = SampleLosses(keras.losses.MeanAbsoluteError(), 2)
    metric.update_state(masks, masks * 0.25)
    np.testing.assert_allclose(metric.losses, [0.0, 0.75])


@pytest.mark.parametrize(
    ("steps", "optimizer"),
    [(5, {}), (3, {}), (5, {"gradient_accumulation_steps": 2})],
    ids=["partial last batch", "epochs cut short", "accumulated gradients"],
)
def test_feedback_is_the_training_loss(small, training, seeded, tmp_path, steps, optimizer):
    """Not the validation's, whose data are more than an epoch's and would have overwritten all of it."""
    noted, data = Noted(), training.CurriculumData(Curriculum(training.LABELS), steps)
    feedback = SampleLossFeedback(noted, data)
    step_losses = StepLosses([len(data.rows(0)[4 * step :][:4]) for step in range(steps)])
    data.rows = lambda epoch, rows=data.rows: rows(0)  # a curriculum that learns nothing has one epoch
    result = fit(
        training.compiled(feedback, **optimizer),
        data,
        small.validation_data(9),
        epochs=2,
        folder=tmp_path,
        callbacks=[feedback, step_losses],
    )
    assert not [name for name in result.history if "sample_losses" in name]
    assert [epoch for epoch, _, _ in noted.calls] == [0, 1]
    result = []
    for _, rows, losses in noted.calls:
        np.testing.assert_array_equal(rows, data.rows(0))
        assert losses.shape == rows.shape == (min(18, 4 * steps),)
        result += [losses[start : start + 4].mean() for start in range(0, len(losses), 4)]
    np.testing.assert_allclose(result, step_losses.losses, rtol=2e-4)


def test_an_epoch_of_one_class_is_finite(small, training, seeded, tmp_path):
    curriculum = Curriculum(training.LABELS, start_share=0.5, full_after=2, replay_probability=0.0)
    data = training.CurriculumData(curriculum)
    assert set(training.LABELS[data.rows(0)]) == {"nevus"}
    feedback = SampleLossFeedback(curriculum, data)
    losses = {"mask": {"name": "dice"}, "label": {"name": "categorical_crossentropy"}}
    model = compile_model(small.small_model(), losses, keras.optimizers.Adam(0.01), sample_losses=feedback.metric)
    result = fit(model, data, small.validation_data(), epochs=3, folder=tmp_path, callbacks=[feedback])
    assert np.isfinite(result.history.to_numpy(dtype=float)).all()
    assert set(training.LABELS[data.rows(2)]) == {"nevus", "melanoma"}


def test_losses_that_are_not_of_this_epoch_are_an_error(training):
    noted, data = Noted(), training.CurriculumData(Curriculum(training.LABELS))
    feedback = SampleLossFeedback(noted, data)
    feedback.set_model(keras.Sequential())
    metric = feedback.metric(CategoricalCrossentropy())
    metric.update_state(np.eye(2, dtype="float32"), np.eye(2, dtype="float32"))
    feedback.on_epoch_begin(0)
    with pytest.raises(RuntimeError, match=r"Epoch 1 has 18 samples, but \[2\] losses"):
        feedback.on_train_batch_end(4)
    assert not noted.calls


def start(folder, **settings):
    """Trains in a separate process."""
    folder.mkdir(exist_ok=True)
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), json.dumps({"epochs": 4, **settings})],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


@pytest.mark.slow
def test_killed_in_an_epoch_and_resumed(tmp_path):
    # The state is saved after 2 and 4 of 5 steps; the kill comes at the end of the fourth step of the third epoch, before its
    # save: the training falls back to the state after 2.
    undisturbed, killed = start(tmp_path / "undisturbed"), start(tmp_path / "killed", killed_at=[2, 3])
    errors = [process.communicate(timeout=300)[1] for process in (undisturbed, killed)]
    assert (undisturbed.returncode, killed.returncode) == (0, -signal.SIGKILL), errors
    assert not (tmp_path / "killed" / "outcome.npz").exists()
    resumed = start(tmp_path / "killed", resume=True, seed=1)
    assert (resumed.communicate(timeout=300)[1], resumed.returncode)[1] == 0
    with np.load(tmp_path / "undisturbed" / "outcome.npz") as expected, np.load(tmp_path / "killed" / "outcome.npz") as result:
        assert expected.files == result.files
        for name in expected.files:
            np.testing.assert_array_equal(expected[name], result[name], err_msg=name)
        # the losses did decide something
        assert len({tuple(np.sort(expected[f"rows_{epoch}"])) for epoch in range(4)}) == 4


@pytest.mark.slow
def test_on_jax():
    pytest.importorskip("jax", reason="the test needs JAX: pip install 'keras_skin[test]'")
    code = """
import keras, numpy as np
from keras_skin.training.sample_losses import SampleLosses, SampleLossFeedback
class Data:
    steps = 3
    def rows(self, epoch):
        return np.arange(10)
class Noted(list):
    def record(self, epoch, rows, losses):
        self.append(losses)
noted = Noted()
feedback = SampleLossFeedback(noted, Data())
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
loss = keras.losses.MeanSquaredError()
model.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss, metrics=[feedback.metric(loss)], jit_compile=True)
x, y = np.random.default_rng(0).normal(size=(10, 2)).astype("float32"), np.zeros((10, 1), "float32")
other = (y[:, [0, 0]], y)
history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[feedback], validation_data=other)
assert keras.backend.backend() == "jax" and set(history.history) == {"loss", "val_loss"}, history.history
for losses in noted:
    np.testing.assert_allclose(losses, model.predict(x, verbose=0)[:, 0] ** 2, rtol=1e-5)
assert len(noted) == 2
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""The training: one undisturbed fit, best weights, early stop, interruptions, and what goes wrong."""

import shutil
import signal

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_skin.registry import UserError
from keras_skin.training import checkpoints
from keras_skin.training.best_weights import load_weights
from keras_skin.training.fit import NonFiniteLoss, TrainingInterrupted, build_training_state, fit
from keras_skin.training.interrupts import HeldInterrupts
from keras_skin.training.run_state import load_run_state


def values(model):
    return [np.asarray(variable.numpy()).copy() for variable in [*model.variables, *model.optimizer.variables]]


class Recorder(keras.callbacks.Callback):
    """Records every call; has a state."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.total = 0

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_train_end(self, logs=None):
        self.calls.append("end")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.total += 1
        self.calls.append(batch)

    def get_state(self):
        return {"total": self.total}

    def set_state(self, state):
        self.total = state["total"]


class StopAt(keras.callbacks.Callback):
    """Stops the training at the end of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


@pytest.mark.slow
def test_equals_one_fit_of_keras_over_all_epochs(small, seeded, tmp_path):
    model = small.compiled_model(dropout=0.0)
    initial = model.get_weights()
    data, recorder = small.SmallData(), Recorder()
    result = fit(model, data, None, epochs=3, folder=tmp_path, callbacks=[recorder], monitor="loss")

    other = small.compiled_model(dropout=0.0)
    other.set_weights(initial)

    class Next(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            plain.start(epoch)

    plain = small.SmallData()
    # Keras must know the length: where it does not, it counts one iteration of the optimizer too many in every epoch.
    dataset = plain.dataset().apply(tf.data.experimental.assert_cardinality(5))
    history = other.fit(dataset, epochs=3, callbacks=[Next()], shuffle=False, verbose=0).history
    for name in history:
        np.testing.assert_allclose(result.history[name], history[name], rtol=1e-5, err_msg=name)
    assert recorder.calls == ["begin", *(x for e in range(3) for x in (f"epoch {e}", *range(5))), "end"]
    assert data.starts == [(0, 0), (1, 0), (2, 0)]
    assert not result.stopped_early


def test_history_and_files(small, seeded, tmp_path, caplog):
    caplog.set_level("INFO", logger="keras_skin")
    model = small.compiled_model()
    result = fit(
        model,
        small.SmallData(),
        small.validation_data(),
        epochs=2,
        folder=tmp_path / "checkpoints",
        history_file=tmp_path / "history.csv",
    )
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert f"checkpoints/best_epoch_{result.best_epoch}.weights.h5" in names
    assert [name for name in names if "best_epoch_" not in name] == [
        "checkpoints/best.json",
        "checkpoints/best.weights.h5",
        "checkpoints/run_state.npz",
        "history.csv",
    ]
    table = pd.read_csv(tmp_path / "history.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(table, result.history, check_dtype=False)
    assert list(table.columns[:3]) == ["epoch", "learning_rate", "seconds"]
    assert {"loss", "mask_loss", "mask_accuracy", "label_auc", "val_loss", "val_label_auc"} <= set(table.columns)
    text = "\n".join(caplog.messages)
    for words in (
        "training small: 143 parameters, 2 epochs of 5 steps, Adam; best epoch = lowest val_loss",
        "epoch 1/2  loss",
        " | val loss",
        "epoch 2/2",
        "its weights are loaded",
    ):
        assert words in text


def test_best_weights_come_back(small, seeded, tmp_path):
    """A learning rate that blows the model up makes the first epoch the best."""
    model = small.compiled_model(keras.optimizers.SGD(keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.01, 30.0])))
    weights = {}

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            weights[epoch + 1] = self.model.get_weights()

    result = fit(model, small.SmallData(), small.validation_data(), epochs=3, folder=tmp_path, callbacks=[Keep()])
    losses = result.history["val_loss"]
    assert result.best_epoch == losses.idxmin() + 1 < 3
    assert result.best_value == losses.min()
    fresh = small.small_model()
    fresh.load_weights(tmp_path / "best.weights.h5")
    for current, loaded, expected in zip(model.get_weights(), fresh.get_weights(), weights[result.best_epoch], strict=True):
        np.testing.assert_array_equal(current, expected)
        np.testing.assert_array_equal(loaded, expected)
    with h5py.File(tmp_path / "best.weights.h5") as file:
        assert "optimizer" not in file


def test_patience(small, seeded, tmp_path):
    model = small.compiled_model(keras.optimizers.SGD(0.0))
    result = fit(
        model,
        small.SmallData(),
        small.validation_data(),
        epochs=9,
        folder=tmp_path,
        patience=2,
        monitor="val_mask_accuracy",
        mode="min",
    )
    # batch normalisation's statistics still move, so that the first epochs may improve
    assert len(result.history) == min(result.best_epoch + 2, 9)
    assert result.stopped_early == (len(result.history) < 9)


def test_a_stopped_training_does_not_go_on(small, seeded, tmp_path):
    model = small.compiled_model()
    first = fit(model, small.SmallData(), small.validation_data(), epochs=4, folder=tmp_path, callbacks=[StopAt(1)])
    assert (len(first.history), first.stopped_early) == (2, True)
    data = small.SmallData()
    again = fit(
        small.compiled_model(), data, small.validation_data(), epochs=4, folder=tmp_path, callbacks=[StopAt(1)], resume=True
    )
    pd.testing.assert_frame_equal(again.history, first.history)
    assert data.starts == []


@pytest.mark.slow
def test_interrupted_in_each_precision_and_continued(small, seeded, precision, tmp_path):
    """The same as test_resume.py shows between processes, for every precision, with a callback that remembers something."""

    def run(folder, callbacks, resume=False):
        return fit(
            model, data, small.validation_data(), epochs=2, folder=folder, callbacks=callbacks, resume=resume, save_every_steps=2
        )

    keras.utils.set_random_seed(1)
    model, data = small.compiled_model(), small.SmallData()
    initial = [variable.numpy() for variable in model.variables]
    undisturbed = run(tmp_path / "a", [Recorder()])
    expected = values(model)

    model, data = small.compiled_model(), small.SmallData()
    for variable, value in zip(model.variables, initial, strict=True):
        variable.assign(value)
    with pytest.raises(TrainingInterrupted, match="Ctrl-C") as interruption:
        run(tmp_path / "b", [Recorder(), small.SignalAt(1, 2, signal.SIGINT)])
    assert (interruption.value.exit_code, interruption.value.epoch, interruption.value.step) == (130, 2, 3)

    keras.utils.set_random_seed(2)
    model, data, recorder = small.compiled_model(), small.SmallData(), Recorder()
    resumed = run(tmp_path / "b", [recorder, small.SignalAt(9, 9, signal.SIGINT)], resume=True)
    assert data.starts == [(1, 3)]
    assert recorder.calls == ["begin", "epoch 1", 3, 4, "end"]
    assert recorder.total == 10
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns="seconds"), undisturbed.history.drop(columns="seconds"), check_exact=True
    )
    for value, expected_value in zip(values(model), expected, strict=True):
        np.testing.assert_array_equal(value, expected_value)


def test_sigterm_in_validation_falls_back_to_the_last_state(small, seeded, tmp_path):
    class InValidation(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match="SIGTERM") as interruption:
        fit(
            small.compiled_model(),
            small.SmallData(),
            small.validation_data(),
            epochs=2,
            folder=tmp_path,
            callbacks=[InValidation()],
            save_every_steps=4,
        )
    assert interruption.value.exit_code == 128 + signal.SIGTERM
    record = load_run_state(tmp_path / "run_state.npz").record
    assert (record["epoch"], record["step"]) == (0, 4)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture
def python_handles_ctrl_c():
    """As in a terminal: a process that is started in the background of a script ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_second_interrupt_acts_at_once(capfd, python_handles_ctrl_c):
    with HeldInterrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "second Ctrl-C stops at once" in capfd.readouterr().err


def test_the_state_is_saved_by_the_clock(small, seeded, tmp_path):
    steps = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            steps.append(load_run_state(tmp_path / "run_state.npz").record["step"])

    fit(
        small.compiled_model(),
        small.SmallData(),
        None,
        epochs=1,
        folder=tmp_path,
        callbacks=[Look()],
        monitor="loss",
        save_every_seconds=0.0,
    )
    assert steps == [0, 1, 2, 3, 4]


def test_the_first_non_finite_loss_stops_with_its_images(small, seeded, tmp_path):
    with pytest.raises(NonFiniteLoss) as error:
        fit(small.compiled_model(), small.SmallData(bad_step=(1, 2)), small.validation_data(), epochs=3, folder=tmp_path)
    for words in ("became nan in epoch 2, at step 3 of 5", "label_loss, mask_loss", "image_1_2_0, image_1_2_1"):
        assert words in str(error.value)
    record = load_run_state(tmp_path / "run_state.npz").record
    assert (record["epoch"], record["step"]) == (1, 0)


def test_a_monitored_value_that_is_never_finite(small, seeded, tmp_path, caplog):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = float("nan")

    result = fit(
        small.compiled_model(), small.SmallData(), small.validation_data(), epochs=1, folder=tmp_path, callbacks=[Spoil()]
    )
    assert (result.best_epoch, result.best_value) == (None, None)
    assert "no epoch had a finite value of lowest val_loss" in caplog.text
    assert not (tmp_path / "best.weights.h5").exists()


def test_the_last_epoch_is_kept_whatever_it_logs(small, seeded, tmp_path, caplog):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = float("inf") if epoch else 0.0

    caplog.set_level("INFO")
    arguments = {"folder": tmp_path, "callbacks": [Spoil()], "monitor": "last"}
    first = fit(small.compiled_model(), small.SmallData(), epochs=1, **arguments)
    assert (first.best_epoch, first.best_value, first.stopped_early) == (1, None, False)
    model = small.compiled_model()
    result = fit(model, small.SmallData(), epochs=3, resume=True, **arguments)
    assert (result.best_epoch, result.best_value, result.monitor) == (3, None, "the last one")
    assert "the weights of epoch 3, the last one, are kept" in caplog.text
    assert "*best" not in caplog.text
    loaded = small.compiled_model()
    load_weights(loaded, tmp_path / "best.weights.h5")
    trained = load_run_state(tmp_path / "run_state.npz")
    assert trained.record["epoch"] == 3
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_unknown_monitor_is_told_before_training(small, seeded, tmp_path):
    data = small.SmallData()
    with pytest.raises(UserError, match=r"no 'val_mask_acuracy'.*mean 'val_mask_accuracy'.*\n.*logs: label_accuracy, label_auc"):
        fit(small.compiled_model(), data, small.validation_data(), epochs=1, folder=tmp_path, monitor="val_mask_acuracy")
    assert data.starts == []
    with pytest.raises(UserError, match="no 'val_loss'"):
        fit(small.compiled_model(), data, None, epochs=1, folder=tmp_path)


def test_validation_data_of_unknown_length_is_read_to_its_end_and_no_further(small, seeded, tmp_path):
    validation = small.validation_data(3)
    unknown = validation.filter(lambda inputs, targets: True)
    assert int(unknown.cardinality()) < 0
    model = small.compiled_model(keras.optimizers.SGD(0.0))
    result = fit(model, small.SmallData(), unknown, epochs=1, folder=tmp_path)
    expected = model.evaluate(validation, verbose=0, return_dict=True)
    for name, value in expected.items():
        assert result.history[f"val_{name}"][0] == pytest.approx(value, rel=1e-5), name
    with pytest.raises(ValueError, match="never ends"):
        fit(model, small.SmallData(), validation.repeat(), epochs=1, folder=tmp_path / "other")


def test_the_graph_is_built_once_for_all_epochs(small, seeded, tmp_path):
    traces = []

    class Counter(keras.layers.Layer):
        def call(self, inputs, training=None):
            if training and not isinstance(inputs, keras.KerasTensor):
                traces.append(inputs.shape)
            return inputs

    whole = small.small_model()
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model({"image": image}, whole({"image": Counter()(image)}))
    model.compile("sgd", {"mask": "mse", "label": "mse"})
    counts = []

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            counts.append(len(traces))

    fit(model, small.SmallData(), small.validation_data(), epochs=3, folder=tmp_path, callbacks=[Count()])
    assert counts[0] == counts[2] > 0


def test_data_that_ends_early_is_an_error(small, seeded, tmp_path):
    with pytest.raises(RuntimeError, match="ended after 3 of 5 steps in epoch 1"):
        fit(small.compiled_model(), small.SmallData(batches=3), None, epochs=1, folder=tmp_path, monitor="loss")


def test_other_targets_than_outputs_are_an_error(small, seeded):
    spec = small.SmallData().dataset().element_spec
    with pytest.raises(ValueError, match=r"outputs are \['label', 'mask'\], the targets in the data \['mask'\]"):
        build_training_state(small.compiled_model(), (spec[0], {"mask": spec[1]["mask"]}))


def test_building_the_state_changes_no_weight_and_empties_the_metrics(small, seeded):
    model = small.compiled_model()
    before = [variable.numpy() for variable in model.variables]
    names = build_training_state(model, small.SmallData().dataset().element_spec)
    assert {"loss", "mask_loss", "label_loss", "mask_accuracy", "label_accuracy", "label_auc"} == set(names)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert all(not np.any(variable.numpy()) for variable in model.metrics_variables)


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """The folder of a training of one epoch, started with `resume` in a folder with the remains of a kill, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    for name in (".zzzzz000-run_state.npz", ".zzzzz000-best_epoch_1.weights.h5"):
        (folder / name).write_text("half")
    keras.utils.set_random_seed(0)
    data = small.SmallData()
    result = fit(small.compiled_model(), data, small.validation_data(), epochs=1, folder=folder, resume=True)
    assert data.starts == [(0, 0)]
    return folder, result


def test_files_of_a_kill_while_saving_are_removed(finished):
    assert sorted(path.name for path in finished[0].iterdir()) == [
        "best.json",
        "best.weights.h5",
        "best_epoch_1.weights.h5",
        "history.csv",
        "run_state.npz",
    ]


def test_a_finished_training_gives_its_result_again(small, finished):
    folder, first = finished
    model, data = small.compiled_model(), small.SmallData()
    again = fit(model, data, small.validation_data(), epochs=1, folder=folder, resume=True)
    assert data.starts == []
    assert again.best_value == first.best_value
    measured = model.evaluate(small.validation_data(), verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(first.best_value, rel=1e-5)
    assert int(model.optimizer.iterations) == 5


def test_a_folder_is_not_trained_in_twice_by_accident(small, finished):
    with pytest.raises(UserError, match="already holds a training"):
        fit(small.compiled_model(), small.SmallData(), small.validation_data(), epochs=1, folder=finished[0])


@pytest.mark.parametrize(
    ("steps", "callbacks", "monitor", "words"),
    [
        (4, [], "val_loss", "epochs have 5 steps, expected 4"),
        (5, [Recorder()], "val_loss", "expected Recorder, EpochHistory"),
        (5, [], "loss", "chosen by lowest val_loss, so it cannot resume with lowest loss"),
    ],
)
def test_a_state_of_another_training_is_refused(small, finished, steps, callbacks, monitor, words):
    with pytest.raises(UserError, match=words):
        fit(
            small.compiled_model(),
            small.SmallData(steps=steps),
            small.validation_data(),
            epochs=2,
            folder=finished[0],
            resume=True,
            callbacks=callbacks,
            monitor=monitor,
        )


def test_best_weights_that_are_gone_are_missed_at_once(small, finished, tmp_path):
    shutil.copy(finished[0] / "run_state.npz", tmp_path)
    with pytest.raises(UserError, match=r"best_epoch_1\.weights\.h5 is missing: it holds the weights of epoch 1"):
        fit(small.compiled_model(), small.SmallData(), small.validation_data(), epochs=2, folder=tmp_path, resume=True)
    (tmp_path / "best_epoch_1.weights.h5").write_text("the weights of an abandoned epoch")
    with pytest.raises(UserError, match="does not hold the weights of epoch 1 that the run state names"):
        fit(small.compiled_model(), small.SmallData(), small.validation_data(), epochs=2, folder=tmp_path, resume=True)


@pytest.mark.slow
def test_weights_that_no_state_names_are_not_used(small, tmp_path, monkeypatch):
    """A kill between the best weights of an epoch and the state that names them: the epoch is trained again."""

    def train(folder):
        keras.utils.set_random_seed(7)
        arguments = (small.compiled_model(), small.SmallData(), small.validation_data())
        return fit(*arguments, epochs=3, folder=tmp_path / folder, resume=True)

    whole = train("whole")
    keras.utils.set_random_seed(7)
    saved = checkpoints.save_run_state

    def killed(path, model, record):
        if record["epoch"] == 2:
            raise SystemExit
        saved(path, model, record)

    monkeypatch.setattr(checkpoints, "save_run_state", killed)
    with pytest.raises(SystemExit):
        train("killed")
    monkeypatch.undo()
    (tmp_path / "killed" / "best_epoch_3.weights.h5").write_text("abandoned")
    resumed = train("killed")
    assert resumed.best_epoch == whole.best_epoch
    pd.testing.assert_frame_equal(resumed.history.drop(columns="seconds"), whole.history.drop(columns="seconds"), rtol=1e-5)
    weights = [list(h5py.File(tmp_path / name / "best.weights.h5")["layers"]) for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    assert "abandoned" not in (tmp_path / "killed" / f"best_epoch_{resumed.best_epoch}.weights.h5").read_text(errors="replace")


@pytest.mark.slow
def test_a_changed_context_is_refused_with_every_change(small, tmp_path):
    context = {"experiment": {"train": {"optimizer": {"learning_rate": 0.1}, "epochs": 2}}, "images": "a" * 64}

    def train(epochs, context):
        arguments = (small.compiled_model(), small.SmallData(), small.validation_data())
        return fit(*arguments, epochs=epochs, folder=tmp_path, resume=True, context=context)

    train(1, context)
    changed = {"experiment": {"train": {"optimizer": {"learning_rate": 0.2}, "epochs": 2}}, "images": "b" * 64}
    with pytest.raises(UserError) as caught:
        train(2, changed)
    assert "  - experiment.train.optimizer.learning_rate was 0.1 and is 0.2\n  - images was" in str(caught.value)
    assert "start a new run" in str(caught.value)
    assert len(train(2, context).history) == 2


@pytest.mark.slow
def test_a_training_taken_up_between_two_epochs_has_the_history_of_an_undisturbed_one(small, tmp_path):
    """The state saved there holds the validation's metrics, with which the next epoch must not start."""

    def train(folder, epochs, resume=False):
        keras.utils.set_random_seed(7)
        model = small.compiled_model(dropout=0.0)
        result = fit(model, small.SmallData(), small.validation_data(), epochs=epochs, folder=tmp_path / folder, resume=resume)
        return result.history.drop(columns="seconds")

    whole = train("whole", 2)
    train("parted", 1)
    pd.testing.assert_frame_equal(train("parted", 2, resume=True), whole, rtol=1e-5)

"""Damaged weights of the best epoch are found when they are opened, and replaced by what is kept beside them."""

import json
import os

import keras
import numpy as np
import pytest

from keras_skin.registry import UserError
from keras_skin.training.best_weights import BEST_RECORD, BestWeights, intact_weights, load_weights, save_weights
from keras_skin.training.monitor import Monitor


def small_model(value=0.0):
    image = keras.Input((4,), name="image")
    model = keras.Model({"image": image}, {"label": keras.layers.Dense(2, name="label")(image)}, name="small")
    for number, variable in enumerate(model.weights):
        variable.assign(np.full(variable.shape, value + number, np.float32))
    return model


def first_number(model):
    return float(model.weights[0].numpy().flat[0])


def callback(folder):
    best = BestWeights(folder / "best.weights.h5", Monitor.create("loss", "min", ["loss"]))
    return best


@pytest.fixture
def trained(tmp_path):
    """The callback after the epochs 1, 2 and 3, of which 1 and 3 were better than those before."""
    best = callback(tmp_path)
    for epoch, loss in enumerate([0.5, 0.7, 0.4]):
        best.set_model(small_model(value=10 * (epoch + 1)))
        best.on_epoch_end(epoch, {"loss": loss})
        best.on_state_saved()
    return best


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def test_two_epochs_are_kept_during_the_training_and_two_copies_after_it(trained, tmp_path):
    assert {path.name for path in tmp_path.iterdir()} == {"best_epoch_1.weights.h5", "best_epoch_3.weights.h5"}
    trained.publish()
    assert {path.name for path in tmp_path.iterdir()} == {"best.weights.h5", "best_epoch_3.weights.h5", BEST_RECORD}
    assert not os.path.samefile(tmp_path / "best.weights.h5", tmp_path / "best_epoch_3.weights.h5"), "one damage damages both"
    before = (tmp_path / "best.weights.h5").stat().st_mtime_ns
    trained.publish()
    assert (tmp_path / "best.weights.h5").stat().st_mtime_ns == before, "written again without need"


@pytest.mark.parametrize("damage", [truncate, os.unlink], ids=["truncated", "missing"])
def test_a_resumed_training_falls_back_to_the_best_epoch_before(trained, tmp_path, damage, caplog):
    state = json.loads(json.dumps(trained.get_state()))
    damage(trained.epoch_path(3))
    resumed = callback(tmp_path)
    resumed.set_state(state)
    assert (resumed.best_epoch, resumed.best_value) == (1, 0.5)
    assert "best_epoch_3.weights.h5 is missing or damaged" in caplog.text
    assert "with the weights of epoch 1, the best before (0.5)" in caplog.text
    resumed.publish()
    model = small_model()
    load_weights(model, intact_weights(resumed.path))
    assert first_number(model) == 10


def test_a_published_copy_is_better_than_the_epoch_before(trained, tmp_path, caplog):
    state = trained.get_state()
    trained.publish()
    truncate(trained.epoch_path(3))
    resumed = callback(tmp_path)
    resumed.set_state(state)
    assert resumed.best_epoch == 3
    assert "restored from best.weights.h5" in caplog.text
    model = small_model()
    load_weights(model, trained.epoch_path(3))
    assert first_number(model) == 30


def test_without_any_good_weights_the_training_is_not_resumed(trained, tmp_path):
    truncate(trained.epoch_path(1))
    truncate(trained.epoch_path(3))
    with pytest.raises(UserError, match=r"best_epoch_3.*has changed.*Restore the file, or start a new run"):
        callback(tmp_path).set_state(trained.get_state())


def test_a_state_of_an_earlier_version_has_no_epoch_before(trained, tmp_path):
    state = {key: value for key, value in trained.get_state().items() if key != "before"}
    callback(tmp_path).set_state(state)
    truncate(trained.epoch_path(3))
    with pytest.raises(UserError, match="has changed"):
        callback(tmp_path).set_state(state)


@pytest.mark.parametrize(
    "damage", [truncate, os.unlink, lambda path: path.write_bytes(b"")], ids=["truncated", "missing", "empty"]
)
def test_published_weights_are_restored_from_their_copy(trained, damage, caplog):
    trained.publish()
    content = trained.path.read_bytes()
    damage(trained.path)
    assert intact_weights(trained.path) == trained.path
    assert trained.path.read_bytes() == content
    assert "the same weights are read from its copy best_epoch_3.weights.h5" in caplog.text


def test_in_a_read_only_folder_the_copy_is_read(trained, monkeypatch):
    trained.publish()
    truncate(trained.path)

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("shutil.copyfile", refuse)
    assert intact_weights(trained.path) == trained.epoch_path(3)


def test_two_damaged_copies_are_named(trained):
    trained.publish()
    truncate(trained.path)
    trained.epoch_path(3).write_bytes(b"x")
    with pytest.raises(UserError, match=r"best\.weights\.h5 is missing or damaged, and so is its copy best_epoch_3"):
        intact_weights(trained.path)


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_text("abc")])
def test_weights_that_cannot_be_read_get_a_sentence(tmp_path, damage):
    path = tmp_path / "best.weights.h5"
    save_weights(small_model(), path)
    damage(path)
    assert intact_weights(path) == path, "without a record, reading decides"
    with pytest.raises(UserError, match=r"best\.weights\.h5 cannot be read as the weights of the model 'small'"):
        load_weights(small_model(), path)


def test_weights_of_another_model_get_a_sentence(tmp_path):
    image = keras.Input((5,), name="image")
    save_weights(keras.Model({"image": image}, {"label": keras.layers.Dense(3, name="label")(image)}), tmp_path / "a.weights.h5")
    with pytest.raises(UserError, match="cannot be read as the weights of the model 'small'"):
        load_weights(small_model(), tmp_path / "a.weights.h5")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, number):
    path = tmp_path / "best.weights.h5"
    save_weights(small_model(value=number), path)
    with pytest.raises(UserError, match=r"best\.weights\.h5: 2 of 2 arrays hold numbers that are not finite.*label/kernel"):
        load_weights(small_model(), path)

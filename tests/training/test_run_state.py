"""The file of the run state."""

import json
import pickle

import keras
import numpy as np
import pytest

from keras_skin.registry import UserError
from keras_skin.training.fit import build_training_state
from keras_skin.training.run_state import load_run_state, save_run_state, state_variables


def trained(small):
    """A model after two steps, its optimizer and metrics in use."""
    model = small.compiled_model()
    data = small.SmallData(steps=2)
    build_training_state(model, data.dataset().element_spec)
    model.fit(data.dataset(), steps_per_epoch=2, shuffle=False, verbose=0)
    return model


def bits(model):
    return [np.asarray(variable.numpy()).tobytes() for variable in state_variables(model)]


def test_everything_comes_back_bit_for_bit(small, seeded, precision, tmp_path):
    model = trained(small)
    names = [variable.path for variable in state_variables(model)]
    assert any("seed_generator_state" in name for name in names)
    assert any("momentum" in name for name in names)
    assert any(name.startswith("auc") for name in names)
    assert any("dynamic_scale" in name for name in names) == (precision == "mixed_float16")
    save_run_state(tmp_path / "state.npz", model, {"epoch": 1, "best": float("nan")})

    other = trained(small)
    assert bits(other) != bits(model)
    state = load_run_state(tmp_path / "state.npz")
    state.restore(other)
    assert bits(other) == bits(model)
    assert state.record["epoch"] == 1
    assert np.isnan(state.record["best"])


def dense_model(units, name, dtype="float32"):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name=name, dtype=dtype)], name="model")
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_variables_that_are_bfloat16_themselves(tmp_path):
    model, other = dense_model(2, "head", "bfloat16"), dense_model(2, "head", "bfloat16")
    assert str(model.variables[0].dtype) == "bfloat16"
    save_run_state(tmp_path / "state.npz", model, {})
    load_run_state(tmp_path / "state.npz").restore(other)
    assert bits(other) == bits(model)


def test_nothing_in_the_file_is_pickled(small, seeded, tmp_path):
    save_run_state(tmp_path / "state.npz", trained(small), {"a": [1, 2.5, None, True]})
    with np.load(tmp_path / "state.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "iufb" for name in archive.files)
        assert json.loads(archive["json"].tobytes())["record"] == {"a": [1, 2.5, None, True]}


def test_the_old_state_stays_until_the_new_one_is_complete(tmp_path, monkeypatch):
    model = dense_model(2, "head")
    path = tmp_path / "state.npz"
    save_run_state(path, model, {"epoch": 1})

    def fail_half_way(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", fail_half_way)
    with pytest.raises(OSError, match="No space"):
        save_run_state(path, model, {"epoch": 2})
    assert load_run_state(path).record == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_another_optimizer_is_refused_and_nothing_is_changed(small, tmp_path):
    def untrained(optimizer):
        model = small.compiled_model(optimizer)
        build_training_state(model, small.SmallData().dataset().element_spec)
        return model

    save_run_state(tmp_path / "state.npz", untrained(keras.optimizers.Adam(0.1)), {})
    other = untrained(keras.optimizers.SGD(0.1))
    before = bits(other)
    with pytest.raises(UserError, match=r"does not fit this model.*\n.*holds \d+ arrays, this training \d+"):
        load_run_state(tmp_path / "state.npz").restore(other)
    assert bits(other) == before


def test_another_shape_is_named(tmp_path):
    save_run_state(tmp_path / "state.npz", dense_model(2, "head"), {})
    state = load_run_state(tmp_path / "state.npz")
    with pytest.raises(UserError, match=r"'model/head/kernel': saved float32 \[3, 2\], here float32 \[3, 5\]"):
        state.restore(dense_model(5, "head"))
    with pytest.raises(UserError, match="saved 'model/head/kernel', here 'model/tail/kernel'"):
        state.restore(dense_model(2, "tail"))
    state.restore(dense_model(2, "head_7"))  # numbers at the end are given by Keras and differ within a process


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other", "pickle", "objects"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "state.npz"
    save_run_state(path, dense_model(2, "head"), {})
    content = path.read_bytes()
    if damage == "other":
        np.savez(path, something=np.zeros(3))
    elif damage == "pickle":
        path.write_bytes(pickle.dumps({"json": 1}))
    elif damage == "objects":
        np.savez(path, json=np.array([{}], dtype=object))
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"not a state"}[damage])
    with pytest.raises(UserError, match=r"state\.npz cannot be read as the saved state") as caught:
        load_run_state(path)
    assert "pickle" not in str(caught.value)

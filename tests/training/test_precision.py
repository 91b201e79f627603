"""The choice of precision."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_skin.training import precision
from keras_skin.training.precision import choose_precision

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clock(monkeypatch):
    """Gives the steps of each precision these seconds; None is a precision that the machine does not have."""

    def set_seconds(**seconds):
        def step_seconds(policy, batch_size):
            assert batch_size == 4
            if seconds[policy] is None:
                raise RuntimeError("no kernel")
            return seconds[policy]

        monkeypatch.setattr(precision, "step_seconds", step_seconds)

    return set_seconds


@pytest.mark.parametrize(
    ("bfloat16", "policy"), [(0.2, "mixed_bfloat16"), (0.28, "float32"), (0.4, "float32"), (None, "float32")]
)
def test_auto_takes_what_is_faster(clock, bfloat16, policy):
    clock(float32=0.3, mixed_bfloat16=bfloat16)
    choice = choose_precision("auto", lambda name: name, 4)
    assert choice.policy == policy
    assert "float32 300 ms" in choice.reason
    assert set(choice.milliseconds) == {"float32"} | ({"mixed_bfloat16"} if bfloat16 else set())


def test_auto_reports_a_model_that_cannot_be_trained_at_all(clock):
    clock(float32=None, mixed_bfloat16=0.1)
    with pytest.raises(RuntimeError, match="no kernel"):
        choose_precision("auto", lambda name: name, 4)


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_named_precision_is_not_timed(name):
    assert choose_precision(name, pytest.fail, 4).policy == name
    assert keras.dtype_policies.get(name).name == name


def test_a_deterministic_training_is_not_timed():
    choice = choose_precision("auto", pytest.fail, 4, deterministic=True)
    assert (choice.policy, choice.milliseconds) == ("float32", {})


@pytest.mark.parametrize("policy", precision.CANDIDATES)
def test_a_step_is_timed_and_leaves_the_weights_alone(policy):
    inputs = {"image": keras.Input((8, 8, 3), name="image"), "metadata": keras.Input((2,), name="metadata")}
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, dtype=policy)(inputs["image"]))
    label = keras.layers.Dense(3, dtype="float32")(keras.layers.Concatenate(dtype="float32")([pooled, inputs["metadata"]]))
    model = keras.Model(inputs, {"label": label})
    before = model.get_weights()
    assert 0 < precision.step_seconds(model, 4) < 10
    for weight, old in zip(model.get_weights(), before, strict=True):
        assert (weight == old).all()


@pytest.mark.slow
def test_a_deterministic_training_has_every_augmentation():
    code = (
        "from keras_skin.data.pipeline import batch_augment\n"
        "from keras_skin.training.precision import set_determinism\n"
        "set_determinism(3, deterministic=True)\n"
        "set_determinism(4, deterministic=True)\n"
        "for name in batch_augment.names(): batch_augment.get(name).builder()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

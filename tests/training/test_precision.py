"""The choice of precision."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_skin.registry import UserError
from keras_skin.training import precision
from keras_skin.training.precision import choose_precision, cpu_flags

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hardware(monkeypatch):
    """Pretends that these devices and this processor are here."""
    import tensorflow as tf

    def pretend(gpus=(), tpus=0, flags=()):
        devices = {"GPU": list(gpus), "TPU": [object()] * tpus}
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices[kind])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: gpu)
        monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))

    return pretend


@pytest.mark.parametrize(
    ("machine", "policy"),
    [
        ({}, "float32"),
        ({"flags": ["avx512f", "avx2"]}, "float32"),
        ({"flags": ["avx512_bf16"]}, "mixed_bfloat16"),
        ({"flags": ["amx_bf16"]}, "mixed_bfloat16"),
        ({"gpus": [{"compute_capability": (8, 0)}]}, "mixed_bfloat16"),
        ({"gpus": [{"compute_capability": (9, 0)}, {"compute_capability": (7, 5)}]}, "float32"),
        ({"gpus": [{"compute_capability": (7, 5)}], "flags": ["amx_bf16"]}, "float32"),
        ({"gpus": [{}]}, "float32"),
        ({"tpus": 1}, "mixed_bfloat16"),
    ],
)
def test_auto_goes_by_the_hardware(hardware, machine, policy):
    hardware(**machine)
    assert choose_precision("auto") == policy
    assert keras.dtype_policies.get(policy).name == policy


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_named_precision_is_taken_as_it_is(name):
    assert choose_precision(name) == name


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="Did you mean 'mixed_bfloat16'"):
        choose_precision("bfloat16")


def test_flags_are_read_as_linux_writes_them(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16 avx2\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: other\n")
    assert cpu_flags(path) == {"fpu", "amx_bf16", "avx2"}
    assert cpu_flags(tmp_path / "absent") == frozenset()


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

"""Runs the tests of layers, losses, metrics, models and parts of the training on JAX: none of them may need TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CHECKS = "tests/models/test_conformance.py"
EVERY_RUN = [  # compiling a deep backbone takes JAX up to a minute
    "tests/layers/test_conformance.py",
    "tests/losses",
    "tests/metrics",
    *(f"{CHECKS}::test_contract[{name}]" for name in ("dualrefnet", "jrl-mtl3", "msfa_resnet18", "unet")),
    f"{CHECKS}::test_trains[jrl-mtl3]",
    f"{CHECKS}::test_trains[unet]",
    "tests/training/test_averaging.py::test_accumulated_batches_count_as_one_update",
    "tests/training/test_validation_shift.py",
]
AT_NIGHT = ["tests/layers", "tests/models"]


@pytest.mark.slow
@pytest.mark.parametrize("tests", [EVERY_RUN, pytest.param(AT_NIGHT, marks=pytest.mark.nightly)], ids=["every_run", "at_night"])
def test_passes_on_jax(tests: list[str]) -> None:
    pytest.importorskip("jax", reason="the test needs JAX: pip install 'keras_skin[test]'")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not nightly", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-8000:]

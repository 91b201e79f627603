"""Layers, losses, metrics and models once more on JAX: nothing of them may need TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CHECKS = "tests/models/test_conformance.py"
EVERY_RUN = [  # compiling a training step of a deep backbone takes JAX a minute and more
    "tests/layers",
    "tests/losses",
    "tests/metrics",
    f"{CHECKS}::test_contract",
    f"{CHECKS}::test_trains[jrl-mtl3]",
    f"{CHECKS}::test_trains[unet]",
    "tests/models/test_jrl.py",
    "tests/models/test_unet.py",
]
AT_NIGHT = ["tests/models"]


@pytest.mark.slow
@pytest.mark.parametrize("tests", [EVERY_RUN, pytest.param(AT_NIGHT, marks=pytest.mark.nightly)], ids=["every_run", "at_night"])
def test_passes_on_jax(tests: list[str]) -> None:
    pytest.importorskip("jax", reason="the test needs JAX: pip install 'keras_skin[test]'")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
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

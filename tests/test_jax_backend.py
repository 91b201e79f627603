"""Layers, losses, metrics and models once more on JAX: nothing of them may need TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("layers", "losses", "metrics", "models")


@pytest.mark.slow
def test_passes_on_jax() -> None:
    pytest.importorskip("jax", reason="the test needs JAX: pip install 'keras_skin[test]'")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *(f"tests/{folder}" for folder in FOLDERS),
    ]
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

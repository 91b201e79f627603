"""The small training, for every test of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The module `small_training`, which is a script, too."""
    spec = importlib.util.spec_from_file_location("small_training", Path(__file__).with_name("small_training.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_training"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def seeded() -> None:
    """The same random numbers for every test."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(params=["float32", "mixed_bfloat16", "mixed_float16"])
def precision(request: pytest.FixtureRequest):
    """Each precision in turn, as the global policy of the test."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)

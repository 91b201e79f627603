"""Shared fixtures: quiet TensorFlow, and the real data where there is some."""

import contextlib
import ctypes
import gc
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests share image stores with one another, and never touch the user's.
os.environ["KERAS_SKIN_CACHE"] = str(
    Path(tempfile.gettempdir()) / f"keras_skin_test_cache_{os.getuid() if hasattr(os, 'getuid') else 0}"
)

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real images and tables; the test is skipped where there is none."""
    folder = Path(os.environ.get("KERAS_SKIN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here: set KERAS_SKIN_DATA to a folder that holds isic2016/, isic2017/ and ph2_sample/")
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_process():
    """A file's models and graphs go with it: a process that tests many models would grow by ten gigabytes and more."""
    yield
    if "keras" in sys.modules:
        forget_models()


def forget_models() -> None:
    """Frees the memory of models that nobody holds any more, and gives it back to the system."""
    sys.modules["keras"].backend.clear_session()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A finished tiny demo run of jrl_ph2."""
    from keras_skin.run import main
    from tests.tiny_run import arguments

    out = tmp_path_factory.mktemp("runs")
    assert main(arguments("jrl_ph2", "--out", str(out))) == 0
    (run,) = out.iterdir()
    return run


@pytest.fixture(scope="session")
def clinical_run(tmp_path_factory) -> Path:
    """A run folder of a tiny TDBN with age, sex and site, untrained."""
    from tests.clinical_run import make_clinical_run

    return make_clinical_run(tmp_path_factory.mktemp("clinical") / "tdbn")

"""Shared fixtures: real data, finished runs, and a test process that stays small. Long files start first."""

import contextlib
import ctypes
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core: more threads only wait for each other
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# All tests share one folder of image stores, which is not the user's.
os.environ["KERAS_SKIN_CACHE"] = str(
    Path(tempfile.gettempdir()) / f"keras_skin_test_cache_{os.getuid() if hasattr(os, 'getuid') else 0}"
)

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LONG_FILES = (
    "test_experiments_end_to_end.py",
    "test_jax_backend.py",
    "models/test_conformance.py",
    "test_run.py",
    "models/test_backbones.py",
    "workflow/test_clinical.py",
    "export/test_saved_model.py",
    "test_explanation_proofs.py",
    "test_compare.py",
    "training/test_unfreeze.py",
    "data/pipeline/test_batches.py",
    "data/images/test_store.py",
)
"""The files that take longest. They start first: at the end of a run, a long file would keep one worker busy alone.

The second of them needs no shared run, which the first one builds.
"""


def pytest_configure(config: pytest.Config) -> None:
    """Makes pytest-xdist start files in the order of collection, not by their number of tests."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before the tests are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of long files first, and makes nightly tests slow as well."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker("slow")
    rank = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(REPOSITORY / "tests").as_posix(), len(rank)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real images and tables. Tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("KERAS_SKIN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here: set KERAS_SKIN_DATA to a folder that holds isic2016/, isic2017/ and ph2_sample/")
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_process() -> Iterator[None]:
    """Frees the models and graphs of each file. Without it, a process would grow by more than ten gigabytes."""
    yield
    if "keras" in sys.modules:
        forget_models()


def forget_models() -> None:
    """Frees the memory of models that are no longer referenced, and returns it to the system."""
    sys.modules["keras"].backend.clear_session(free_memory=False)
    gc.collect()
    gc.freeze()  # imported modules are never garbage: later collections need not walk through them
    with contextlib.suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(scope="session")
def tiny_run() -> Iterator[Path]:
    """A finished tiny demo run of jrl_ph2, shared with other processes. Tests that change a run change a copy."""
    from tests.built_once import built_once
    from tests.tiny_run import make_tiny_run

    with built_once("jrl_ph2", make_tiny_run) as folder:
        (run,) = folder.iterdir()
        yield run


@pytest.fixture(scope="session")
def preset(tiny_run) -> Iterator[Path]:
    """The preset `tiny` of the tiny run, shared with other processes."""
    from tests.built_once import built_once
    from tests.tiny_preset import make_tiny_preset

    with built_once("preset", lambda out: make_tiny_preset(tiny_run, out)) as folder:
        yield folder / "tiny"


@pytest.fixture(scope="session")
def crossval_run() -> Iterator[Path]:
    """A finished tiny demo run of a cross-validation with two folds, shared with other processes."""
    from tests.built_once import built_once
    from tests.tiny_run import make_crossval_run

    with built_once("jrl_ph2_crossval", make_crossval_run) as folder:
        (run,) = folder.iterdir()
        yield run


@pytest.fixture(scope="session")
def clinical_run() -> Iterator[Path]:
    """A run folder of a tiny untrained TDBN with age, sex and site, shared with other processes."""
    from tests.built_once import built_once
    from tests.clinical_run import make_clinical_run

    with built_once("clinical", make_clinical_run) as folder:
        yield folder / "tdbn"

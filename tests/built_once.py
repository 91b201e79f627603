"""Builds what takes long once for a tree of sources, and shares it with every test process through a folder."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("keras_skin", "experiments")
BUILDERS = (
    "tests/built_once.py",
    "tests/clinical_run.py",
    "tests/tiny_preset.py",
    "tests/tiny_run.py",
    "tools/make_preset.py",
    "tools/preset_card.md.j2",
)
LIBRARIES = ("tensorflow", "keras", "keras-hub", "numpy", "pandas", "albumentations", "opencv-python-headless")
VARIABLES = ("TF_", "KERAS_BACKEND", "OMP_", "XLA_", "CUDA_")
"""Starts of the names of environment variables that change a trained model."""
UNUSED = 4 * 3600
"""Seconds after which the folder of a tree is deleted: twice as long as any test run."""


def user_folder() -> Path:
    """The folder of all trees, in the system's temporary folder."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"keras_skin_test_runs_{user}"


@functools.cache
def tree_folder() -> Path:
    """The folder of this tree. Deletes the folders that no test run used for hours."""
    folder = user_folder() / tree_hash()
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    for other in user_folder().iterdir():
        if time.time() - other.stat().st_mtime > UNUSED:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def tree_hash() -> str:
    """Hashes the package, the shipped experiments, the builders, and the versions and settings that change a result."""
    files = [ROOT / name for name in BUILDERS]
    for source in SOURCES:
        files += [file for file in (ROOT / source).rglob("*") if file.is_file() and file.suffix != ".pyc"]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith(VARIABLES))
    digest.update(repr((sys.version, os.cpu_count(), versions, settings)).encode())
    return digest.hexdigest()[:16]


@contextmanager
def built_once(name: str, build: Callable[[Path], None]) -> Iterator[Path]:
    """Yields the folder that `build` fills. Other processes wait while it is being built, and then use it too.

    The folder is read-only by convention: a test that changes it must copy it first.

    Raises:
        AssertionError: at the end, if a test changed a file. The folder is then built again by the next process.
    """
    folder, complete = tree_folder() / name, tree_folder() / f"{name}.complete"
    with FileLock(tree_folder() / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a build that failed or was killed
            folder.mkdir()
            build(folder)
            complete.touch()
    before = state(folder)
    yield folder
    changes = before ^ state(folder)
    if changes:
        complete.unlink(missing_ok=True)
    assert not changes, f"a test changed the shared {name} instead of a copy: {sorted({path for path, *_ in changes})}"


def state(folder: Path) -> set[tuple[str, int, int]]:
    """Path, size and time of each file, except locks."""
    return {
        (str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith(".lock")
    }

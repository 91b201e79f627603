"""The run folder: made once, never overwritten, complete and self-explaining."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from keras_skin.experiment import Experiment, load_experiment
from keras_skin.registry import UserError, atomic_path

log = logging.getLogger("keras_skin")

PACKAGES = (
    "tensorflow",
    "keras",
    "keras-hub",
    "keras-cv",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "pandas",
    "scikit-learn",
    "shap",
    "tf-explain",
    "pydantic",
)


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the experiment; recorded in run.json, so that a resumed run has the same options."""

    data_dir: str | None
    demo: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run."""

    path: Path

    @classmethod
    def create(cls, out: Path, name: str, moment: datetime | None = None) -> RunFolder:
        """A new folder `out/name-YYYYMMDD-HHMMSS`; a number is appended where that exists already."""
        stem = f"{name}-{(moment or datetime.now()):%Y%m%d-%H%M%S}"
        for attempt in range(1, 1000):
            path = out / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except (NotADirectoryError, PermissionError) as error:
                raise UserError(f"--out {out}: cannot make a folder there: {error.strerror}.") from None
            return cls(path)
        raise UserError(f"--out {out}: there are a thousand runs of this second already.")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run."""
        if not (path / "experiment.json").is_file():
            there = sorted(item.name for item in path.iterdir())[:8] if path.is_dir() else None
            found = f"It holds: {', '.join(there) or 'nothing'}." if there is not None else "It does not exist."
            raise UserError(f"'{path}' is not a run folder: it has no experiment.json. {found}")
        return cls(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def fold(self, number: int) -> RunFolder:
        """Folder of one fold of a cross-validation (counted from 1); made if need be."""
        path = self.path / f"fold_{number}"
        path.mkdir(exist_ok=True)
        return RunFolder(path)

    @property
    def data_dir(self) -> Path | None:
        """The folder of the data sets. A demo's lies in the run's folder, or beside the folder of a fold."""
        record = self.read_json("run.json")
        if record.get("demo"):
            own = self.path / "demo_data"
            return own if own.is_dir() else self.path.parent / "demo_data"
        return Path(record["data_dir"]) if record.get("data_dir") else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; the system releases it when the process ends, however it ends.

        Raises:
            UserError: if another process works in the folder.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"Another process works in '{self.path}'. Wait until it ends, or stop it.") from None
        except (OSError, NotImplementedError) as error:
            log.warning("The folder cannot be locked (%s): do not resume the run twice at the same time.", error)
        try:
            yield
        finally:
            lock.release()

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file under its final name only when it is complete."""
        with atomic_path(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str, values: Any) -> None:
        """Writes JSON; NaN is refused because it is not JSON."""
        self.write_text(name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a CSV file."""
        self.write_text(name, table.to_csv(index=False))

    def read_json(self, name: str) -> Any:
        """Reads a JSON file of the run."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def experiment(self) -> Experiment:
        """The experiment of the run, as it was resolved when it began."""
        return load_experiment(self.path / "experiment.json")


def environment() -> dict[str, Any]:
    """What a reader needs to know of the machine and the packages: no user name, no host name, no paths."""
    import tensorflow as tf

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    from keras_skin.version import __version__

    return {
        "keras_skin": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [
            tf.config.experimental.get_device_details(device).get("device_name", device.name)
            for device in tf.config.list_physical_devices("GPU")
        ],
        "backend": "tensorflow",
        "packages": packages,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Shows messages on whatever stdout is now (a notebook or a test may have put another in its place)."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def start_log(path: Path) -> logging.Handler:
    """Sends the package's messages to the terminal, and with their time to `path` (appended). Returns the file's handler."""
    log.setLevel(logging.INFO)
    log.propagate = False
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        console = _Console()
        console.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(console)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return handler

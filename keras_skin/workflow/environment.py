"""The machine and the packages that a run used, and its peak memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_skin.version import __version__

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


def environment() -> dict[str, Any]:
    """Versions and hardware, as written to environment.json; no user name, host name or paths."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
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
        "packages": versions,
        **_commit(),
    }


def reset_peak_memory() -> None:
    """Starts a new measurement of the peak memory, where the system can (Linux): a process may execute several runs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> int | None:
    """Largest memory that this process has held since `reset_peak_memory`, in MiB; None where the system does not count it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def _commit() -> dict[str, str]:
    """The commit of the checkout that the package is imported from, marked where files have changed; empty if it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": result.stdout.strip()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())

"""Shared code of the benchmarks: processes that measure in turn, the machine, and the tables.

    python tools/benchmark_sides.py pipeline.json step.json

prints the results of the benchmarks as Markdown.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("keras_skin", "tensorflow", "keras", "torch", "opencv-python-headless", "albumentations", "numpy")
WARM_UP = -1
"""Number of the warm-up repeat, which is not counted."""


class Side:
    """A process that measures one row at a time.

    Args:
        script: the benchmark, which answers `--side NAME` with `serve`.
        name: name of the side.
        settings: settings of the process, as JSON values. They are its first line of input.
    """

    def __init__(self, script: str, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "NO_ALBUMENTATIONS_UPDATE": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        self._process = subprocess.Popen(
            [sys.executable, script, "--side", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=quiet | os.environ,
        )
        self._send(settings)
        self.facts: dict[str, Any] = self._receive()

    def measure(self, row: str, repeat: int) -> Any:
        """Returns the measurement of a row."""
        self._send([row, repeat])
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"The process of the side '{self.name}' ended (exit {self._process.wait()}); see its error above.")
        return json.loads(line)


def serve(start: Callable[[dict[str, Any]], tuple[dict[str, Any], Callable[[str, int], Any]]]) -> None:
    """Answers a `Side`: reads the settings, then measures row after row until the input ends.

    Args:
        start: returns, for the settings, facts about the side and a function from (row, repeat) to a measurement.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    facts, measure = start(json.loads(sys.stdin.readline()))
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(*json.loads(line))), file=answers, flush=True)


def take_turns(rows: Sequence[tuple[Side, str, str]], repeats: int, unit: str) -> list[dict[str, Any]]:
    """Measures every row `repeats` times after a warm-up repeat. Each repeat measures all rows in order.

    Args:
        rows: side, key and title of each row.
        repeats: number of measurements per row.
        unit: unit of the measurements.

    Returns:
        Key, side, title, unit and values of each row, with minimum, median and maximum.
    """
    values: list[list[float]] = [[] for _ in rows]
    for repeat in range(WARM_UP, repeats):
        for (side, key, _), numbers in zip(rows, values, strict=True):
            value = side.measure(key, repeat)
            if repeat != WARM_UP:
                numbers.append(value)
    return [
        {"row": key, "side": side.name, "title": title, "unit": unit, **summary(numbers), "values": numbers}
        for (side, key, title), numbers in zip(rows, values, strict=True)
    ]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Returns minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def has_torch() -> bool:
    """Returns whether PyTorch is installed, and prints how to install it if not."""
    if importlib.util.find_spec("torch") is not None:
        return True
    print('PyTorch is not installed, so its rows are missing. Install it: pip install "keras_skin[bench]"', file=sys.stderr)
    return False


def machine() -> dict[str, Any]:
    """Returns the processor's model, its cores and the system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": cores, "system": platform.platform()}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the measured packages."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def table(result: Mapping[str, Any], markdown: bool = False) -> str:
    """Returns the rows of a result as text, with the machine and the versions below them."""
    rows = result["rows"]
    header = (f"{rows[0]['unit']}", "min", "median", "max")
    digits = 0 if rows[0]["unit"] == "images/s" else 1
    cells = [(row["title"], *(f"{row[key]:,.{digits}f}" for key in ("min", "median", "max"))) for row in rows]
    width = max(len(line[0]) for line in [header, *cells])
    if markdown:
        lines = ["| " + " | ".join(header) + " |", "|---|---:|---:|---:|", *("| " + " | ".join(line) + " |" for line in cells)]
    else:
        lines = [f"{line[0]:{width}} {line[1]:>10} {line[2]:>10} {line[3]:>10}" for line in (header, *cells)]
    hardware = f"{result['machine']['processor']}, {result['machine']['cores']} cores, {result['machine']['system']}"
    software = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    return "\n".join([*lines, "", *result.get("notes", ()), f"{settings}.", f"{hardware}.", f"{software}."])


def report(result: dict[str, Any], path: Path | None, markdown: bool) -> None:
    """Prints the table, and writes the result as JSON if a path is given."""
    print(table(result, markdown))
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of both benchmarks."""
    parser.add_argument("--size", nargs=2, type=int, default=[192, 256], metavar=("H", "W"), help="size of the model's image")
    parser.add_argument("--batch", type=int, default=10, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=5, help="measurements per row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result, with every measurement, to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="JSON files that the benchmarks wrote")
    for path in parser.parse_args().results:
        print(table(json.loads(path.read_text(encoding="utf-8")), markdown=True), end="\n\n")


if __name__ == "__main__":
    main()

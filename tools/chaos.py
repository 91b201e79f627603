"""Kills tiny runs in every phase, resumes them, and compares each with the same run undisturbed:

    python tools/chaos.py --out chaos --kills 60

A trial is one run that is killed several times, in later and later phases, and resumed after each kill. The signals are SIGKILL,
SIGTERM, SIGINT, and SIGINT twice. The moment within a phase is drawn. At the end, the trial must hold the same files as the
undisturbed run, with the same contents: weights, tables, metrics and pictures, except times, memory and the folder's path.

The image store is in a new folder for each trial, so that its writing is interrupted too. `chaos.json` in the output folder lists
every kill; the exit code is 1 if a trial differs. Results are kept, so a stopped command continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from tiny_run import TINY, arguments, tiny  # noqa: E402 - the tests are no installed package

SIGNALS = {"SIGKILL": 1, "SIGTERM": 1, "SIGINT": 1, "SIGINT twice": 2}
"""Name of a signal, and how often it is sent."""
PHASES = {
    "read the data": r"^Run folder: ",
    "draw the data": r"^Drawing a SYNTHETIC stand-in",
    "write the image store": r"^Images:",
    "segment": r"^Segmenting \d+ images",
    "train": r"^epoch 1/\d+",
    "train on": r"^epoch 2/\d+",
    "second fold": r"^Fold 2 of",
    "measure": r"^Measuring on",
    "time": r"^Measuring latency",
    "explain": r"^Explaining \d+",
    "export": r"^Exporting: ",
    "report": r"^Drawing figures and writing the report",
}
"""Name of a phase, and the line of output that starts it."""
VARIES = {
    "seconds",
    "milliseconds",
    "peak_memory_mib",
    "finished_on",
    "Training time",
    "Latency, batch 1",
    "Latency, batch 32",
    "sha256",
}
"""Keys and columns whose values differ between any two runs: times, dates, memory, and checksums of weights, which are compared
themselves."""
NOT_COMPARED = re.compile(
    r"\.lock|run\.log|latency\.json|environment\.json|report\.html|saved_model\.pb|fingerprint\.pb|variables\.(index|data-.*)"
    r"|tf_serving_warmup_requests"
)
"""Files that only have to be there: times and the machine, and TensorFlow's files, whose order differs between two processes.
What an export answers is compared through the agreement in its model.json."""
LEVELS = 2
"""Largest difference of a pixel of a figure, of 255. Two undisturbed runs differ by one."""
LONGEST = 600.0
"""Seconds after which a process counts as hung, and is killed."""


@dataclass(frozen=True)
class Kind:
    """A kind of run: a shipped experiment, and overrides that make it tiny."""

    experiment: str
    overrides: tuple[str, ...]
    needs: str = ""

    def command(self, out: Path, segmenter: Path | None) -> list[str]:
        """Returns the arguments of `keras_skin.run`."""
        overrides = [*self.overrides, *([f"segmenter.run={segmenter}"] if segmenter else [])]
        return arguments(self.experiment, "--out", str(out), overrides=overrides)


def kinds() -> dict[str, Kind]:
    """Returns a joint model, a cross-validation, a curriculum with replay, and a classifier behind a segmenter."""
    return {
        "joint": Kind("jrl_ph2", tuple(TINY)),
        "folds": Kind("jrl_ph2_crossval", (*TINY, "split.folds=2", "train.epochs=2")),
        "curriculum": Kind("dual_task_ham10000", tuple(tiny("dual_task_ham10000"))),
        "segmenter": Kind("tdbn_ham10000", (*tiny("tdbn_ham10000"), "model.shared_encoder=true"), needs="joint"),
    }


class Pixels(NamedTuple):
    """The pixels of a figure, (H, W, 3) integers."""

    values: np.ndarray


@dataclass
class Kill:
    """One kill: the phase, the signal, the seconds after the start of the phase, and what the process answered."""

    phase: str
    signal: str
    after: float
    exit_code: int | None = None
    hit: bool = False
    last_line: str = ""


@dataclass
class Trial:
    """One run with its kills, the number of times it was started, and how it differs from the undisturbed run."""

    kind: str
    kills: list[Kill]
    starts: int = 0
    differences: list[str] = field(default_factory=list)


class Process:
    """`python -m keras_skin.run` in a process of its own, with the times at which its phases started."""

    def __init__(self, command: list[str], cache: Path) -> None:
        environment = {**os.environ, "KERAS_SKIN_CACHE": str(cache), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        self.started = time.monotonic()
        self.lines: list[str] = []
        self.phases: dict[str, float] = {}
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keras_skin.run", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                for phase, pattern in PHASES.items():
                    if phase not in self.phases and re.match(pattern, line):
                        self.phases[phase] = time.monotonic() - self.started
                self._changed.notify()
        with self._changed:
            self._changed.notify()

    def kill_in(self, kill: Kill) -> None:
        """Sends the signal the given seconds after the phase starts. A process that ends before is not hit."""
        deadline = time.monotonic() + LONGEST
        with self._changed:
            while kill.phase not in self.phases and self._reader.is_alive() and time.monotonic() < deadline:
                self._changed.wait(1.0)
        if kill.phase in self.phases:
            try:
                self.process.wait(kill.after)
            except subprocess.TimeoutExpired:
                kill.hit = True
                for number in range(SIGNALS[kill.signal]):
                    time.sleep(0.05 * number)
                    self.process.send_signal(getattr(signal, kill.signal.split()[0]))
        kill.exit_code = self.wait()
        kill.last_line = next((line for line in reversed(self.lines) if line), "")

    def wait(self) -> int:
        """Waits for the end and returns the exit code. A process that hangs is killed."""
        try:
            self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.lines.append(f"hung for {LONGEST:.0f} s")
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        if self.process.stdout:
            self.process.stdout.close()
        return self.process.returncode


def run_trial(trial: Trial, kind: Kind, folder: Path, segmenter: Path | None) -> Path | None:
    """Starts a run, kills it, resumes it until every kill was sent, then lets it finish; returns the run's folder."""
    out, cache = folder / "runs", folder / "cache"
    for kill in [*trial.kills, None]:
        runs = sorted(out.glob("*-*")) if out.is_dir() else []
        if len(runs) > 1:
            trial.differences.append(f"{len(runs)} run folders")
        if runs and is_finished(runs[0]):  # the last signal came after the run's last file
            break
        process = Process(["--resume", str(runs[0])] if runs else kind.command(out, segmenter), cache)
        trial.starts += 1
        if kill is not None:
            process.kill_in(kill)
            if any("Traceback" in line for line in process.lines):
                trial.differences.append(f"{kill.signal} in '{kill.phase}' gave a traceback: {process.lines[-1]}")
            if not kill.hit and kill.exit_code == 0:
                break
        elif process.wait():
            trial.differences.append(f"the last resume ended with {process.process.returncode}: {process.lines[-1:]}")
    runs = sorted(out.glob("*-*")) if out.is_dir() else []
    return runs[0] if runs else None


def is_finished(run: Path) -> bool:
    """Whether a run wrote everything; a run that was killed before its record is not."""
    record = run / "run.json"
    return record.is_file() and bool(json.loads(record.read_text())["finished"])


def differences(reference: Path, run: Path) -> Iterator[str]:
    """Yields a sentence for each file that one folder lacks, or that differs in more than `VARIES` and the folder's own path."""
    before, after = files(reference), files(run)
    yield from (f"{name} is missing" for name in sorted(before - after))
    yield from (f"{name} is a stray file" for name in sorted(after - before))
    for name in sorted(before & after):
        if not NOT_COMPARED.fullmatch(Path(name).name) and not equal(contents(reference, name), contents(run, name)):
            yield f"{name} differs"


def files(folder: Path) -> set[str]:
    """Relative paths of all files."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def contents(folder: Path, name: str) -> Any:
    """What a file of a run says, without `VARIES` and the folder's path: arrays, a JSON value, cells, pixels or bytes."""
    file = folder / name
    if file.suffix == ".h5":
        return h5_arrays(file)
    if file.suffix == ".npz":
        with np.load(file) as archive:
            arrays = dict(archive)
        return {key: steady(json.loads(bytes(array))) if key == "json" else array for key, array in arrays.items()}
    if file.suffix == ".json":
        return steady(json.loads(file.read_text().replace(str(folder), "RUN")))
    if file.suffix == ".md":
        return re.sub(r"[\d.]+ ms", "N ms", file.read_text())
    if file.suffix == ".csv":
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        return table.drop(columns=[column for column in table if column in VARIES]).to_dict("list")
    if file.suffix == ".xlsx":  # an archive with the time of its writing
        return pd.read_excel(file, header=None, dtype=str, keep_default_na=False).to_dict("list")
    if file.suffix == ".png" and "figures" in file.parts:
        return Pixels(cv2.imread(str(file)).astype(int))
    return file.read_bytes()


def h5_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an HDF5 file."""
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def equal(first: Any, second: Any) -> bool:
    """Whether the contents of two files are equal: arrays bit for bit, pixels of figures up to `LEVELS`."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(value, second[key]) for key, value in first.items())
    if isinstance(first, Pixels):
        return first.values.shape == second.values.shape and bool(np.abs(first.values - second.values).max() <= LEVELS)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    return bool(first == second)


def steady(value: Any) -> Any:
    """A JSON value without the keys in `VARIES`."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VARIES}
    return [steady(item) for item in value] if isinstance(value, list) else value


def undisturbed(name: str, kind: Kind, folder: Path, segmenter: Path | None) -> tuple[Path, dict[str, float]]:
    """Runs a kind to its end; returns its folder and the seconds of each of its phases."""
    marker = folder / "phases.json"
    if not marker.is_file():
        process = Process(kind.command(folder / "runs", segmenter), folder / "cache")
        if process.wait():
            raise SystemExit("\n".join([f"The undisturbed run of '{name}' failed:", *process.lines[-30:]]))
        starts = sorted(process.phases.items(), key=lambda item: item[1])
        ends = [start for _, start in starts[1:]] + [time.monotonic() - process.started]
        marker.write_text(json.dumps({phase: end - start for (phase, start), end in zip(starts, ends, strict=True)}))
    (run,) = (folder / "runs").iterdir()
    return run, json.loads(marker.read_text())


def draw_trial(name: str, phases: dict[str, float], kills: int, draw: random.Random) -> Trial:
    """A trial with kills in later and later phases, each with a drawn signal and moment."""
    chosen = sorted(draw.sample(range(len(phases)), min(kills, len(phases))))
    names = list(phases)
    return Trial(
        name,
        [Kill(names[n], draw.choice(list(SIGNALS)), round(draw.uniform(0, phases[names[n]]), 2)) for n in chosen],
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of chaos.json")
    parser.add_argument("--kills", type=int, default=60, help="number of kills that must hit")
    parser.add_argument("--per-run", type=int, default=3, help="kills of one run")
    parser.add_argument("--kinds", nargs="+", default=list(kinds()), choices=list(kinds()))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    references: dict[str, tuple[Path, dict[str, float]]] = {}
    for name in sorted(options.kinds, key=lambda name: bool(kinds()[name].needs)):
        needed = kinds()[name].needs
        if needed and needed not in references:
            references[needed] = undisturbed(needed, kinds()[needed], options.out / "undisturbed" / needed, None)
        segmenter = references[needed][0] if needed else None
        references[name] = undisturbed(name, kinds()[name], options.out / "undisturbed" / name, segmenter)

    report, draw, number, hits = options.out / "chaos.json", random.Random(options.seed), 0, 0
    trials: list[Trial] = []
    past = json.loads(report.read_text()) if report.is_file() else []
    while hits < options.kills:
        name = options.kinds[number % len(options.kinds)]
        reference, phases = references[name]
        trial = draw_trial(name, phases, options.per_run, draw)
        if number < len(past):
            trial = Trial(**{**past[number], "kills": [Kill(**kill) for kill in past[number]["kills"]]})
        else:
            folder = options.out / f"trial_{number:03d}"
            shutil.rmtree(folder, ignore_errors=True)  # of a command that was stopped in this trial
            needed = kinds()[name].needs
            run = run_trial(trial, kinds()[name], folder, references[needed][0] if needed else None)
            trial.differences += differences(reference, run) if run else ["there is no run folder"]
            print(f"{number:3d} {name:10s}", *(f"{kill.signal} in {kill.phase!r} +{kill.after} s;" for kill in trial.kills))
            print("\n".join(f"      {text}" for text in trial.differences or ["equal"]), flush=True)
        trials.append(trial)
        hits += sum(kill.hit for kill in trial.kills)
        number += 1
        report.write_text(json.dumps([asdict(trial) for trial in trials], indent=1))
    unequal = sum(bool(trial.differences) for trial in trials)
    print(f"{hits} kills in {len(trials)} runs, seed {options.seed}: {unequal} runs differ from the undisturbed ones.")
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())

"""A finished run as one small JSON file: metrics, and resamples by which runs on the same images are compared in pairs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_skin.evaluation import classification, segmentation
from keras_skin.evaluation.measured_run import read_run
from keras_skin.evaluation.seeds import Sample, run_samples
from keras_skin.experiment.changes import differences, without_folders, without_places
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder

RESAMPLES = 400
"""Fewer than a report's: they are stored."""
_LEVELS = 65_000
"""A resample is stored as a 16-bit number: 1 + its place between -1 and 1 in this many steps; 0 stands for NaN."""
_VERSIONS = ("tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class RecordedSplit:
    """One measured split: `metrics` as in metrics.json, the hash of its images, and stored resamples by `task/metric`."""

    images: int
    images_sha256: str
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]
    resamples: Mapping[str, str] = field(default_factory=dict)

    def sample(self, task: str, metric: str) -> Sample | None:
        """One metric with its resamples; None if it was not measured."""
        value = self.metrics.get(task, {}).get(metric)
        if value is None:
            return None
        code = self.resamples.get(f"{task}/{metric}")
        return Sample(value["value"], value["n"], _decoded(code) if code else np.empty(0), self.images_sha256)


@dataclass(frozen=True)
class RecordedRun:
    """A finished run without its images, weights and pictures. It names no host and no path.

    Attributes:
        experiment: name of the shipped experiment.
        overrides: settings that differ from it, without the seed.
        seed: of the training.
        finished_on: date.
        epochs: that were trained.
        trained_on: images of the training split by data set.
        missing_images: images that the data sets list and that were not on the disk.
        split_sha256: hash of all splits.
        splits: the measured splits.
        training_minutes: time of all epochs, with validation.
        peak_memory_mib: of the process; None if unknown.
        machine: processor, cores and accelerators.
        versions: of the package and of those that compute.
        commit: of the code; "" if unknown.
    """

    experiment: str
    overrides: Mapping[str, str]
    seed: int
    finished_on: str
    epochs: int
    trained_on: Mapping[str, int]
    missing_images: Mapping[str, int]
    split_sha256: str
    splits: Mapping[str, RecordedSplit]
    training_minutes: float
    peak_memory_mib: int | None
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str = ""

    def to_json(self) -> str:
        """The text of the file; metrics and resamples have a line each."""
        text = json.dumps(asdict(self), indent=2)
        compact = re.sub(r"\{\s+(\"value\"[^{}]*)\}", lambda match: "{" + " ".join(match[1].split()) + "}", text)
        return compact.replace("[ ", "[").replace(" ]", "]") + "\n"

    @staticmethod
    def read(path: Path) -> RecordedRun:
        """Reads a file.

        Raises:
            UserError: if it is not the file of a recorded run.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            splits = {name: RecordedSplit(**split) for name, split in values.pop("splits").items()}
            return RecordedRun(splits=splits, **values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not the file of a recorded run: {error}. Record the run again.") from error


def record(folder: RunFolder, experiment: str, settings: Mapping[str, Any], metrics: Mapping[str, Sequence[str]]) -> RecordedRun:
    """Reads what is worth keeping of a finished run.

    Args:
        folder: the run; neither a demo nor a dry run.
        experiment: name of its shipped experiment.
        settings: that experiment, resolved.
        metrics: those of each task that get resamples.

    Raises:
        UserError: if the run is not finished, or says nothing about real images.
    """
    RunFolder.open_finished(folder.path)
    if folder.synthetic or folder.options.dry_run:
        kind = "a demo on drawn images" if folder.synthetic else "a dry run"
        raise UserError(f"'{folder.path}' is {kind}: its numbers say nothing about real images and are not recorded.")
    machine, facts = folder.read_json("environment.json"), folder.record
    elsewhere = facts.get("trained_elsewhere", {"machine": {}, "versions": {}})  # tools/train_on_jax.py
    histories = [run.history for run in folder.folds or [folder]]
    splits = folder.splits
    training = (folder.folds or [folder])[0].splits
    counts = training[training["split"] == "train"]["dataset"].value_counts()
    return RecordedRun(
        experiment=experiment,
        overrides=overrides(json.loads(folder.experiment.to_json()), settings),
        seed=int(folder.settings["train"]["seed"]),
        finished_on=str(facts.get("finished_on", "")),
        epochs=max(len(history) for history in histories),
        trained_on={str(name): int(count) for name, count in counts.items()},
        missing_images=folder.missing_images,
        split_sha256=_hash(splits),
        splits={split: _split(folder, split, metrics) for split in folder.metrics if split != "explanations"},
        training_minutes=round(sum(float(history["seconds"].sum()) for history in histories) / 60, 1),
        peak_memory_mib=facts.get("peak_memory_mib"),
        machine={key: machine[key] for key in ("processor", "cpus", "gpus")} | elsewhere["machine"],
        versions={
            "keras_skin": machine["keras_skin"],
            "python": machine["python"],
            **{name: machine["packages"][name] for name in _VERSIONS if name in machine["packages"]},
            **elsewhere["versions"],
        },
        commit=str(machine.get("commit", "")),
    )


def overrides(settings: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, str]:
    """The settings that can change a number and differ from an experiment file's, without the seed, the folders of the machine,
    and the training's precision, which the machine decides unless it is set; `-` where only the other has one."""
    ignored = ("train.seed", "train.precision")
    differing = differences(without_places(settings), without_places(base))  # the hashes of the splits identify the images
    return {key: without_folders(value) for key, (value, _) in differing.items() if key not in ignored}


def _split(folder: RunFolder, split: str, metrics: Mapping[str, Sequence[str]]) -> RecordedSplit:
    run = read_run(folder.path, split)
    tasks = {"segmentation": segmentation.METRICS, "classification": classification.METRICS}
    measured = {
        task: {name: _rounded(values[name]) for name in tasks[task] if name in values}
        for task, values in folder.metrics[split].items()
        if task in tasks
    }
    samples = run_samples(run, metrics, RESAMPLES)
    codes = {f"{task}/{name}": _encoded(sample.resamples) for (task, name), sample in samples.items() if len(sample.resamples)}
    return RecordedSplit(len(run.predictions), run.images_sha256, measured, codes)


def _rounded(value: Mapping[str, Any]) -> dict[str, Any]:
    """A metric with six decimals, and its stamp if it has one."""
    ci95 = value.get("ci95")
    rounded = {"value": round(value["value"], 6), "ci95": [round(limit, 6) for limit in ci95] if ci95 else None, "n": value["n"]}
    return {**rounded, **({"stamp": value["stamp"]} if value.get("stamp") else {})}


def _hash(splits: Any) -> str:
    columns = ["dataset", "image_id", "split" if "split" in splits else "fold"]
    rows = sorted("\t".join(row) for row in splits[columns].itertuples(index=False, name=None))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _encoded(values: np.ndarray) -> str:
    places = np.where(np.isnan(values), 0, 1 + np.rint((np.nan_to_num(values) + 1) / 2 * _LEVELS))
    return base64.b64encode(places.astype("<u2").tobytes()).decode("ascii")


def _decoded(text: str) -> np.ndarray:
    places = np.frombuffer(base64.b64decode(text), "<u2").astype(np.float64)
    return np.where(places == 0, np.nan, (places - 1) / _LEVELS * 2 - 1)

"""Chaining: which finished run of a segmentation model cuts the lesions out for a classifier, found, kept and opened."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

import pandas as pd

from keras_skin.data.splits import splits
from keras_skin.data.splits.leaks import FITTED
from keras_skin.experiment import Experiment
from keras_skin.registry import UserError, atomic_path
from keras_skin.training.fit import BEST_WEIGHTS
from keras_skin.workflow.folder import RunFolder
from keras_skin.workflow.trained_model import SEGMENTER, Run, load_run

log = logging.getLogger("keras_skin")

_KEPT = ("experiment.json", "run.json", "splits.csv", "metrics.json", f"checkpoints/{BEST_WEIGHTS}")
_RECORD = "record.json"


def adopt_segmenter(folder: RunFolder, name: str) -> Path:
    """Puts what is needed of a segmenter's run into the folder of the run that is chained to it, where it is found again whatever
    becomes of the other; its `record.json` tells its name and the SHA-256 of its weights.

    Args:
        folder: of the run that begins or goes on. One that has a segmenter already keeps it.
        name: the run's folder, or the beginning of its name, without date and time.

    Returns:
        The segmenter's folder, inside `folder`.

    Raises:
        UserError: if there is no such run, or none that is finished; or if the weights are no longer those of the beginning.
    """
    target = folder / SEGMENTER
    if not target.is_dir():
        shared = folder.path.parent / SEGMENTER  # of all folds, or of a demo
        source = shared if shared.is_dir() else find_run(name)
        log.info("Segmenter: %s", source)
        record = {"run": source.name, "weights_sha256": weights_sha256(source)}
        with atomic_path(target) as temporary:
            for file in _KEPT:
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                _link(source / file, temporary / file)
            if source == shared:
                record["run"] = segmenter_record(RunFolder(folder.path.parent))["run"]
            RunFolder(temporary).write_json(_RECORD, record)
    began, now = segmenter_record(folder)["weights_sha256"], weights_sha256(target)
    if began != now:
        raise UserError(
            f"The segmenter in '{target}' has other weights than when this run began ({began[:12]}, now {now[:12]}). "
            "Begin a new run."
        )
    return target


def segmenter_record(folder: RunFolder) -> dict[str, str]:
    """What a run's segmenter was: the name of its `run`, and `weights_sha256`."""
    record: dict[str, str] = folder.read_json(f"{SEGMENTER}/{_RECORD}")
    return record


def describe_segmenter(folder: RunFolder, experiment: Experiment) -> dict[str, str]:
    """What cut the lesions out, for the report's summary and the export."""
    if experiment.segmenter is None:
        return {}
    if experiment.segmenter.run is None:
        return {"Segmenter": "none: the data set's own masks"}
    told = segmenter_record(folder)
    return {"Segmenter": f"{told['run']}, weights {told['weights_sha256'][:12]}"}


def find_run(name: str) -> Path:
    """The folder of a finished run.

    Args:
        name: the folder, or the beginning of its name: `runs/deep_unet_isic2018` finds
            `runs/deep_unet_isic2018-20260131-120000`. Demos and dry runs are found by their whole name only.

    Raises:
        UserError: telling what is there instead.
    """
    path = Path(name).expanduser()
    dated = re.compile(re.escape(path.name) + r"-\d{8}-\d{6}(-\d+)?")
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    found = [path] if (path / "experiment.json").is_file() else [item for item in beside if dated.fullmatch(item.name)]
    finished = [item for item in found if all((item / file).is_file() for file in _KEPT)]
    if finished:
        return max(finished, key=lambda item: item.name)
    if found:
        raise UserError(
            f"segmenter.run: no run of '{name}' has finished: {', '.join(map(str, found))}.\n"
            f"Continue it: python -m keras_skin.run --resume {found[-1]}"
        )
    folders = ", ".join(item.name for item in beside if (item / "experiment.json").is_file()) or "no runs"
    raise UserError(
        f"segmenter.run: there is no run '{name}'. In '{path.parent}' there are: {folders}.\n"
        f"Train one first, for example: python -m keras_skin.run deep_unet_isic2018 --data DIR --out {path.parent}\n"
        "or name another finished run of a segmentation model: --set segmenter.run=FOLDER"
    )


def open_segmenter(path: Path) -> Run:
    """The segmenter in a run's folder, opened.

    Raises:
        UserError: if it is no model from one image to a mask.
    """
    run = load_run(path)
    if list(run.model.input) != ["image"] or "mask" not in run.model.output:
        raise UserError(
            f"segmenter.run: '{run.experiment.model.name}' makes {', '.join(run.model.output)} of {', '.join(run.model.input)}; "
            "expected a model that makes a mask of an image alone, such as deep_unet."
        )
    return run


def fitted_images(path: Path) -> pd.DataFrame:
    """The images that a segmenter was trained or chosen on, as `splits.csv` has them."""
    parts = splits.read_splits(path / "splits.csv")
    return parts[parts["split"].isin(FITTED)].reset_index(drop=True)


def weights_sha256(path: Path) -> str:
    """Of a run's best weights."""
    with (path / "checkpoints" / BEST_WEIGHTS).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    """The file a second time; weights are never changed in place, so a hard link will do where there can be one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

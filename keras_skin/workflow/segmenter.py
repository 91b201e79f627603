"""Chaining: finds, copies and opens the finished run of a segmentation model that cuts the lesions out for a classifier."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pandas as pd

from keras_skin.data.splits.leaks import FITTED
from keras_skin.experiment import SegmenterSettings
from keras_skin.experiment.changes import without_date
from keras_skin.presets.files import RUN_FILES
from keras_skin.presets.sources import locate_preset
from keras_skin.registry import UserError, atomic_path
from keras_skin.run_folder import SEGMENTER, RunFolder
from keras_skin.training.best_weights import intact_weights
from keras_skin.workflow.initial import initial_run
from keras_skin.workflow.opened_run import Run, load_run

log = logging.getLogger("keras_skin")


def adopt_segmenter(folder: RunFolder, settings: SegmenterSettings) -> Path:
    """Copies the needed files of a segmenter's run or preset into the folder of the run that uses it, which then no longer
    depends on the other folder. `record.json` holds its name and the SHA-256 of its weights.

    Args:
        folder: of the run that starts or resumes. A segmenter that it holds already is not replaced.
        settings: name the segmenter's run or preset.

    Returns:
        The segmenter's folder, inside `folder`.

    Raises:
        UserError: if there is no such run or preset, or none that is finished; or if the weights have changed since the run
            started.
    """
    target = folder / SEGMENTER
    if not target.is_dir():
        shared = folder.path.parent / SEGMENTER  # of all folds, or of a demo
        source = shared if shared.is_dir() else _find(settings)
        log.info("Segmenter: %s", source)
        intact_weights(RunFolder(source).best_weights)
        record = {"run": source.name, "weights_sha256": RunFolder(source).weights_sha256}
        with atomic_path(target) as temporary:
            for file in RUN_FILES:
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                _link(source / file, temporary / file)
            if source == shared:
                record["run"] = RunFolder(folder.path.parent).segmenter_record["run"]
            RunFolder(temporary).write_json("record.json", record)
    before, now = folder.segmenter_record["weights_sha256"], RunFolder(target).weights_sha256
    if before != now:
        raise UserError(
            f"The segmenter in '{target}' has other weights than when this run started ({before[:12]}, now {now[:12]}). "
            "Start a new run."
        )
    return target


def describe_segmenter(folder: RunFolder) -> dict[str, str]:
    """A line for the report's summary and the export: what cut the lesions out, or was named to exclude images."""
    settings = folder.experiment.segmenter
    if settings is None:
        return {}
    if settings.masks:
        return {"Segmenter": "none: the data set's own masks"}
    if settings.exclude_only and folder.synthetic:
        return {"Segmenter": "none; a demo excludes no images"}
    record = folder.segmenter_record
    name = f"{record['run']}, weights {record['weights_sha256'][:12]}"
    if settings.exclude_only:
        return {"Segmenter": f"none; what another segmenter was fitted on is excluded from the measured splits: {name}"}
    return {"Segmenter": name}


def _find(settings: SegmenterSettings) -> Path:
    try:
        return locate_preset(settings.preset) if settings.preset else find_run(str(settings.run))
    except UserError as error:
        if not settings.exclude_only:
            raise
        raise UserError(f"{error}\nIt is needed for the list of its images only. To exclude none: --set segmenter=null") from None


def find_run(name: str) -> Path:
    """The folder of a finished run.

    Args:
        name: the folder, or the start of its name: `runs/deep_unet_isic2018` finds
            `runs/deep_unet_isic2018-20260131-120000`. Demos and dry runs are found by their whole name only.

    Raises:
        UserError: listing the runs that exist.
    """
    path = Path(name).expanduser()
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    runs = (
        [path]
        if (path / "experiment.json").is_file()
        else [item for item in beside if without_date(item.name) == path.name != item.name]
    )
    finished = [item for item in runs if all((item / file).is_file() for file in RUN_FILES)]
    if finished:
        return max(finished, key=lambda item: item.name)
    if runs:
        raise UserError(
            f"segmenter.run: no run of '{name}' has finished: {', '.join(map(str, runs))}.\n"
            f"Resume it: python -m keras_skin.run --resume {runs[-1]}"
        )
    folders = ", ".join(item.name for item in beside if (item / "experiment.json").is_file()) or "no runs"
    raise UserError(
        f"segmenter.run: there is no run '{name}'. In '{path.parent}' there are: {folders}.\n"
        f"Train one first, for example: python -m keras_skin.run deep_unet_isic2018 --data DIR --out {path.parent}\n"
        "or name another finished run of a segmentation model: --set segmenter.run=FOLDER\n"
        "or a preset: --set segmenter.run=null --set segmenter.preset=NAME"
    )


def open_segmenter(path: Path) -> Run:
    """Opens the segmenter in a run's folder.

    Raises:
        UserError: if its model does not map one image to a mask.
    """
    run = load_run(path)
    if list(run.model.input) != ["image"] or "mask" not in run.model.output:
        raise UserError(
            f"segmenter: '{run.experiment.model.name}' predicts {', '.join(run.model.output)} from "
            f"{', '.join(run.model.input)}; expected a model that predicts a mask from an image alone, such as deep_unet."
        )
    return run


def fitted_images(run: RunFolder) -> pd.DataFrame:
    """The rows of splits.csv that a model was trained or chosen on, with those of the model that its training started from.

    The images of a demo are drawn. The images of the model that it starts from are therefore not added.
    """
    table = run.splits
    own = table[table["split"].isin(FITTED)]
    initial = None if run.synthetic else run.experiment.model.init
    return pd.concat([own, fitted_images(initial_run(initial))] if initial else [own], ignore_index=True)


def _link(source: Path, target: Path) -> None:
    """Hard-links or copies a file. A link is enough, because weights are never changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

"""The order of a run, from an experiment to its report. Command modules and notebooks call `start`, `resume` and `load_run`."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from keras_skin.console import FailureKind, machine_failure
from keras_skin.evaluation.report import comparison_rows, format_table
from keras_skin.experiment import Experiment, SegmenterSettings, load_experiment, shipped_experiments
from keras_skin.registry import UserError, listed, remove_temporaries
from keras_skin.run_folder import RUN_STATE, SEGMENTER, RunFolder, RunOptions
from keras_skin.training.errors import TrainingInterrupted
from keras_skin.workflow.changed_files import FilesChanged
from keras_skin.workflow.cross_validation import execute_folds
from keras_skin.workflow.environment import peak_memory_mib, reset_peak_memory
from keras_skin.workflow.opened_run import Run, load_run
from keras_skin.workflow.prepare import render_demo
from keras_skin.workflow.run_log import run_log
from keras_skin.workflow.segmenter import adopt_segmenter
from keras_skin.workflow.steps import execute

__all__ = ["Run", "RunFailed", "RunInterrupted", "load_run", "resume", "start"]

log = logging.getLogger("keras_skin")


class RunInterrupted(Exception):
    """Ctrl-C or SIGTERM ended a run; the message says how to resume it.

    Attributes:
        exit_code: what a command should exit with (130 for Ctrl-C).
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class RunFailed(Exception):
    """The machine could not go on: a disk is full or read-only, or there is not enough memory. The message says how to resume.

    Attributes:
        exit_code: what a command should exit with.
    """

    exit_code = 3


def start(
    experiment: Experiment, name: str, out: Path, data_dir: str | None = None, demo: bool = False, dry_run: bool = False
) -> Path:
    """Runs an experiment in a new folder below `out`.

    Args:
        experiment: what to run.
        name: start of the folder's name.
        out: where run folders are made.
        data_dir: folder of the data sets; not needed for a demo.
        demo: draw stand-ins of the data sets into the run folder and use those; everything written says SYNTHETIC.
        dry_run: two batches of everything.

    Returns:
        The run's folder.

    Raises:
        UserError: on a mistake the user can fix; a folder in which nothing was computed yet is removed.
        RunFailed: if a disk is full or read-only, or there is not enough memory; the folder is kept.
    """
    if dry_run:
        train = experiment.train.model_copy(update={"epochs": 1, "steps_per_epoch": 2})
        few = {name: min(2, getattr(experiment.explain, name)) for name in ("images", "measured")}
        explain = experiment.explain.model_copy(update=few)
        experiment = experiment.model_copy(update={"train": train, "explain": explain})
    options = RunOptions(_absolute(data_dir), demo, dry_run)
    folder = RunFolder.create(out, f"{name}{'-dry-run' if dry_run else ''}{'-demo' if demo else ''}")
    try:
        folder.write_text("experiment.json", experiment.to_json())
        folder.write_json("run.json", {**asdict(options), "finished": False})
    except OSError:
        shutil.rmtree(folder.path, ignore_errors=True)  # without both files it could not be resumed
        raise
    return _run(folder, options.data_dir, resume=False)


def resume(path: Path, data_dir: str | None = None) -> Path:
    """Resumes the run in `path` where it stopped, with the same experiment and the same data.

    Args:
        path: the run's folder.
        data_dir: where the data sets are now, if they were moved.

    Raises:
        UserError: if the folder is no run, is finished, is in use, has lost its run state, or if its data are missing or have
            changed. The folder stays as it is.
        RunFailed: as from `start`.
    """
    folder = RunFolder.open(path)
    if path.resolve().name.startswith("fold_") and (path.resolve().parent / "experiment.json").is_file():
        raise UserError(f"'{path}' is one fold of a cross-validation. Resume the whole: --resume {path.resolve().parent}")
    if folder.finished:
        raise UserError(f"The run in '{path}' is finished: see {path / 'report.html'}.")
    _refuse_lost_state(folder)
    return _run(folder, _absolute(data_dir) or folder.options.data_dir, resume=True)


def _absolute(data_dir: str | None) -> str | None:
    return None if data_dir is None else str(Path(data_dir).expanduser().resolve())


def _refuse_lost_state(folder: RunFolder) -> None:
    """Refuses a run that was trained but has no run state: it cannot be resumed and must not start over by itself."""
    for run in (folder, *folder.folds):
        trained = any(run.state.parent.glob("*.weights.h5")) or (run / "history.csv").is_file()
        if trained and not run.state.is_file():
            raise UserError(
                f"{run.state} is missing, so the training cannot be resumed where it stopped. Its best weights are kept. "
                "Restore the file, or start a new run."
            )


def _run(folder: RunFolder, data_dir: str | None, resume: bool) -> Path:
    try:
        return _run_logged(folder, data_dir, resume)
    except (UserError, RunInterrupted):
        raise
    except Exception as error:
        failure = machine_failure(error)
        if failure is None:
            raise
        sentence = failure.sentence
        if failure.kind is FailureKind.MEMORY:
            sentence += f" {_smaller(folder.experiment)}"
        raise RunFailed(f"{sentence}\nThe folder of the run is kept. {_how_to_resume(folder)}") from error


def _smaller(experiment: Experiment) -> str:
    """The settings that decide how much memory a training needs, and how to start one that needs less."""
    batch, (height, width) = experiment.train.batch_size, experiment.image_size
    setting = f"train.batch_size={batch // 2}" if batch > 1 else f"image.size=[{height // 2},{width // 2}]"
    return (
        f"train.batch_size is {batch} and image.size is [{height}, {width}] (height, width). Start a run with a smaller one, for "
        f"example --set {setting}; or stop other programs that use the memory, and resume."
    )


def _run_logged(folder: RunFolder, data_dir: str | None, resume: bool) -> Path:
    started = time.monotonic()
    reset_peak_memory()
    with folder.locked(), run_log(folder / "run.log"):
        try:
            if resume and (removed := remove_temporaries(folder.path)):
                log.info("Removed what a killed process has left: %s", listed([path.name for path in removed]))
            metrics = _execute(folder, Path(data_dir) if data_dir else None, resume)
            folder.update_record(finished=True, finished_on=date.today().isoformat(), peak_memory_mib=peak_memory_mib())
            _conclude(folder, metrics, time.monotonic() - started)
        except FilesChanged as error:
            raise UserError(f"{error}\n{_how_to_resume(folder)}") from error
        except UserError:
            if not resume:
                _remove_if_nothing_was_trained(folder)
            raise
        except TrainingInterrupted as interruption:
            raise RunInterrupted(f"{interruption}\n{_how_to_resume(folder)}", interruption.exit_code) from None
        except KeyboardInterrupt:
            if not resume and _remove_if_nothing_was_trained(folder):
                raise RunInterrupted("Interrupted before training started; its folder was removed.", 130) from None
            raise RunInterrupted(f"Interrupted. The training is saved.\n{_how_to_resume(folder)}", 130) from None
    return folder.path


def _execute(folder: RunFolder, data_dir: Path | None, resume: bool) -> dict[str, Any]:
    experiment, options = folder.experiment, folder.options
    log.info("%s", folder.headline)
    for key, text in folder.changes.items():
        log.info("  changed: %s is %s", key, text)
    if folder.banner:
        log.info("%s", folder.banner)
    log.info("Run folder: %s", folder.path)
    if options.demo:
        folder.write_text("SYNTHETIC.txt", "This run used images drawn by a program. Its numbers say nothing about patients.\n")
        data_dir = render_demo(experiment, folder / "demo_data", experiment.train.seed)
        _train_demo_segmenter(folder)
    if experiment.split.scheme == "kfold":
        return execute_folds(folder, data_dir, resume=resume)
    return execute(folder, data_dir, resume=resume)


def _train_demo_segmenter(folder: RunFolder) -> None:
    """For a demo, trains the segmenter first. It must be a shipped experiment."""
    settings = folder.experiment.segmenter
    name = Path(settings.run).name if settings and settings.run and settings.has_model else ""
    if (folder / SEGMENTER).is_dir() or name not in shipped_experiments():
        return
    log.info("The segmenter comes first: %s", name)
    runs = sorted((folder / "segmenter_demo").glob(f"{name}-*"))
    if not runs:
        dry_run = folder.options.dry_run
        path = start(load_experiment(name, demo=True), name, folder / "segmenter_demo", demo=True, dry_run=dry_run)
    elif RunFolder.open(runs[-1]).finished:
        path = runs[-1]
    else:
        path = resume(runs[-1])
    adopt_segmenter(folder, SegmenterSettings(run=str(path)))


def _conclude(folder: RunFolder, metrics: dict[str, Any], seconds: float) -> None:
    paper, missing = folder.paper, {split: folder.missing_of(split) for split in metrics}
    log.info("\n%s: %s\n%s", folder.path.name, folder.headline, format_table(comparison_rows(paper, metrics, missing)))
    if paper.get("dropped"):
        log.info("The published numbers are not shown, because they belong to another experiment: %s.", paper["dropped"])
    if folder.banner:
        log.info("%s", folder.banner)
    log.info("\nDone in %d min %02d s. Report: %s", seconds // 60, seconds % 60, folder / "report.html")


def _how_to_resume(folder: RunFolder) -> str:
    return f"Resume it: python -m keras_skin.run --resume {folder.path}"


def _remove_if_nothing_was_trained(folder: RunFolder) -> bool:
    """Removes the folder of a run that ended before its training; returns whether it did."""
    trained = any(folder.path.rglob(RUN_STATE))
    if not trained:
        shutil.rmtree(folder.path, ignore_errors=True)
    return not trained

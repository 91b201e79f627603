"""The order of a run, from an experiment to its report. Command modules and notebooks call `start`, `resume` and `load_run`."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_skin.evaluation.report import comparison_rows, format_table
from keras_skin.experiment import Experiment, load_experiment, shipped_experiments
from keras_skin.registry import UserError
from keras_skin.training.errors import TrainingInterrupted
from keras_skin.training.fit import RUN_STATE
from keras_skin.workflow.cross_validation import execute_folds
from keras_skin.workflow.folder import RunFolder, RunOptions, start_log
from keras_skin.workflow.prepare import render_demo
from keras_skin.workflow.segmenter import adopt_segmenter
from keras_skin.workflow.steps import execute
from keras_skin.workflow.trained_model import SEGMENTER, Run, load_run

__all__ = ["Run", "RunInterrupted", "load_run", "resume", "start"]

log = logging.getLogger("keras_skin")


class RunInterrupted(Exception):
    """Ctrl-C or SIGTERM ended a run; the message says how to continue it.

    Attributes:
        exit_code: what a command should exit with (130 for Ctrl-C).
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def start(
    experiment: Experiment, name: str, out: Path, data_dir: str | None = None, demo: bool = False, dry_run: bool = False
) -> Path:
    """Begins a run in a new folder below `out` and carries it through.

    Args:
        experiment: what to run.
        name: beginning of the folder's name.
        out: where run folders are made.
        data_dir: folder of the data sets; not needed for a demo.
        demo: render stand-ins of the data sets into the run folder and use those; everything written says SYNTHETIC.
        dry_run: two batches of everything.

    Returns:
        The run's folder.

    Raises:
        UserError: on a mistake the user can mend; a folder in which nothing was computed yet is removed.
    """
    if dry_run:
        train = experiment.train.model_copy(update={"epochs": 1, "steps_per_epoch": 2})
        few = {name: min(2, getattr(experiment.explain, name)) for name in ("images", "measured")}
        explain = experiment.explain.model_copy(update=few)
        experiment = experiment.model_copy(update={"train": train, "explain": explain})
    if data_dir is not None:
        data_dir = str(Path(data_dir).expanduser().resolve())
    folder = RunFolder.create(out, f"{name}{'-dry-run' if dry_run else ''}{'-demo' if demo else ''}")
    folder.write_text("experiment.json", experiment.to_json())
    options = RunOptions(data_dir, demo, dry_run)
    folder.write_json("run.json", {**asdict(options), "finished": False})
    return _carry_through(folder, experiment, options, resume=False)


def resume(path: Path, data_dir: str | None = None) -> Path:
    """Continues the run in `path` where it was cut short, with the same experiment and the same data.

    Args:
        path: the run's folder.
        data_dir: where the data sets lie now, if they were moved.

    Raises:
        UserError: if the folder is no run, is finished, is in use, has lost its run state, or if its data are gone or have
            changed. The folder stays as it is.
    """
    folder = RunFolder.open(path)
    if path.resolve().name.startswith("fold_") and (path.resolve().parent / "experiment.json").is_file():
        raise UserError(f"'{path}' is one fold of a cross-validation. Resume the whole: --resume {path.resolve().parent}")
    record = folder.read_json("run.json")
    if record["finished"]:
        raise UserError(f"The run in '{path}' is finished: see {path / 'report.html'}.")
    _refuse_lost_state(folder)
    options = RunOptions(record["data_dir"], record["demo"], record["dry_run"])
    if data_dir is not None and not options.demo:
        options = RunOptions(str(Path(data_dir).expanduser().resolve()), options.demo, options.dry_run)
    return _carry_through(folder, folder.experiment(), options, resume=True)


def _refuse_lost_state(folder: RunFolder) -> None:
    """A run that has been trained and has no run state cannot be resumed; it must not start over by itself either."""
    lost = [
        path
        for path in (folder.path, *sorted(folder.path.glob("fold_*")))
        if (any((path / "checkpoints").glob("*.weights.h5")) or (path / "history.csv").is_file())
        and not (path / "checkpoints" / RUN_STATE).is_file()
    ]
    if lost:
        raise UserError(
            f"{lost[0] / 'checkpoints' / RUN_STATE} is missing, so the training cannot be resumed where it stopped. Its best "
            "weights are kept. Restore the file, or start a new run."
        )


def _carry_through(folder: RunFolder, experiment: Experiment, options: RunOptions, resume: bool) -> Path:
    with folder.locked():
        return _run(folder, experiment, options, resume)


def _run(folder: RunFolder, experiment: Experiment, options: RunOptions, resume: bool) -> Path:
    handler = start_log(folder / "run.log")
    begun = time.monotonic()
    try:
        marks = [text for text, given in (("SYNTHETIC demo data", options.demo), ("dry run", options.dry_run)) if given]
        log.info("%s%s", experiment.title, f" ({', '.join(marks)})" if marks else "")
        log.info("Run folder: %s", folder.path)
        if options.demo:
            (folder / "SYNTHETIC.txt").write_text(
                "This run saw images drawn by a program. Its numbers say nothing about patients.\n"
            )
            render_demo(experiment, folder / "demo_data", experiment.train.seed)
            options = RunOptions(str(folder / "demo_data"), options.demo, options.dry_run)
            _train_demo_segmenter(folder, experiment, options.dry_run)
        run = execute_folds if experiment.split.scheme == "kfold" else execute
        metrics = run(folder, experiment, options, resume=resume)
        folder.write_json("run.json", {**folder.read_json("run.json"), "finished": True})
        _conclude(folder, experiment, metrics, time.monotonic() - begun, options)
    except UserError:
        if not resume:
            _remove_if_nothing_was_trained(folder)
        raise
    except TrainingInterrupted as interruption:
        raise RunInterrupted(f"{interruption}\n{_continue(folder)}", interruption.exit_code) from None
    except KeyboardInterrupt:
        removed = not resume and _remove_if_nothing_was_trained(folder)
        message = (
            f"Interrupted. What was trained is saved.\n{_continue(folder)}"
            if not removed
            else "Interrupted before training began; nothing is kept."
        )
        raise RunInterrupted(message, 130) from None
    finally:
        log.removeHandler(handler)
        handler.close()
    return folder.path


def _train_demo_segmenter(folder: RunFolder, experiment: Experiment, dry_run: bool) -> None:
    """A demo needs no run from before: the shipped experiment that the segmenter's run is called after is trained first."""
    name = Path(experiment.segmenter.run).name if experiment.segmenter and experiment.segmenter.run else ""
    if (folder / SEGMENTER).is_dir() or name not in shipped_experiments():
        return
    log.info("The segmenter comes first: %s", name)
    begun = sorted((folder / "segmenter_demo").glob(f"{name}-*"))
    if not begun:
        path = start(load_experiment(name, demo=True), name, folder / "segmenter_demo", demo=True, dry_run=dry_run)
    elif RunFolder.open(begun[-1]).read_json("run.json")["finished"]:
        path = begun[-1]
    else:
        path = resume(begun[-1])
    adopt_segmenter(folder, str(path))


def _conclude(folder: RunFolder, experiment: Experiment, metrics: dict[str, Any], seconds: float, options: RunOptions) -> None:
    paper = experiment.paper.model_dump() if experiment.paper else None
    log.info("\n%s", format_table(comparison_rows(paper, metrics)))
    if options.demo:
        log.info("SYNTHETIC data: these numbers show that everything runs, nothing else.")
    log.info("\nDone in %d min %02d s. Report: %s", seconds // 60, seconds % 60, folder / "report.html")


def _continue(folder: RunFolder) -> str:
    return f"Continue it: python -m keras_skin.run --resume {folder.path}"


def _remove_if_nothing_was_trained(folder: RunFolder) -> bool:
    """What ends a run before training leaves no half-made folder behind."""
    trained = any(folder.path.rglob(RUN_STATE))
    if not trained:
        shutil.rmtree(folder.path, ignore_errors=True)
    return not trained

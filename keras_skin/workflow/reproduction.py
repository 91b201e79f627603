"""Runs the rows of a paper's table one after the other, and writes published beside measured numbers.

The runs of a table lie in one folder, `<row>-seed<k>-<date>` and `<row>-image-level-seed<k>-<date>`. A finished run is not
repeated, an interrupted one is resumed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_skin import workflow
from keras_skin.evaluation.departures import departures, training_length
from keras_skin.evaluation.reproduction import ClaimedOrder, RowRuns, judge, measure_row, measured_numbers
from keras_skin.evaluation.reproduction_page import Reproduction, format_table, write_csv, write_page
from keras_skin.experiment import Experiment
from keras_skin.experiment.changes import flattened, without_date
from keras_skin.experiment.tables import PaperTable, TableRow
from keras_skin.registry import UserError, remove_temporaries
from keras_skin.run_folder import RunFolder
from keras_skin.training.fit import NonFiniteLoss
from keras_skin.workflow.run_log import run_log

log = logging.getLogger("keras_skin")

PAGE, NUMBERS, FAILURES, LOG = "table.html", "table.csv", "failures.json", "table.log"
SEED_OF_RESAMPLES = 0
NOT_STARTED = "not started yet"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a table: a row, a seed and a protocol."""

    row: TableRow
    seed: int
    image_level: bool = False

    @property
    def name(self) -> str:
        """Start of the folder's name."""
        return f"{self.row.slug}{'-image-level' if self.image_level else ''}-seed{self.seed}"

    @property
    def experiment(self) -> Experiment:
        """What to run."""
        return self.row.experiment_of(self.seed, self.image_level)


def reproduce(table: PaperTable, out: Path, data_dir: str | None, seeds: int | None = None) -> bool:
    """Runs what is missing of a table, then writes `table.html` and `table.csv` in `out`.

    A run that fails is skipped: its reason stands on the page and in `failures.json`, and the next call tries it again. The page
    is also written when the command is interrupted.

    Args:
        table: the table.
        out: the folder of its runs.
        data_dir: folder of the data sets.
        seeds: number of seeds of every row; None takes the table's.

    Returns:
        Whether every run is finished.

    Raises:
        UserError: if another process works in the folder.
        RunInterrupted: after Ctrl-C or SIGTERM.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs = list(planned_runs(table, seeds))
    folder = RunFolder(out)
    with folder.locked(), run_log(folder / LOG):
        log.info("%s: %d runs in %s", table.title, len(runs), out)
        remove_temporaries(out, recursive=False)
        failures = read_failures(out)
        try:
            for number, run in enumerate(runs, start=1):
                reason = _complete(run, out, data_dir, f"Run {number} of {len(runs)}: {run.name}")
                failures.pop(run.name, None)
                if reason:
                    failures[run.name] = reason
                folder.write_json(FAILURES, failures)
        finally:
            log.info("\n%s\n\nPage: %s", write_table(table, out, seeds), folder / PAGE)
    return not any(run.name in failures for run in runs)


def planned_runs(table: PaperTable, seeds: int | None = None) -> Iterator[PlannedRun]:
    """The runs of a table in order: each row's seeds, then its seeds under the image-level protocol."""
    for row in table.rows:
        for image_level in (False, True) if row.paper_protocol else (False,):
            for seed in range(seeds or row.seeds):
                yield PlannedRun(row, seed, image_level)


def find_run(run: PlannedRun, out: Path) -> RunFolder | None:
    """The newest folder of a planned run that has its settings: a finished one, else one that can be resumed."""
    folders = [RunFolder(path) for path in sorted(out.glob(f"{run.name}-*"), reverse=True) if without_date(path.name) == run.name]
    same = [folder for folder in folders if _has_settings(folder, run.experiment)]
    return next((folder for folder in same if folder.finished), same[0] if same else None)


def read_failures(out: Path) -> dict[str, str]:
    """The reasons of the runs that failed at their last try, by the start of their folder's name."""
    return RunFolder(out).read_json(FAILURES) if (out / FAILURES).is_file() else {}


def write_table(table: PaperTable, out: Path, seeds: int | None = None) -> str:
    """Writes the page and the CSV file of what is finished; returns the table as text.

    Args:
        table: the table.
        out: the folder of its runs.
        seeds: as for `reproduce`.
    """
    failures = read_failures(out)
    random = np.random.default_rng(SEED_OF_RESAMPLES)
    rows = [_row_runs(table, row, out, seeds, failures) for row in table.rows]
    metrics = {str(task): names for task, names in table.metrics.items()}
    results = [measure_row(row, table.splits, metrics, random) for row in rows]
    numbers = measured_numbers(results)
    verdicts = [judge(claim, numbers, random) for claim in claimed_orders(table)]
    reproduction = Reproduction(table.title, table.paper, table.description, table.splits, results, verdicts)
    write_page(out / PAGE, reproduction)
    write_csv(out / NUMBERS, reproduction)
    return format_table(reproduction)


def claimed_orders(table: PaperTable) -> list[ClaimedOrder]:
    """The claims of a table as `judge` takes them."""
    return [
        ClaimedOrder(
            claim.text, [claim.split] if claim.split else table.splits, claim.task, claim.metric, claim.better, claim.than
        )
        for claim in table.claims
    ]


def _complete(run: PlannedRun, out: Path, data_dir: str | None, heading: str) -> str:
    """Starts or resumes a run, unless it is finished; returns why it failed, or ""."""
    folder = find_run(run, out)
    if folder is not None and folder.finished:
        log.info("%s is finished: %s", heading, folder.path)
        return ""
    log.info("\n%s", heading)
    try:
        if folder is None:
            workflow.start(run.experiment, run.name, out, data_dir=data_dir)
        else:
            workflow.resume(folder.path, data_dir=data_dir)
    except workflow.RunInterrupted:
        raise
    except (UserError, NonFiniteLoss, workflow.RunFailed) as error:
        log.error("%s failed: %s", run.name, error)
        return str(error)
    except Exception as error:  # one broken row must not keep the others from running
        log.exception("%s failed", run.name)
        return f"{type(error).__name__}: {error}"
    finally:
        keras.backend.clear_session()
    return ""


def _has_settings(folder: RunFolder, experiment: Experiment) -> bool:
    """Whether a run has all settings of an experiment that can change a measured number."""
    try:
        run, row = (dict(flattened(json.loads(item.to_json()))) for item in (folder.experiment, experiment))
        return run == row and bool(folder.record)
    except UserError:  # written by another version, or damaged
        return False


def _row_runs(table: PaperTable, row: TableRow, out: Path, seeds: int | None, failures: dict[str, str]) -> RowRuns:
    experiment, paper = row.experiment_of(0), row.paper_experiment
    settings, paper_settings = (json.loads(item.to_json()) for item in (experiment, paper))
    leak_free: list[Path] = []
    image_level: list[Path] = []
    reasons: dict[str, str] = {}
    for run in planned_runs(table.model_copy(update={"rows": [row]}), seeds):
        folder = find_run(run, out)
        if folder is not None and folder.finished:
            (image_level if run.image_level else leak_free).append(folder.path)
        else:
            reasons[run.name] = failures.get(run.name) or ("interrupted" if folder else NOT_STARTED)
    length = training_length(settings, paper_settings) or f"{experiment.train.epochs} epochs, as in the paper's experiment"
    missing_images = RunFolder(leak_free[0]).missing_images if leak_free else {}
    split = row.paper_protocol.split if row.paper_protocol else None
    return RowRuns(
        row.label,
        row.experiment,
        [f"{key}={json.dumps(value)}" for key, value in row.overrides.items()],
        departures(settings, paper_settings, missing_images),
        length,
        paper.paper.model_dump() if paper.paper else {},
        leak_free,
        image_level,
        {table.splits[0]: split} if split else {},
        reasons,
        row.paper_protocol is not None,
    )

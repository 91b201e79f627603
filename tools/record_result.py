"""Records a finished run on real data as one small JSON file in results/:

    python tools/record_result.py runs/jrl_isic2016_lite-20260131-101500

docs/results.md is made from these files by tools/results_page.py. A demo, a dry run and an unfinished run are refused. The file
names no host, no user and no path.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from keras_skin.console import exit_code
from keras_skin.evaluation.recorded import RecordedRun, record
from keras_skin.experiment import load_experiment, shipped_experiments
from keras_skin.experiment.changes import without_date
from keras_skin.experiment.loading import read_json, shipped_folder
from keras_skin.experiment.tables import shipped_tables, slug
from keras_skin.registry import UserError, atomic_path
from keras_skin.run_folder import RunFolder

RESULTS = Path(__file__).resolve().parent.parent / "results"
DEFAULT_METRICS = {"segmentation": ["dsc"], "classification": ["balanced_accuracy", "f1_weighted", "auc"]}


def experiment_of(folder: RunFolder) -> str:
    """Name of the shipped experiment that a run was started from: the one with its title, else the one that its folder is named
    after.

    Raises:
        UserError: if there is none.
    """
    title = folder.settings.get("title")
    names = [name for name in shipped_experiments() if load_experiment(name).title == title]
    plain = without_date(folder.path.resolve().name)
    names += [plain] if plain in shipped_experiments() else []
    if not names:
        raise UserError(
            f"'{folder.path}' is a run of no shipped experiment: no title is '{title}'. Only runs of shipped experiments are "
            "recorded, with --set as you like."
        )
    return names[0]


def compared_metrics(experiment: str) -> dict[str, list[str]]:
    """The metrics that the tables with this experiment show or claim something about."""
    tables = [read_json(shipped_folder().joinpath("tables", f"{name}.json")) for name in shipped_tables()]
    own_tables = [table for table in tables if experiment in _experiments(table)]
    metrics: dict[str, list[str]] = {}
    for table in own_tables:
        pairs = [(task, name) for task, names in table["metrics"].items() for name in names]
        for task, name in [*pairs, *((claim["task"], claim["metric"]) for claim in table.get("claims", []))]:
            metrics.setdefault(task, []).append(name)
    return {task: list(dict.fromkeys(names)) for task, names in metrics.items()} or DEFAULT_METRICS


def _experiments(values: Any) -> set[str]:
    """Every experiment that a table names, in rows, cells or protocols."""
    if isinstance(values, list):
        return set().union(*map(_experiments, values))
    if not isinstance(values, dict):
        return set()
    names = {values["experiment"]} if isinstance(values.get("experiment"), str) else set()
    return names.union(*map(_experiments, values.values()))


def record_result(path: Path, name: str | None = None, results: Path = RESULTS) -> Path:
    """Writes the file of a run; returns its path.

    Args:
        path: folder of a finished run.
        name: of the file; None makes it from the experiment, the overrides and the seed.
        results: folder to write to.

    Raises:
        UserError: if the run cannot be recorded, or if another run has that name.
    """
    folder = RunFolder.open_finished(path)
    experiment = experiment_of(folder)
    settings = json.loads(load_experiment(experiment).to_json())
    result = record(folder, experiment, settings, compared_metrics(experiment))
    values = [slug(f"{key.rpartition('.')[2]} {value}")[:40].strip("-") for key, value in result.overrides.items()]
    target = results / f"{name or '-'.join([experiment, *values])[:120].strip('-') + f'-seed{result.seed}'}.json"
    if target.is_file() and RecordedRun.read(target) != result:
        raise UserError(f"{target} holds another run. Remove it, or choose a name with --name.")
    with atomic_path(target) as temporary:
        temporary.write_text(result.to_json(), encoding="utf-8")
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument("--name", help="name of the file (default: experiment, overrides and seed); for one run only")
    parser.add_argument("--results", metavar="DIR", type=Path, default=RESULTS, help="folder to write to (default: results)")
    options = parser.parse_args(arguments)

    def write() -> None:
        if options.name and len(options.runs) > 1:
            raise UserError("--name names one file: give one run.")
        for path in options.runs:
            print(f"Recorded: {record_result(path, options.name, options.results)}")

    return exit_code(write, "Interrupted.")


if __name__ == "__main__":
    sys.exit(main())

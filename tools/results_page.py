"""Writes docs/results.md from the recorded runs in results/ and the numbers printed in the papers:

    python tools/results_page.py

`tools/record_result.py` makes the files in results/. The sections are the tables of experiments/tables: a recorded run belongs to
the row with its experiment and its overrides. Whether a paper's claim showed up is computed from the intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_skin.console import exit_code
from keras_skin.evaluation.comparison_report import format_difference
from keras_skin.evaluation.departures import Departure, departures
from keras_skin.evaluation.recorded import RecordedRun, overrides
from keras_skin.evaluation.report import HEADLINE, format_published, metric_label, published_results, split_label
from keras_skin.evaluation.reproduction import ClaimedOrder, Key, judge
from keras_skin.evaluation.seeds import Pooled, difference, pool
from keras_skin.experiment import load_experiment
from keras_skin.experiment.tables import PaperTable, TableRow, load_table, shipped_tables
from keras_skin.registry import UserError, atomic_path

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "results", ROOT / "docs" / "results.md"
FIRST = ("jrl_lite", "msfa_lite", "dual_task_lite", "tdbn_lite", "dualrefnet_isic2019_lite", "dualrefnet_pad_ufes_20_lite")
"""Tables that have a section even without a result; the others have one as soon as a run is recorded."""
_NOT_COMPARABLE = "not comparable"
INTRODUCTION = """\
<!-- Made by tools/results_page.py from results/*.json and experiments/tables/*.json. Do not edit. -->

# Results

What the five systems reach on real images, measured without leaks: images of one patient or lesion are in one split.
`python -m keras_skin.reproduce TABLE` trains the rows of a section. **Research software, not a medical device.**

- A number is the mean over the seeds, with a 95 % percentile bootstrap interval that draws patients or lesions (single images
  where the data set names neither) and, with several seeds, runs. One seed says nothing about another training.
- The paper's number stands beside it only where model, images and split correspond. Otherwise the first cell of the row gives the
  reason.
- A claim showed up if the 95 % interval of the difference excludes 0 on the claimed side. Rows that measured the same images are
  compared image by image. Intervals are not widened for their number.
- The price of the leak is the number under the paper's image-level protocol minus the leak-free one. The two measure different
  images, so their resamples are drawn independently.
"""


@dataclass(frozen=True)
class Row:
    """A row of a table, the recorded runs that belong to it (by name of their file), and what is not as in the paper, both for
    the leak-free runs and for those under the image-level protocol."""

    row: TableRow
    runs: Mapping[str, RecordedRun]
    protocol_runs: Mapping[str, RecordedRun]
    departures: Sequence[Departure]
    protocol_departures: Sequence[Departure] = ()

    @property
    def published(self) -> Mapping[str, Any]:
        """The paper's results by split, task and metric."""
        paper = self.row.paper_experiment.paper
        return published_results(paper.model_dump() if paper else None)

    @property
    def protocol_split(self) -> str | None:
        """The split that stands for the table's first one under the image-level protocol."""
        return self.row.paper_protocol.split if self.row.paper_protocol else None


def read_results(folder: Path) -> dict[str, RecordedRun]:
    """The recorded runs by the name of their file."""
    return {path.stem: RecordedRun.read(path) for path in sorted(folder.glob("*.json"))}


def results_page(results: Mapping[str, RecordedRun]) -> str:
    """The text of docs/results.md."""
    random = np.random.default_rng(0)
    sections: list[str] = []
    row_runs: set[str] = set()
    for name in [*FIRST, *(name for name in shipped_tables() if name not in FIRST)]:
        table = load_table(name)
        rows = [_row(row, results) for row in table.rows]
        names = {name for row in rows for name in (*row.runs, *row.protocol_runs)}
        if names or name in FIRST:
            sections.append("\n".join(_section(name, table, rows, random)))
            row_runs |= names
    others = {name: run for name, run in results.items() if name not in row_runs}
    if others:
        sections.append(_others(others))
    if results:
        sections.append(_runs(results))
    return "\n".join([INTRODUCTION, _summary(results), *sections])


def _row(row: TableRow, results: Mapping[str, RecordedRun]) -> Row:
    settings, paper = (json.loads(experiment.to_json()) for experiment in (row.experiment_of(0), row.paper_experiment))
    runs = _runs_of(row.experiment, settings, results)
    if row.paper_protocol is None:
        return Row(row, runs, {}, _departures(settings, paper, runs))
    repeated = json.loads(row.experiment_of(0, paper_protocol=True).to_json())
    protocol_runs = _runs_of(row.paper_protocol.experiment or row.experiment, repeated, results)
    return Row(row, runs, protocol_runs, _departures(settings, paper, runs), _departures(repeated, paper, protocol_runs))


def _departures(settings: Mapping[str, Any], paper: Mapping[str, Any], runs: Mapping[str, RecordedRun]) -> list[Departure]:
    return departures(settings, paper, next(iter(runs.values())).missing_images if runs else {})


def _runs_of(experiment: str, settings: Mapping[str, Any], results: Mapping[str, RecordedRun]) -> dict[str, RecordedRun]:
    """The runs of an experiment with these settings, one per seed."""
    changes = overrides(settings, json.loads(load_experiment(experiment).to_json()))
    runs = {name: run for name, run in results.items() if run.experiment == experiment and run.overrides == changes}
    seeds = Counter(run.seed for run in runs.values())
    repeats = [name for name, run in runs.items() if seeds[run.seed] > 1]
    if repeats:
        raise UserError(f"These files hold the same experiment, overrides and seed: {', '.join(repeats)}. Remove all but one.")
    return runs


def _section(name: str, table: PaperTable, rows: Sequence[Row], random: np.random.Generator) -> Iterator[str]:
    numbers = _numbers(table, rows, random)
    yield f"## {table.title}\n"
    yield f"{table.paper}. `python -m keras_skin.reproduce {name}`\n"
    if numbers:
        yield "| row | trained on | test set | n | metric | mean (95 % interval) | seeds | the paper's number |"
        yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        first, reason = True, ""
        for split, task, metric in _keys(table):
            value = numbers.get((row.row.label, (split, task, metric)))
            if value is not None:
                heading = (row.row.label, _trained_on(row.runs)) if first else ("", "")
                cells = (*heading, _tested_on(row.runs, split), str(value.n), metric_label(task, metric), _interval(value))
                paper = _paper(row, row.departures, table, (split, task, metric))
                yield _line(*cells, _seeds(value), _NOT_COMPARABLE if paper == reason else paper)
                first = False
                reason = paper if paper.startswith(_NOT_COMPARABLE) else reason
    if numbers:
        yield ""
    yield from _missing(rows)
    yield from _printed(table, rows)
    if numbers:
        yield "The paper's claims:\n"
        for claim in table.claims:
            splits = [claim.split] if claim.split else table.splits
            order = ClaimedOrder(claim.text, splits, claim.task, claim.metric, claim.better, claim.than)
            verdict = judge(order, numbers, random)
            yield f"- **{verdict.outcome.capitalize()}**: {claim.text} {verdict.numbers}"
        yield ""
    yield from _prices(table, rows, numbers, random)


def _metrics(table: PaperTable) -> list[tuple[str, str]]:
    return [(task, metric) for task, metrics in table.metrics.items() for metric in metrics]


def _keys(table: PaperTable) -> list[Key]:
    return [(split, *key) for split in table.splits for key in _metrics(table)]


def _numbers(table: PaperTable, rows: Sequence[Row], random: np.random.Generator) -> dict[tuple[str, Key], Pooled]:
    """The pooled numbers of every row that has any."""
    numbers = {}
    for row in rows:
        for key in _keys(table):
            value = _pooled(row.runs.values(), key, random)
            if value is not None:
                numbers[row.row.label, key] = value
    return numbers


def _pooled(runs: Any, key: Key, random: np.random.Generator) -> Pooled | None:
    """Pools the runs, which must have measured the same images."""
    split, task, metric = key
    samples = [run.splits[split].sample(task, metric) for run in runs if split in run.splits]
    samples = [sample for sample in samples if sample is not None]
    if not samples:
        return None
    if len({len(sample.resamples) for sample in samples}) > 1:
        raise UserError(f"{metric_label(task, metric)}: not every recorded run has resamples of it. Record the runs again.")
    return pool(samples, random)


def _paper(row: Row, departing: Sequence[Departure], table: PaperTable, key: Key) -> str:
    """The paper's number, or why there is none to compare with."""
    split, task, metric = key
    reasons = [departure.text for departure in departing if not departure.comparable]
    value = row.published.get(split, {}).get(task, {}).get(metric)
    if value is None and split == "validation":
        value = row.published.get(table.splits[0], {}).get(task, {}).get(metric)
        reasons.append("other images: the validation split")
    if value is None:
        return "not printed"
    if reasons:
        return f"{_NOT_COMPARABLE}: {'; '.join(reasons)}"
    notes = [departure.text for departure in departing]
    return format_published(value) + (f" ({'; '.join(notes)})" if notes else "")


def _missing(rows: Sequence[Row]) -> Iterator[str]:
    texts = []
    for row in rows:
        for runs, kind in ((row.runs, ""), (row.protocol_runs, " (image-level)")):
            if (kind == "" or row.row.paper_protocol) and len(runs) < row.row.seeds:
                texts.append(
                    f"{row.row.label}{kind}" + (f", {row.row.seeds - len(runs)} of {row.row.seeds} seeds" if runs else "")
                )
    if texts:
        yield f"Not measured yet: {'; '.join(texts)}.\n"


def _printed(table: PaperTable, rows: Sequence[Row]) -> Iterator[str]:
    """What the paper prints, for its own images, split and length of training."""
    split = table.splits[0]
    values = {
        row.row.label: {key: row.published.get(split, {}).get(key[0], {}).get(key[1]) for key in _metrics(table)} for row in rows
    }
    columns = [key for key in _metrics(table) if any(numbers[key] is not None for numbers in values.values())]
    if columns:
        yield "The paper prints, for its own model, images and split:\n"
        yield _line("row", *(metric_label(*key) for key in columns))
        yield "|---" * (1 + len(columns)) + "|"
        for label, numbers in values.items():
            if any(value is not None for value in numbers.values()):
                yield _line(label, *(format_published(numbers[key]) for key in columns))
        yield ""


def _prices(
    table: PaperTable, rows: Sequence[Row], numbers: Mapping[tuple[str, Key], Pooled], random: np.random.Generator
) -> Iterator[str]:
    lines = []
    for row in rows:
        for split, task, metric in _keys(table):
            measured = numbers.get((row.row.label, (split, task, metric)))
            other = row.protocol_split if row.protocol_split and split == table.splits[0] else split
            leaky = _pooled(row.protocol_runs.values(), (other, task, metric), random)
            if measured and leaky:
                price = difference(leaky, measured, random)
                limits = f" ({format_difference(price.ci95[0])} to {format_difference(price.ci95[1])})" if price.ci95 else ""
                cells = (row.row.label, metric_label(task, metric), _interval(leaky), _interval(measured))
                paper = _paper(row, row.protocol_departures, table, (split, task, metric))
                lines.append(_line(*cells, f"{format_difference(price.value)}{limits}", paper))
    if lines:
        yield "The price of the leak:\n"
        yield "| row | metric | image-level protocol | leak-free | price (95 % interval) | the paper's number |"
        yield "|---|---|---|---|---|---|"
        yield from lines
        yield ""


def _summary(results: Mapping[str, RecordedRun]) -> str:
    if not results:
        return "No run is recorded yet: `python tools/record_result.py RUN` records one.\n"
    longest = max(results, key=lambda name: results[name].training_minutes)
    minutes = results[longest].training_minutes
    text = f"{len(results)} runs are recorded. The longest training, `{longest}`, took {minutes:.0f} minutes"
    measured = [name for name in results if results[name].peak_memory_mib]
    if measured:
        largest = max(measured, key=lambda name: results[name].peak_memory_mib or 0)
        text += f"; the largest peak memory was {(results[largest].peak_memory_mib or 0) / 1024:.1f} GiB (`{largest}`)"
    return f"{text}. Minutes are wall time: pauses and other programs that ran beside a training are part of them.\n"


def _others(results: Mapping[str, RecordedRun]) -> str:
    lines = [
        "## Other runs\n",
        "Recorded runs that belong to no row of a table.\n",
        "| run | overrides | trained on | test set | n | metric | measured (95 % interval) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in results.items():
        heading = (f"`{name}`", _changes(run), _trained_on({name: run}))
        for split, measured in run.splits.items():
            if split == "validation" and "test" in run.splits:
                continue
            for task, metrics in HEADLINE.items():
                for metric in metrics:
                    value = measured.metrics.get(task, {}).get(metric)
                    if value:
                        limits = f" ({value['ci95'][0]:.4f} to {value['ci95'][1]:.4f})" if value["ci95"] else ""
                        cells = (_tested_on({name: run}, split), str(value["n"]), metric_label(task, metric))
                        lines.append(_line(*heading, *cells, f"{value['value']:.4f}{limits}"))
                        heading = ("", "", "")
    return "\n".join([*lines, ""])


def _runs(results: Mapping[str, RecordedRun]) -> str:
    lines = [
        "## Runs\n",
        "| file | experiment | overrides | seed | epochs | minutes | peak memory | machine | finished | split | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in results.items():
        memory = f"{run.peak_memory_mib / 1024:.1f} GiB" if run.peak_memory_mib else "unknown"
        machine = ", ".join([*run.machine["gpus"], f"{run.machine['processor']}, {run.machine['cpus']} cores"])
        facts = (str(run.seed), str(run.epochs), f"{run.training_minutes:.0f}", memory, machine, run.finished_on or "unknown")
        hashes = (f"`{run.split_sha256[:12]}`", f"`{run.commit[:10]}`" if run.commit else "unknown")
        lines.append(_line(f"`{name}`", f"`{run.experiment}`", _changes(run), *facts, *hashes))
    return "\n".join([*lines, ""])


def _changes(run: RecordedRun) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in run.overrides.items()) or "none"


def _trained_on(runs: Mapping[str, RecordedRun]) -> str:
    counts = next(iter(runs.values())).trained_on
    return ", ".join(f"{count:,} images of {name}" for name, count in counts.items())


def _tested_on(runs: Mapping[str, RecordedRun], split: str) -> str:
    """The split's name, and a warning where images of one patient are in two splits."""
    stamps = {
        value["stamp"]
        for run in runs.values()
        if split in run.splits
        for metrics in run.splits[split].metrics.values()
        for value in metrics.values()
        if value.get("stamp")
    }
    return split_label(split) + (f" ({'; '.join(sorted(stamps))})" if stamps else "")


def _interval(value: Pooled) -> str:
    limits = value.ci95
    return f"{value.value:.4f}" + (f" ({limits[0]:.4f} to {limits[1]:.4f})" if limits else "")


def _seeds(value: Pooled) -> str:
    if value.spread is None:
        return "1"
    return f"{len(value.values)}, sd {value.spread:.4f}, {min(value.values):.4f} to {max(value.values):.4f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="DIR", type=Path, default=RESULTS, help="folder of the recorded runs")
    parser.add_argument("--page", metavar="FILE", type=Path, default=PAGE, help="file to write")
    options = parser.parse_args(arguments)

    def write() -> None:
        text = results_page(read_results(options.results))
        with atomic_path(options.page) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"Wrote {options.page}")

    return exit_code(write, "Interrupted.")


if __name__ == "__main__":
    sys.exit(main())

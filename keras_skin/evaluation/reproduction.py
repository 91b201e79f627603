"""The rows of a paper's table: published and measured numbers, the price of the leak, and the paper's claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from keras_skin.evaluation.comparison import LOWER_IS_BETTER
from keras_skin.evaluation.departures import Departure
from keras_skin.evaluation.measured_run import read_run
from keras_skin.evaluation.report import difference as gap
from keras_skin.evaluation.report import metric_label, published_results, split_label
from keras_skin.evaluation.seeds import RESAMPLES, DifferenceOfMeans, Pooled, Sample, difference, pool, run_samples
from keras_skin.experiment.paper import Published
from keras_skin.registry import UserError

Key = tuple[str, str, str]
"""Split, task and metric."""


@dataclass(frozen=True)
class RowRuns:
    """A row of a table and its runs.

    Attributes:
        label: of the row.
        experiment: name of the experiment.
        overrides: `KEY=VALUE` texts.
        departures: what is not as in the paper.
        length: the training's length, in words.
        paper: the `paper` block of the experiment that holds the printed numbers.
        runs: folders of the finished leak-free runs, one per seed.
        protocol_runs: folders of the finished runs under the paper's image-level protocol.
        protocol_split: the split of those that stands for each split of the table.
        missing: for each run that is not finished, why.
        has_protocol: whether the table asks for the image-level protocol in this row.
    """

    label: str
    experiment: str
    overrides: Sequence[str] = ()
    departures: Sequence[Departure] = ()
    length: str = ""
    paper: Mapping[str, Any] = field(default_factory=dict)
    runs: Sequence[Path] = ()
    protocol_runs: Sequence[Path] = ()
    protocol_split: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    has_protocol: bool = False


@dataclass(frozen=True)
class Line:
    """One metric of one row on one split; `price` is image-level minus leak-free."""

    split: str
    task: str
    metric: str
    published: Published | None
    measured: Pooled | None
    protocol: Pooled | None = None
    price: DifferenceOfMeans | None = None

    @property
    def label(self) -> str:
        """The metric's name in tables."""
        return metric_label(self.task, self.metric)

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return gap(self.measured.value if self.measured else None, self.published)

    @property
    def protocol_difference(self) -> float | None:
        """Measured under the image-level protocol minus published."""
        return gap(self.protocol.value if self.protocol else None, self.published)


@dataclass(frozen=True)
class RowResult:
    """The lines of one row, and sentences about what is missing in it."""

    row: RowRuns
    lines: Sequence[Line]
    problems: Sequence[str] = ()
    synthetic: bool = False


class Outcome(StrEnum):
    """What the numbers say about a claim."""

    SHOWED_UP = "showed up"
    DID_NOT_SHOW_UP = "did not show up"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class ClaimedOrder:
    """A claim that the row `better` has a better metric than the row `than`, on the first of `splits` that both measured."""

    text: str
    splits: Sequence[str]
    task: str
    metric: str
    better: str
    than: str


@dataclass(frozen=True)
class Verdict:
    """A claim and what the numbers of a split say about it; `reason` where it was not measured."""

    claim: ClaimedOrder
    outcome: Outcome
    difference: DifferenceOfMeans | None = None
    split: str = ""
    reason: str = ""

    @property
    def numbers(self) -> str:
        """The difference with its interval, or why there is none."""
        if self.difference is None:
            return f"There is {self.reason}."
        claim = self.claim
        label = metric_label(claim.task, claim.metric)
        text = f"{label} of {claim.better} minus {claim.than}: {_signed(self.difference.value)}"
        if self.difference.ci95:
            text += f" (95 % interval {_signed(self.difference.ci95[0])} to {_signed(self.difference.ci95[1])})"
        if not self.difference.paired:
            text += ", on different images"
        if self.split != claim.splits[0]:
            text += f", {split_label(self.split)}"
        return f"{text}."

    @property
    def sentence(self) -> str:
        """The outcome, the claim and the numbers."""
        return f"{self.outcome.capitalize()}: {self.claim.text} {self.numbers}"


def measure_row(
    row: RowRuns, splits: Sequence[str], metrics: Mapping[str, Sequence[str]], random: np.random.Generator
) -> RowResult:
    """Pools the seeds of a row, and compares the two protocols.

    Args:
        row: the row and its runs.
        splits: those that are compared.
        metrics: those of each task that are shown.
        random: draws runs and shuffles.
    """
    lines, problems = [], []
    synthetic = False
    for split in splits:
        samples, run_problems, is_synthetic = _samples(row.runs, split, metrics)
        protocol_samples, protocol_problems, is_protocol_synthetic = _samples(
            row.protocol_runs, row.protocol_split.get(split, split), metrics
        )
        problems += [*run_problems, *protocol_problems]
        synthetic = synthetic or is_synthetic or is_protocol_synthetic
        for task, names in metrics.items():
            for metric in names:
                published = published_results(row.paper).get(split, {}).get(task, {}).get(metric)
                measured = _pooled(samples, task, metric, random)
                protocol = _pooled(protocol_samples, task, metric, random)
                if measured or protocol or published is not None:
                    price = difference(protocol, measured, random) if protocol and measured else None
                    lines.append(Line(split, task, metric, published, measured, protocol, price))
    return RowResult(row, lines, list(dict.fromkeys(problems)), synthetic)


def judge(claim: ClaimedOrder, measured: Mapping[tuple[str, Key], Pooled], random: np.random.Generator) -> Verdict:
    """What the numbers say about a claim.

    It showed up if the 95 % interval of the difference excludes 0 on the claimed side, and did not if it excludes 0 on the other.

    Args:
        claim: names two rows and a metric.
        measured: for each row's label and key its numbers.
        random: shuffles, where the rows measured different images.
    """
    rows = (claim.better, claim.than)
    sides = {split: [measured.get((label, (split, claim.task, claim.metric))) for label in rows] for split in claim.splits}
    split = next((split for split, pair in sides.items() if None not in pair), claim.splits[0])
    better, than = sides[split]
    if better is None or than is None:
        labels = [label for label, side in zip(rows, (better, than), strict=True) if side is None]
        return Verdict(claim, Outcome.NOT_MEASURED, reason=f"no result of {' and of '.join(labels)}")
    result = difference(better, than, random)
    if result.ci95 is None:
        return Verdict(claim, Outcome.NOT_MEASURED, reason="no interval, because only one patient or lesion was measured")
    low, high = result.ci95
    if claim.metric.partition("/")[0] in LOWER_IS_BETTER:
        low, high = -high, -low
    outcome = Outcome.SHOWED_UP if low > 0 else Outcome.DID_NOT_SHOW_UP if high < 0 else Outcome.UNDECIDED
    return Verdict(claim, outcome, result, split)


def measured_numbers(results: Iterable[RowResult]) -> dict[tuple[str, Key], Pooled]:
    """The leak-free numbers of all rows, as `judge` takes them."""
    return {
        (result.row.label, (line.split, line.task, line.metric)): line.measured
        for result in results
        for line in result.lines
        if line.measured is not None
    }


def _samples(
    runs: Sequence[Path], split: str, metrics: Mapping[str, Sequence[str]]
) -> tuple[list[dict[tuple[str, str], Sample]], list[str], bool]:
    """The samples of each run that measured the split on the images of the first, sentences about the others, and whether any
    image was drawn by a program."""
    samples: list[dict[tuple[str, str], Sample]] = []
    problems = []
    images, synthetic = "", False
    for path in runs:
        try:
            run = read_run(path, split)
        except UserError as error:
            problems.append(str(error))
            continue
        images = images or run.images_sha256
        if run.images_sha256 != images:
            problems.append(f"{path.name} measured other images of '{split}' than the first seed and is left out.")
            continue
        synthetic = synthetic or run.folder.synthetic
        samples.append(run_samples(run, metrics, RESAMPLES))
    return samples, problems, synthetic


def _pooled(
    samples: Sequence[Mapping[tuple[str, str], Sample]], task: str, metric: str, random: np.random.Generator
) -> Pooled | None:
    values = [sample[task, metric] for sample in samples if (task, metric) in sample]
    return pool(values, random) if values else None


def _signed(value: Any) -> str:
    return f"{value:+.4f}"

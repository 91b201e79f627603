"""Several trainings of one experiment counted as one: mean, spread over seeds, and intervals of the mean and of differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_skin.evaluation.bootstrap import interval, resampled
from keras_skin.evaluation.measured_run import MeasuredRun
from keras_skin.evaluation.measures import task_measures
from keras_skin.registry import UserError

RESAMPLES = 1000


@dataclass(frozen=True)
class Sample:
    """One metric of one run.

    Attributes:
        value: on the `n` measured images.
        n: number of images behind it.
        resamples: (R,) its values on bootstrap resamples of the patients, lesions or images. Runs with the same `images` and R
            have drawn the same resamples, so that their differences are paired.
        images: hash of the measured images, see `MeasuredRun.images_sha256`.
    """

    value: float
    n: int
    resamples: np.ndarray
    images: str


@dataclass(frozen=True)
class Pooled:
    """One metric of the trainings of one experiment: `values` of the seeds, and resamples of their mean."""

    values: tuple[float, ...]
    n: int
    resamples: np.ndarray
    images: str

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def ci95(self) -> list[float] | None:
        """95 % percentile interval of the mean: other images and, with several seeds, other trainings."""
        return interval(self.resamples)["ci95"]

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """`{"value", "ci95", "n"}`, as in metrics.json."""
        return {"value": self.value, "ci95": self.ci95, "n": self.n}


@dataclass(frozen=True)
class DifferenceOfMeans:
    """A difference with its 95 % interval. `paired`: both sides measured the same images, and resamples are the same."""

    value: float
    ci95: list[float] | None
    paired: bool


def run_samples(
    run: MeasuredRun, metrics: Mapping[str, Sequence[str]], resamples: int = RESAMPLES
) -> dict[tuple[str, str], Sample]:
    """Some metrics of one run: `{(task, metric): sample}`. Tasks and metrics that the run has not are left out.

    Args:
        run: one split of a finished run.
        metrics: names for each task.
        resamples: of the bootstrap.
    """
    samples = {}
    for task, measure in task_measures(run.predictions, run.classes).items():
        names = [name for name in metrics.get(task, ()) if not np.isnan(measure.values.get(name, np.nan))]
        values = resampled(measure.statistics, names, run.groups[measure.rows], resamples)
        for name in names:
            value, count = float(measure.values[name]), int(measure.counts[name])
            samples[task, name] = Sample(value, count, values[name], run.images_sha256)
    return samples


def pool(samples: Sequence[Sample], random: np.random.Generator) -> Pooled:
    """Pools the seeds of one experiment: each resample draws images and, with replacement, as many of the runs.

    Args:
        samples: one metric of at least one run, all on the same images.
        random: draws the runs.

    Raises:
        UserError: if the runs measured different images.
    """
    if len({sample.images for sample in samples}) > 1:
        raise UserError("The seeds of one experiment measured different images: their mean has no meaning.")
    stack = np.stack([sample.resamples for sample in samples])
    mean = mean_of_runs(stack, drawn_runs(len(samples), stack.shape[1], random))
    values, count = tuple(sample.value for sample in samples), min(sample.n for sample in samples)
    return Pooled(values, count, mean, samples[0].images)


def difference(first: Pooled, second: Pooled, random: np.random.Generator) -> DifferenceOfMeans:
    """The first minus the second.

    On the same images, resamples are subtracted one by one: a paired interval. On different images (another split), the
    resamples of the second are shuffled first, so that both are drawn independently. Images that happen to be in both are then
    counted as independent, which makes the interval too wide rather than too narrow.

    Args:
        first: a metric of one experiment.
        second: the same metric of another one, with as many resamples.
        random: shuffles.
    """
    paired = first.images == second.images
    other = second.resamples if paired else random.permutation(second.resamples)
    return DifferenceOfMeans(first.value - second.value, interval(first.resamples - other)["ci95"], paired)


def drawn_runs(count: int, resamples: int, random: np.random.Generator) -> np.ndarray:
    """(K, R) how often each of K runs is drawn in each resample: K draws with replacement."""
    return random.multinomial(count, np.full(count, 1 / count), size=resamples).T


def mean_of_runs(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(R,) mean of the drawn runs' (K, R) values. A run that was not drawn has weight 0, also where its value is NaN."""
    return np.where(times > 0, times * values, 0.0).sum(axis=0) / len(values)

"""Percentile bootstrap over images, or over groups of images that belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# A block of resamples holds at most this many weights (float64: 32 MiB), so that memory does not grow with the data set.
BLOCK_ELEMENTS = 2**22

Statistics = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def weight_blocks(groups: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draws resamples as weights: how often each image occurs in each resample.

    Groups are drawn with replacement, as many as the sample has. All images of a group are drawn together, because images of one
    patient are not independent.

    Args:
        groups: (N,) group of each image; all different = a bootstrap over images.
        resamples: number of resamples.
        seed: resamples are a function of it, of `resamples` and of the groups.

    Yields:
        (R, N) float64 blocks whose R add up to `resamples`.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1
    random = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // max(len(member), 1))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        indices = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(indices.ravel(), minlength=rows * count).reshape(rows, count)[:, member].astype(np.float64)


def bootstrap(
    statistics: Statistics,
    values: Mapping[str, float],
    counts: Mapping[str, int],
    groups: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Puts a 95 % percentile interval around each value.

    Args:
        statistics: maps (R, N) weights to the metrics of each resample, (R,) each, NaN where one is undefined.
        values: the metrics of the whole sample; NaN is skipped.
        counts: number of images behind each metric.
        groups: (N,) group of each image.
        resamples: number of resamples; 0 gives no intervals.
        seed: of the resamples.

    Returns:
        `{metric: {"value": v, "ci95": [low, high], "n": n}}`. `ci95` is None where there is nothing to resample (one group,
        or fewer than two resamples in which the metric is defined). Resamples in which a metric is undefined are skipped; their
        number, where it is not 0, stands under `"resamples_skipped"`.
    """
    defined = [name for name, value in values.items() if not np.isnan(value)]
    samples = resampled(statistics, defined, groups, resamples, seed)
    return {name: {"value": float(values[name]), **interval(samples[name]), "n": int(counts[name])} for name in defined}


def resampled(
    statistics: Statistics, names: Sequence[str], groups: np.ndarray, resamples: int = 1000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Some metrics on every resample, (R,) each; empty where there is nothing to resample. Arguments as for `bootstrap`."""
    blocks: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in names}
    if names and resamples and len(np.unique(np.asarray(groups))) > 1:
        for weights in weight_blocks(groups, resamples, seed):
            block = statistics(weights)
            for name in names:
                blocks[name].append(np.asarray(block[name]))
    return {name: np.concatenate(values) for name, values in blocks.items()}


def interval(sample: np.ndarray) -> dict[str, Any]:
    """The 95 % percentile interval of a metric's resamples, `{"ci95": [low, high]}`, as in `bootstrap`."""
    usable = sample[~np.isnan(sample)]
    skipped = {"resamples_skipped": len(sample) - len(usable)} if len(usable) < len(sample) else {}
    if len(usable) < 2:
        return {"ci95": None, **skipped}
    low, high = np.percentile(usable, [2.5, 97.5])
    return {"ci95": [float(low), float(high)], **skipped}


def weighted_means(columns: Mapping[str, np.ndarray]) -> Statistics:
    """Statistics for `bootstrap`: the mean of each column over the images where it is not NaN.

    Args:
        columns: name -> (N,) values.

    Returns:
        A function of (R, N) weights.
    """
    names = list(columns)
    table = np.stack([np.asarray(columns[name], np.float64) for name in names], axis=1)
    known = ~np.isnan(table)
    filled = np.where(known, table, 0.0)

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights @ known.astype(np.float64)
        sums = weights @ filled
        means = np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
        return {name: means[:, index] for index, name in enumerate(names)}

    return statistics

"""Numbers of explanations: means with intervals, what they are called, and which claims they fail, in plain words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from keras_skin.evaluation.bootstrap import bootstrap, weighted_means

SAME = 0.5
"""Mean rank correlation from which maps of shuffled weights count as the same."""
FEW = 20
"""Images below which an interval that includes 0 says only that there are few of them."""
LARGE_GAP = 0.25
"""Share of what the logits moved from which SHAP values that lack it are not to be trusted."""

METRICS = {
    "relevance_inside": ("Relevance inside the lesion", "share of the map inside the true mask; 1 is all"),
    "relevance_inside_gaussian": ("the same of a centred Gaussian", "what a blob in the middle of every picture gets"),
    "relevance_inside_gain": ("map minus Gaussian", "above 0: better than the blob"),
    "pointing_game": ("Pointing game", "share of images whose strongest point lies inside the true mask"),
    "pointing_game_gaussian": ("the same of a centred Gaussian", ""),
    "lesion_share": ("Lesion's share of the picture", "what a map that is the same everywhere gets"),
    "iou_true_mask": ("IoU with the true mask", "of the pixels with at least half of the map's maximum"),
    "iou_predicted_mask": ("IoU with the predicted mask", "the same, as in paper 000"),
    "deletion_auc": ("Deletion, area under the curve", "score while the most relevant pixels go first; low is good"),
    "deletion_gain_gaussian": ("Gaussian minus map", "above 0: better than the blob"),
    "deletion_gain_random": ("random map minus map", "above 0: better than chance"),
    "insertion_auc": ("Insertion, area under the curve", "score while the most relevant pixels come first; high is good"),
    "insertion_gain_gaussian": ("map minus Gaussian", "above 0: better than the blob"),
    "insertion_gain_random": ("map minus random map", "above 0: better than chance"),
    "entropy": ("Entropy of the map", "0: one point, 1: the same everywhere"),
    "entropy_of_right": ("of right predictions", ""),
    "entropy_of_wrong": ("of wrong predictions", ""),
    "entropy_tells_errors": ("Entropy predicts errors (AUC)", "0.5: it does not; paper 003 claims that it does"),
    "shuffled_correlation": ("Correlation with shuffled weights", "rank correlation; near 1: maps do not see what was learnt"),
    "no_evidence": ("No positive evidence", "share of images whose map is blank"),
    "relative_gap": ("Not attributed", "mean gap of the SHAP values, as a share of what the logits moved"),
}
"""Name and meaning of each measure, in the order of the report."""

_ORDER = list(METRICS)
_CLAIMS = {
    "relevance_inside_gain": ("relevance inside the lesion", "relevance_inside", "{map:.2f} against {blob:.2f}", 1),
    "deletion_gain_gaussian": ("deletion", "deletion_auc", "area {map:.3f} against {blob:.3f}, low is good", -1),
    "insertion_gain_gaussian": ("insertion", "insertion_auc", "area {map:.3f} against {blob:.3f}", 1),
}


def summarise(table: pd.DataFrame, groups: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Means over the images of one layer with bootstrap intervals, `{metric: {"value", "ci95", "n"}}`.

    Beside the columns of the table: IoU with the predicted mask by predicted class (`iou_predicted_mask/<class>`), entropy of
    right and of wrong predictions, and `entropy_tells_errors`, the probability that a wrong prediction has the more diffuse map.

    Args:
        table: rows of one layer as in `Faithfulness.table`.
        groups: (N,) patient, lesion or image of each row.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    columns = {name: table[name].to_numpy(np.float64) for name in table.columns if name in METRICS}
    if "iou_predicted_mask" in columns:
        for name in sorted(set(table["explained"]) - {""}):
            of_class = (table["explained"] == name).to_numpy()
            columns[f"iou_predicted_mask/{name}"] = np.where(of_class, columns["iou_predicted_mask"], np.nan)
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    correct, diffuse = table["correct"].to_numpy(np.float64), table["entropy"].to_numpy(np.float64)
    for name, wanted in (("entropy_of_right", 1.0), ("entropy_of_wrong", 0.0)):
        values = np.where(correct == wanted, diffuse, np.nan)
        if not np.isnan(values).all():
            columns[name] = values
    whole = {name: float(np.nanmean(column)) for name, column in columns.items()}
    counts = {name: int(np.count_nonzero(~np.isnan(column))) for name, column in columns.items()}
    means = weighted_means(columns)
    if "entropy_of_right" not in columns or "entropy_of_wrong" not in columns:
        return bootstrap(means, whole, counts, groups, resamples, seed)
    error_auc = _error_auc(diffuse, correct)
    whole["entropy_tells_errors"] = float(error_auc(np.ones((1, len(table))))[0])
    counts["entropy_tells_errors"] = counts["entropy_of_right"] + counts["entropy_of_wrong"]
    return bootstrap(
        lambda weights: {**means(weights), "entropy_tells_errors": error_auc(weights)}, whole, counts, groups, resamples, seed
    )


def explanation_rows(
    metrics: Mapping[str, Mapping[str, Any]], published: Mapping[str, float | str]
) -> Iterator[tuple[str, list[tuple[str, str, float | str | None, Mapping[str, Any]]]]]:
    """For each layer its name and (label, meaning, published value, measured value), in the order of `METRICS`."""
    for layer, values in metrics.items():
        names = sorted(values, key=lambda name: _ORDER.index(name.partition("/")[0]))
        rows = []
        for name in names:
            plain, _, of_class = name.partition("/")
            label, meaning = METRICS[plain]
            text = f"{label}, {of_class}" if of_class else label
            rows.append((text, "" if of_class else meaning, published.get(name), values[name]))
        yield layer, rows


def red_lines(layer: str, metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each measure in which maps are no better than a centred Gaussian, one if shuffled weights give the same
    maps, one if SHAP values do not add up; none where they pass, or where less than `FEW` images decide nothing."""
    lines = []
    for gain, (subject, measure, numbers, sign) in _CLAIMS.items():
        if gain not in metrics:
            continue
        value, interval, count = (metrics[gain][key] for key in ("value", "ci95", "n"))
        if value > 0 and interval and interval[0] > 0:
            continue
        if count < FEW and interval and interval[0] <= 0 <= interval[1]:
            continue  # says only that there are few images
        verdict = "no better" if value <= 0 else "not shown to be better"
        score = metrics[measure]["value"]
        compared = numbers.format(map=score, blob=score - sign * value)
        spread = f", 95 % interval {interval[0]:+.3f} to {interval[1]:+.3f}" if interval else ", too few images for an interval"
        lines.append(
            f"{layer}: by {subject}, the maps are {verdict} than a Gaussian in the middle of every picture ({compared}; gain "
            f"{value:+.3f}{spread}, {count} images)."
        )
    shuffled = metrics.get("shuffled_correlation")
    if shuffled and shuffled["value"] >= SAME:
        lines.append(
            f"{layer}: a model with shuffled weights gives nearly the same maps (rank correlation {shuffled['value']:.2f}, "
            f"{shuffled['n']} images): they do not show what was learnt."
        )
    gap = metrics.get("relative_gap")
    if gap and gap["value"] >= LARGE_GAP:
        lines.append(
            f"{layer}: the SHAP values leave {gap['value']:.0%} of what the logits moved unattributed ({gap['n']} images) and "
            "are not to be trusted. Gradients do not see a switch, such as that of a field that is not known."
        )
    return lines


def doubts(metrics: Mapping[str, Any]) -> list[str]:
    """Warnings about the explanations of a run, from the content of its metrics.json."""
    return [line for layer, values in metrics.get("explanations", {}).items() for line in red_lines(layer, values)]


def _error_auc(diffuse: np.ndarray, correct: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The AUC of entropy as a sign of errors, of (R, N) weights."""
    usable = ~np.isnan(diffuse)
    wrong, right = np.flatnonzero(usable & (correct == 0)), np.flatnonzero(usable & (correct == 1))
    difference = diffuse[wrong][:, None] - diffuse[right][None]
    wins = (difference > 0) + 0.5 * (difference == 0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        pairs = weights[:, wrong].sum(axis=1) * weights[:, right].sum(axis=1)
        won = np.einsum("rw,wc,rc->r", weights[:, wrong], wins, weights[:, right])
        return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)

    return statistic

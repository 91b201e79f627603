"""What is written of SHAP values: a table, the summary of all patients, and each patient's own figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from keras_skin.explain.samples import ExplainSample, file_name
from keras_skin.explain.shap_values import Attributions
from keras_skin.figures import explanations as figures
from keras_skin.registry import atomic_path


def write_summary(
    folder: Path, found: Attributions, samples: Sequence[ExplainSample], classes: Sequence[str], synthetic: bool = False
) -> list[tuple[Path, str]]:
    """Writes `metadata_shap.csv`, `metadata_shap_bar.png` and `metadata_shap_beeswarm.png`.

    Returns:
        The figures and their captions.
    """
    with atomic_path(folder / "metadata_shap.csv") as path:
        found.table([sample.image_id for sample in samples], classes).to_csv(path, index=False)
    note = f"not attributed: {found.relative_gap:.1%} of the logits' distance from the background's mean"
    bars = figures.attribution_bars(
        found.values, found.groups, classes, folder / "metadata_shap_bar.png", note=note, synthetic=synthetic
    )
    dots = figures.beeswarm(
        found.values, found.groups, classes, folder / "metadata_shap_beeswarm.png", _ranks(found.groups, samples), synthetic
    )
    subject = f"SHAP values of clinical fields and of the image as a whole, {len(samples)} images"
    return [(bars, f"{subject}: mean strength by class."), (dots, f"{subject}: each of them.")]


def write_waterfall(
    folder: Path,
    found: Attributions,
    row: int,
    index: int,
    sample: ExplainSample,
    classes: Sequence[str],
    synthetic: bool = False,
) -> Path:
    """Writes `metadata_shap_<class>.png`: how one patient's logit of one class comes about."""
    answers: Mapping[str, str] = sample.metadata or {}
    names = [f"{group} = {answers[group] or 'not known'}" if group in answers else group for group in found.groups]
    return figures.waterfall(
        found.values[row, :, index],
        names,
        float(found.base[index]),
        float(found.logits[row, index]),
        folder / f"metadata_shap_{file_name(classes[index])}.png",
        title=[str(sample.image_id), f"logit of {classes[index]}"],
        synthetic=synthetic,
    )


def _ranks(groups: Sequence[str], samples: Sequence[ExplainSample]) -> dict[str, np.ndarray]:
    """Fields whose answers are numbers, as ranks in 0..1."""
    ranks = {}
    for group in groups:
        answers = [str((sample.metadata or {}).get(group, "")) for sample in samples]
        numbers = np.array([_number(answer) for answer in answers])
        known = ~np.isnan(numbers)
        if known.sum() > 1 and all(yes or answer == "" for yes, answer in zip(known, answers, strict=True)):
            numbers[known] = (rankdata(numbers[known]) - 1) / max(known.sum() - 1, 1)
            ranks[group] = numbers
    return ranks


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan

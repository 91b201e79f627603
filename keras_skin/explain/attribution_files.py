"""Files of SHAP values: a table, the summary of all patients, and a figure for each patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.explain.map_files import Sheet
from keras_skin.explain.samples import ExplainSample, file_name
from keras_skin.explain.shap_values import Attributions
from keras_skin.figures import explanations as figures
from keras_skin.registry import atomic_path, escape_table


def write_summary(
    folder: Path, attributions: Attributions, samples: Sequence[ExplainSample], classes: Sequence[str], synthetic: bool = False
) -> list[Sheet]:
    """Writes `metadata_shap.csv`, `metadata_shap_bar.png` and `metadata_shap_beeswarm.png`; returns the figures."""
    with atomic_path(folder / "metadata_shap.csv") as path:
        escape_table(attributions.table([sample.image_id for sample in samples], classes)).to_csv(path, index=False)
    values, groups = attributions.values, attributions.groups
    note = f"not attributed: {attributions.relative_gap:.1%} of the logits' distance from the background's mean"
    bars = figures.attribution_bars(values, groups, classes, folder / "metadata_shap_bar.png", note=note, synthetic=synthetic)
    dots = figures.beeswarm(values, groups, classes, folder / "metadata_shap_beeswarm.png", _ranks(groups, samples), synthetic)
    subject = f"SHAP values of clinical fields and of the image as a whole, {len(samples)} images"
    return [Sheet(bars, f"{subject}: mean strength by class."), Sheet(dots, f"{subject}: one point per image.")]


def write_waterfall(
    folder: Path,
    attributions: Attributions,
    row: int,
    index: int,
    sample: ExplainSample,
    classes: Sequence[str],
    synthetic: bool = False,
) -> Path:
    """Writes `metadata_shap_<class>.png`: the logit of one class as the sum of the fields' contributions, for the
    patient in one row of `attributions`."""
    answers: Mapping[str, str] = sample.metadata or {}
    names = [f"{group} = {answers[group] or 'not known'}" if group in answers else group for group in attributions.groups]
    return figures.waterfall(
        attributions.values[row, :, index],
        names,
        float(attributions.base[index]),
        float(attributions.logits[row, index]),
        folder / f"metadata_shap_{file_name(classes[index])}.png",
        title=[str(sample.image_id), f"logit of {classes[index]}"],
        synthetic=synthetic,
    )


def _ranks(groups: Sequence[str], samples: Sequence[ExplainSample]) -> dict[str, np.ndarray]:
    """Returns the answers of numeric fields as ranks in 0..1, NaN for a missing answer."""
    ranks = {}
    for group in groups:
        answers = [str((sample.metadata or {}).get(group, "")) for sample in samples]
        numbers = pd.to_numeric(pd.Series(answers), errors="coerce")
        if numbers.count() > 1 and not any(np.array(answers)[numbers.isna()]):
            ranks[group] = ((numbers.rank() - 1) / (numbers.count() - 1)).to_numpy(float)
    return ranks

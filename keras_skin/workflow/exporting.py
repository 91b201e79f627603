"""The exports of a run: editions, the content of their model cards, and their agreement with the trained model."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_skin.data.datasets import readers
from keras_skin.data.images.cache import PRESETS, cache_path
from keras_skin.data.images.load import load_image
from keras_skin.data.images.preprocess import refuse_export
from keras_skin.evaluation.evaluate import tested_splits
from keras_skin.evaluation.explanations import doubts
from keras_skin.evaluation.report import comparison_rows, split_label
from keras_skin.export.about import describe_agreement, write_about
from keras_skin.export.agreement import measure_agreement
from keras_skin.export.contract import CONTRACT
from keras_skin.export.endpoints import Endpoints, Segmenter
from keras_skin.export.examples import WARM_UP
from keras_skin.export.saved_model import export_model
from keras_skin.registry import UserError, atomic_path
from keras_skin.run_folder import EXPORTS, PRESET
from keras_skin.version import __version__
from keras_skin.workflow.opened_run import Run, build_model, load_run
from keras_skin.workflow.predictor import describe_prediction, shift_logits
from keras_skin.workflow.prepare import read_rows
from keras_skin.workflow.segmenter import describe_segmenter

log = logging.getLogger("keras_skin")

COMPARED = 32
"""Images that agreement is measured on."""


def export_run(run: Run, edition: str, compared: pd.DataFrame | None, out: Path | None = None) -> Path:
    """Writes the next version of one edition of a trained model.

    Args:
        run: the finished run, its model in float32.
        edition: one of `EDITIONS`.
        compared: rows of one split, with its name in `split`, on which agreement with the trained model is measured; None leaves
            that out.
        out: the folder of the edition's folder; default: the run.

    Returns:
        The version's folder.

    Raises:
        UserError: if the run's model cannot be exported, or not so.
    """
    if run.experiment.cuts_lesions and run.segmenter is None:
        raise UserError(
            "This run's model takes lesions cut out with the data set's own masks, which no client can send: it cannot be "
            "exported. Train it with segmenter.run or segmenter.preset."
        )
    refuse_export(run.preprocessing)
    exact = edition != "bfloat16"
    exported = run if exact else _in_bfloat16(run)
    version = export_model(
        exported.model,
        (out or run.path) / EXPORTS[edition],
        classes=run.classes,
        image_size=run.experiment.image_size,
        name=run.experiment.model.name,
        preprocessing=run.preprocessing,
        metadata=run.metadata,
        segmenter=_segmenter(run.segmenter, exact) if run.segmenter else None,
        synthetic=run.options.demo,
        extra=card_facts(run),
        edition=edition,
        predictor=exported.predictor,
    )
    if compared is not None:
        add_agreement(version, edition, run, compared)
    return version


class Exported(NamedTuple):
    """An edition that was written: its version's folder, and why agreement was not measured, None if it was."""

    edition: str
    folder: Path
    not_measured: str | None


def export_finished(path: Path, editions: Iterable[str], out: Path | None = None) -> Iterator[Exported]:
    """Exports the model of a finished run or of a preset.

    Args:
        path: the folder of the run or preset.
        editions: some of `EDITIONS`.
        out: the folder of the editions' folders; default: the run's folder.

    Yields:
        Each edition when it is written.

    Raises:
        UserError: if the folder is no finished run, or its model cannot be exported.
    """
    run = load_run(path)
    data, table = run.data_dir, run.splits
    compared, not_measured = None, None
    split = tested_splits(table)[0]
    try:
        compared = read_rows(run.experiment, data, _compared(table[table["split"] == split])).assign(split=split)
    except UserError as error:
        is_preset = (run / PRESET).is_file()
        not_measured = "a preset holds no images; name its data sets with KERAS_SKIN_DATA" if is_preset else str(error)
    if compared is not None and compared.empty:
        compared, not_measured = None, f"no {split} image of the run exists in {data}"
    for edition in editions:
        yield Exported(edition, export_run(run, edition, compared, out), not_measured)


def exported_preset(path: Path) -> Path:
    """A folder of the user's cache with `saved_model/` of a preset, exported the first time.

    The folder's name depends on the preset's files, the version of the package and the serving contract.

    Raises:
        UserError: if the preset's model cannot be built, or the cache cannot be written.
    """
    manifest = (path / PRESET).read_bytes()
    key = hashlib.sha256(f"{__version__} {CONTRACT} ".encode() + manifest).hexdigest()
    folder = cache_path() / PRESETS / "exports" / key / path.name
    if not folder.is_dir():
        print(f"Exporting the preset {path.name}, once for this version (about a quarter of a minute)", file=sys.stderr)
        try:
            with atomic_path(folder) as temporary:
                export_run(load_run(path), "float32", None, temporary)
        except OSError as error:
            if not folder.is_dir():  # another process has not exported it meanwhile
                raise UserError(
                    f"The preset cannot be exported into the cache {folder}: {error}. Name another folder with KERAS_SKIN_CACHE."
                ) from None
    return folder


def card_facts(run: Run) -> dict[str, Any]:
    """The run's facts for a model card; `keras_skin.export.about.describe` lists them."""
    experiment, table, metrics = run.experiment, run.splits, run.metrics
    trained_on = table[table["split"] == "train"]["dataset"].value_counts()
    warnings = [run.warning, *doubts(metrics)]
    metrics.pop("explanations", None)
    measured = [
        {"part": split_label(row.split), "metric": row.label, "value": row.measured, "ci95": row.ci95, "n": row.count}
        for row in comparison_rows(None, metrics, {split: run.missing_of(split) for split in metrics})
    ]
    extra = {
        "title": run.headline,
        "trained_on": {str(name): int(count) for name, count in trained_on.items()},
        "terms": {str(name): readers.get(str(name)).info.get("terms", "") for name in trained_on.index},
        "measured": measured,
        "warnings": [warning for warning in warnings if warning],
    }
    extra |= {"prediction": prediction} if (prediction := describe_prediction(run)) else {}
    extra |= {"changes": run.changes} if run.changes else {}
    extra |= {"banner": run.banner} if run.banner and not run.synthetic else {}
    extra |= {"citation": experiment.paper.citation} if experiment.paper else {}
    segmenter = describe_segmenter(run) if run.experiment.cuts_lesions else {}
    return extra | ({"segmenter": segmenter["Segmenter"]} if segmenter else {})


def _in_bfloat16(run: Run) -> Run:
    model = build_model(run.experiment, len(run.classes), run.model_arguments, "mixed_bfloat16")
    model = shift_logits(model, run.label_shift, run.experiment.predict.mask_threshold)
    model.set_weights(run.model.get_weights())
    return replace(run, model=model)


def _segmenter(run: Run, exact: bool) -> Segmenter:
    model = (run if exact else _in_bfloat16(run)).predictor
    return Segmenter(model, run.experiment.image_size, tuple(run.preprocessing))


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[np.linspace(0, len(rows) - 1, min(COMPARED, len(rows))).astype(int)]


def add_agreement(folder: Path, edition: str, run: Run, rows: pd.DataFrame) -> None:
    """Measures the agreement of an exported version with the trained model and writes it into its model card, unless it is there:
    a kill may have come between the export and this.

    Args:
        folder: the version's folder.
        edition: one of `EDITIONS`.
        run: the run, its model in float32.
        rows: rows of one split, with its name in `split`.

    Raises:
        UserError: if the version's model.json is damaged.
    """
    path = folder / "assets" / "model.json"
    try:
        about = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}. Remove the folder {folder}, and resume or export the run again.") from None
    if "agreement" in about:
        return
    chosen = _compared(rows)
    endpoints = Endpoints(
        run.model,
        run.classes,
        run.experiment.image_size,
        run.preprocessing,
        run.metadata,
        _segmenter(run.segmenter, exact=True) if run.segmenter else None,
        run.predictor,
    )
    inputs = {"image": np.stack([load_image(path, run.experiment.image_size).numpy() for path in chosen["image"]])}
    if run.metadata is not None:
        inputs["metadata"] = run.metadata.transform(chosen)
    agreement = measure_agreement(endpoints, folder, edition, inputs, str(chosen["split"].iloc[0]))
    log.info("%s: %s", edition, describe_agreement(agreement))
    write_about(folder, {**about, "agreement": agreement}, warm_up=(folder / "assets.extra" / WARM_UP).is_file())

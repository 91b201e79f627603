"""The check of one data set: all its steps, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from keras_skin.checking import counts, duplicates, findings
from keras_skin.checking.findings import SEVERITIES, Finding
from keras_skin.checking.places import Place
from keras_skin.checking.scan import PROPERTIES, scan
from keras_skin.checking.shortcuts import Shortcut, shortcut
from keras_skin.data.datasets.records import Records, read_dataset
from keras_skin.data.splits.fingerprints import fingerprints
from keras_skin.registry import UserError

CLINICAL, NEVER, FILE = "clinical metadata", "fields that are never inputs", "file properties"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        name: name of the data set.
        folder: its folder.
        info: the registered description of its reader.
        synthetic: whether it is a rendered stand-in.
        records: the reader's records.
        classes: see `counts.class_table`.
        complete: see `counts.completeness`.
        findings: the most severe first.
        shortcuts: how well the class can be predicted without the lesion.
        compared: names of the data sets it was compared with.
    """

    name: str
    folder: Path
    info: dict[str, Any]
    synthetic: bool
    records: Records
    classes: pd.DataFrame
    complete: pd.DataFrame
    findings: tuple[Finding, ...]
    shortcuts: tuple[Shortcut, ...]
    compared: tuple[str, ...]

    def count(self, severity: str) -> int:
        """Number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def passed(self) -> bool:
        """Whether no finding is an error."""
        return not self.count("error")


def check_dataset(place: Place, others: Sequence[Place] = (), progress: Progress | None = None) -> Check:
    """Checks a data set on disk.

    Args:
        place: the data set.
        others: data sets to search for the same pictures.
        progress: called with (step, files done, files in all).

    Raises:
        UserError: if its tables cannot be read, or it has no image.
    """
    info = place.reader.info
    synthetic = (place.folder / "SYNTHETIC.txt").is_file()
    published = {} if synthetic else info.get("published", {})
    records = _read(place)
    table = records.table
    scanned = scan(table["image"].tolist(), table["mask"].tolist(), _step(progress, "reading files"))
    classes = counts.class_table(records, published)
    metadata, never = info.get("metadata", {}), info.get("never_inputs", ())
    complete = counts.completeness(table, [*metadata, *never])
    pairs = duplicates.pairs_within(table, scanned)
    results = [
        *findings.in_tables(records, info["obtain"], published.get("without_image", ())),
        *counts.against_published(classes, records, published),
        *findings.in_files(table, scanned),
        *findings.in_masks(table, scanned),
        *findings.in_labels(table),
        *duplicates.findings_within(pairs),
        *counts.in_metadata(complete, len(table)),
    ]
    compared = []
    for other in others:
        try:
            results += _compare(records, scanned, other, progress)
            compared.append(other.name)
        except UserError as error:
            reason = str(error).splitlines()[0]
            results.append(Finding("warning", f"Not compared with {other.name}: {reason}"))
    shortcuts = _shortcuts(records, scanned, pairs, metadata, never, progress)
    results += [finding for each in shortcuts if (finding := _shortcut_finding(each))]
    results.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Check(
        place.reader.name,
        place.folder,
        info,
        synthetic,
        records,
        classes,
        complete,
        tuple(results),
        shortcuts,
        tuple(compared),
    )


def _read(place: Place) -> Records:
    return read_dataset(place.reader.name, None, str(place.folder), check_images=False)


def _step(progress: Progress | None, step: str) -> Callable[[int, int], None] | None:
    return partial(progress, step) if progress is not None else None


def _compare(records: Records, scanned: pd.DataFrame, place: Place, progress: Progress | None) -> list[Finding]:
    other = _read(place)
    prints = fingerprints(other.table["image"], _step(progress, f"comparing with {place.name}"))
    pairs = duplicates.pairs_between(records.table, scanned, other.table, prints)
    return duplicates.findings_between(pairs, records, other, place.name)


def _shortcuts(
    records: Records,
    scanned: pd.DataFrame,
    pairs: pd.DataFrame,
    metadata: dict[str, str],
    never: Sequence[str],
    progress: Progress | None,
) -> tuple[Shortcut, ...]:
    table = records.table
    usable = ((scanned["image_problem"] == "") & (table["label"] != "")).to_numpy()
    if not records.classes:
        return tuple(Shortcut(what, "the data set has no labels") for what in (CLINICAL, NEVER, FILE))
    groups = duplicates.repeated_groups(table, pairs)[usable]
    labels = table.loc[usable, "label"].tolist()
    sets: list[tuple[str, pd.DataFrame, dict[str, str]]] = [
        (CLINICAL, table, metadata),
        (NEVER, table, dict.fromkeys(never, "categorical")),
        (FILE, scanned, {**dict.fromkeys(PROPERTIES, "numeric"), "format": "categorical"}),
    ]
    shortcuts: list[Shortcut] = []
    for what, source, kinds in sets:
        if progress is not None:
            progress("measuring shortcuts", len(shortcuts), len(sets))
        kinds = {name: kind for name, kind in kinds.items() if name in source}
        shortcuts.append(shortcut(what, source.loc[usable, list(kinds)], kinds, labels, records.classes, groups))
    if progress is not None:
        progress("measuring shortcuts", len(sets), len(sets))
    return tuple(shortcuts)


_ADVICE = {
    CLINICAL: "Part of this is medical (age is a risk factor), part is how the images were collected. Compare a model of images "
    "and metadata with a model of the metadata alone.",
    NEVER: "Expected: these fields are filled in after the diagnosis. Models do not get them.",
    FILE: "A classifier can learn the camera or the clinic instead of the lesion. Compare with this AUC, crop dark corners, "
    "re-encode all images in the same way, or test on images from another source.",
}


def _shortcut_finding(result: Shortcut) -> Finding | None:
    if not result.above_chance:
        return None
    strongest = ", ".join(name for name, _ in result.strongest)
    low, high = result.auc_interval
    title = f"Shortcut: {result.what} alone predict the class with AUC {result.auc:.2f} ({low:.2f} to {high:.2f}, chance 0.50)"
    title += f"; strongest: {strongest}." if strongest else "."
    return Finding("info" if result.what == NEVER else "warning", title, _ADVICE[result.what])

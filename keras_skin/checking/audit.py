"""Everything a check of one data set looks at, in order."""

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
    """What a check found.

    Attributes:
        name: of the data set.
        folder: where it lies.
        info: what its reader says of it.
        synthetic: whether it is a rendered stand-in.
        records: as the reader gave them.
        classes: see `counts.class_table`.
        complete: see `counts.completeness`.
        findings: the worst first.
        shortcuts: how well the class is told without the lesion.
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
        """Number of findings of that severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong: no finding is an error."""
        return not self.count("error")


def check_dataset(place: Place, others: Sequence[Place] = (), progress: Progress | None = None) -> Check:
    """Checks a data set on disk.

    Args:
        place: the data set.
        others: data sets to look for the same pictures in.
        progress: called with (what is being done, files done, files in all).

    Raises:
        UserError: if its tables cannot be read, or no image is there.
    """
    info = place.reader.info
    synthetic = (place.folder / "SYNTHETIC.txt").is_file()
    published = {} if synthetic else info.get("published", {})
    records = _read(place)
    table = records.table
    scanned = scan(table["image"].tolist(), table["mask"].tolist(), _named(progress, "reading files"))
    classes = counts.class_table(records, published)
    metadata, never = info.get("metadata", {}), info.get("never_inputs", ())
    complete = counts.completeness(table, [*metadata, *never])
    pairs = duplicates.pairs_within(table, scanned)
    found = [
        *findings.in_tables(records, info["obtain"], published.get("without_image", ())),
        *counts.against_published(classes, records, published),
        *findings.in_files(table, scanned),
        *findings.in_masks(table, scanned),
        *findings.in_labels(table),
        *duplicates.found_within(pairs),
        *counts.in_metadata(complete, len(table)),
    ]
    compared = []
    for other in others:
        told, name = _compare(records, scanned, other, progress)
        found += told
        compared += [name] if name else []
    shortcuts = _shortcuts(records, scanned, pairs, metadata, never, progress)
    found += [finding for each in shortcuts if (finding := _shortcut_finding(each))]
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Check(
        place.reader.name,
        place.folder,
        info,
        synthetic,
        records,
        classes,
        complete,
        tuple(found),
        shortcuts,
        tuple(compared),
    )


def _read(place: Place) -> Records:
    return read_dataset(place.reader.name, None, str(place.folder), check_images=False)


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return partial(progress, what) if progress is not None else None


def _compare(own: Records, scanned: pd.DataFrame, other: Place, progress: Progress | None) -> tuple[list[Finding], str]:
    """Findings, and the name of the other data set, "" if it could not be read."""
    try:
        records = _read(other)
        prints = fingerprints(records.table["image"], _named(progress, f"comparing with {other.name}"))
    except UserError as error:
        first = str(error).splitlines()[0]
        return [Finding("warning", f"Not compared with {other.name}, which cannot be read: {first}")], ""
    pairs = duplicates.pairs_between(own.table, scanned, records.table, prints)
    return duplicates.found_between(pairs, own, records, other.name), other.name


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
    measured = []
    for done, (what, source, kinds) in enumerate(sets):
        if progress is not None:
            progress("measuring shortcuts", done, len(sets))
        kinds = {name: kind for name, kind in kinds.items() if name in source}
        measured.append(shortcut(what, source.loc[usable, list(kinds)], kinds, labels, records.classes, groups))
    if progress is not None:
        progress("measuring shortcuts", len(sets), len(sets))
    return tuple(measured)


_ADVICE = {
    CLINICAL: "Some of this is medicine (age is a risk factor), some is how the images were collected. A model that sees images "
    "and metadata must be compared with one that sees the metadata alone.",
    NEVER: "As expected of what is known only after the diagnosis; models do not get these fields.",
    FILE: "A classifier can learn the camera or the clinic instead of the lesion. Compare with this number, crop dark corners, "
    "re-encode all images alike, or test on images of another source.",
}


def _shortcut_finding(measured: Shortcut) -> Finding | None:
    if not measured.above_chance:
        return None
    lead = ", ".join(name for name, _ in measured.strongest)
    low, high = measured.auc_interval
    what = f"Shortcut: {measured.what} alone tell the class with AUC {measured.auc:.2f} ({low:.2f} to {high:.2f}, chance 0.50)"
    title = f"{what}{f'; strongest: {lead}' if lead else ''}."
    return Finding("info" if measured.what == NEVER else "warning", title, _ADVICE[measured.what])

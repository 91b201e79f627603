"""Findings of a check, and the findings in the tables, files and masks of one data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from keras_skin.checking.masks import SPECK
from keras_skin.data.datasets.records import ExclusionKind, Records
from keras_skin.data.splits.fingerprints import MIN_DETAIL

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Item:
    """One image, lesion or pair with a problem: its name, the problem, and its files (none, one, or two side by side)."""

    name: str
    text: str = ""
    images: tuple[str, ...] = ()
    mask: str = ""


@dataclass(frozen=True)
class Finding:
    """One kind of problem in a data set.

    Attributes:
        severity: `"error"`: contradictory or incomplete data; `"warning"`: usable, but results may mislead; `"info"`: good
            to know.
        title: the problem, with numbers.
        advice: why it matters and what to do.
        items: all images, lesions or pairs that have it.
    """

    severity: Severity
    title: str
    advice: str = ""
    items: tuple[Item, ...] = ()


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 row`, `2 rows`, `10,015 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dicts by column."""
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]


def in_tables(records: Records, obtain: str, without_image: Sequence[str] = ()) -> list[Finding]:
    """Rows without an image, images without a row, missing masks and repeated ids, among the exclusions of the reader.

    Args:
        obtain: where to get the data set.
        without_image: ids that were published without an image.
    """
    excluded, findings = records.excluded, []
    missing = excluded[excluded["kind"] == ExclusionKind.MISSING_IMAGE]
    known = missing["image_id"].isin(without_image)
    if known.any():
        findings.append(Finding("info", f"{', '.join(missing.loc[known, 'image_id'])}: published without an image."))
    for split in missing.loc[~known, "split"].unique().tolist():
        rows = missing[~known & (missing["split"] == split)]
        here, of_split = int((records.table["split"] == split).sum()), f" in the {split} split" if split else ""
        items = tuple(Item(image_id) for image_id in rows["image_id"])
        if not here:
            title = f"The {split} split has no images here: its table names {counted(len(rows), 'image')}."
            findings.append(Finding("warning", title, f"To get them: {obtain}", items))
            continue
        title = f"{counted(len(rows), 'row')} without an image{of_split}: {here:,} of {here + len(rows):,} images are here."
        advice = f"The files that the table names are missing (a partial download?). To get them: {obtain}"
        findings.append(Finding("error", title, advice, items))
    kinds: list[tuple[ExclusionKind, Severity, str, str]] = [
        (
            ExclusionKind.LABEL_CONFLICT,
            "error",
            "{} with different labels",
            "The table contradicts itself; none of these images is used. Fix the table.",
        ),
        (ExclusionKind.DUPLICATE_ID, "warning", "{} a second time", "Only the first is used."),
        (
            ExclusionKind.MISSING_ROW,
            "warning",
            "{} that the table does not name",
            "They have no label and are not used. A file too many, or a row too few?",
        ),
        (
            ExclusionKind.MISSING_MASK,
            "warning",
            "{} without a mask, though others have one",
            "Runs that need masks do not use them.",
        ),
        (ExclusionKind.STRAY_MASK, "warning", "{} that have a mask, but no image", "The mask is not used."),
    ]
    rest = excluded[excluded["kind"] != ExclusionKind.MISSING_IMAGE]
    for kind, severity, words, advice in kinds:
        chosen = rest[rest["kind"] == kind]
        rest = rest.drop(index=chosen.index)
        if len(chosen):
            items = tuple(
                Item(
                    row["image_id"],
                    row["reason"],
                    (row["file"],) if kind in (ExclusionKind.MISSING_ROW, ExclusionKind.MISSING_MASK) else (),
                )
                for row in rows_of(chosen)
            )
            noun = "id" if kind in (ExclusionKind.LABEL_CONFLICT, ExclusionKind.DUPLICATE_ID) else "image"
            findings.append(Finding(severity, words.format(counted(len(chosen), noun)) + ".", advice, items))
    if len(rest):
        items = tuple(Item(row["image_id"], row["reason"]) for row in rows_of(rest))
        findings.append(Finding("warning", f"{counted(len(rest), 'image')} excluded by the reader.", "", items))
    return findings


def in_labels(table: pd.DataFrame) -> list[Finding]:
    """Findings of groups in several official splits, lesions with several diagnoses, and images without a label."""
    findings = []
    across = _several(table[table["split"] != ""].groupby("group_id")["split"])
    if len(across):
        items = tuple(Item(str(group), f"in {splits}") for group, splits in across.items())
        title = f"{counted(len(across), 'lesion or patient', 'lesions or patients')} with images in two official splits."
        advice = "The official split leaks: scores on the test split are too good. Split by group instead."
        findings.append(Finding("error", title, advice, items))
    if "lesion_id" in table:
        lesions = table[(table["lesion_id"] != "") & (table["label"] != "")].groupby(["group_id", "lesion_id"])
        conflicts = _several(lesions["label"])
        if len(conflicts):
            items = tuple(Item(row["lesion_id"], row["label"]) for row in rows_of(conflicts.reset_index()))
            title = f"{counted(len(conflicts), 'lesion')} with different labels on different images."
            findings.append(Finding("warning", title, "At least one of the labels is wrong.", items))
    unlabelled = table[table["label"] == ""]
    if 0 < len(unlabelled) < len(table):
        findings.append(Finding("warning", f"{counted(len(unlabelled), 'image')} without a label.", "", _items(unlabelled, "")))
    return findings


def _several(groups: Any) -> pd.Series:
    """The groups of a grouped column that have more than one value, with their values joined by " and "."""
    values = groups.unique().map(sorted)
    return values[values.map(len) > 1].map(" and ".join)


def in_files(table: pd.DataFrame, scan: pd.DataFrame) -> list[Finding]:
    """Findings of files that do not decode or are not 8-bit RGB images, and of blank pictures."""
    findings = []
    unusable = scan["image_problem"] != ""
    if unusable.any():
        items = _items(table[unusable], scan.loc[unusable, "image_problem"], pictures=False)
        advice = "Such files are left out of training and test. Download them again."
        findings.append(Finding("error", f"{counted(int(unusable.sum()), 'image')} that cannot be used.", advice, items))
    blank = ~unusable & (scan["detail"] < MIN_DETAIL)
    if blank.any():
        title = f"{counted(int(blank.sum()), 'image')} of a single shade."
        findings.append(Finding("warning", title, "They show nothing.", _items(table[blank], "")))
    return findings


def in_masks(table: pd.DataFrame, scan: pd.DataFrame) -> list[Finding]:
    """Findings of masks that do not fit their image, are empty, full or coarse, or have more than two values."""
    findings = []

    def add(severity: Severity, faulty: pd.Series, words: str, advice: str, text: str = "", sort_by: str = "") -> None:
        """Adds a finding; `text` is formatted with the fields of each row, rows are sorted by a field, the largest first."""
        if faulty.any():
            rows = scan[faulty].sort_values(sort_by, ascending=False, kind="stable") if sort_by else scan[faulty]
            title = f"{counted(len(rows), 'mask')} {words.format(be='is' if len(rows) == 1 else 'are')}."
            texts = [text.format(**row) for row in rows_of(rows)]
            findings.append(Finding(severity, title, advice, _items(table.loc[rows.index], texts, masks=True)))

    size, unusable = scan["mask_size_differs"], scan["mask_problem"] != ""
    add("error", size, "of another size than the image", "Left out of training and test.", "{mask_problem}")
    add("error", unusable & ~size, "that cannot be read", "Left out of training and test.", "{mask_problem}")
    add("error", scan["mask_empty"], "without a single set pixel", "A model would learn that there is no lesion.")
    advice = "Either the lesion fills the picture or nobody drew it; such a mask teaches nothing."
    add("warning", scan["mask_full"], "{be} full: set all over the image", advice)
    advice = "They show little of where a lesion ends."
    words = "{be} full-frame: drawn along all four sides of the image"
    add("warning", scan["mask_full_frame"], words, advice, "{mask_area:.0%} of the image", sort_by="mask_area")
    advice = "Their outline is a staircase; scores have an error of its size."
    text = "{mask_repeats:.0%} of rows or columns repeat"
    add("warning", scan["mask_blocky"], "{be} coarse: enlarged from a few pixels", advice, text, sort_by="mask_repeats")
    advice = "Their outline was clicked roughly, so that scores reward rough outlines. Report them separately, or leave them out."
    words = "{be} coarse: drawn as polygons of a few long straight sides"
    add("warning", scan["mask_polygon"], words, advice, "{mask_sides:.0f} sides", sort_by="mask_long_sides")
    advice = "Read with a threshold (128; BMP: above 0). Grey levels come from JPEG or from resizing with interpolation."
    text = "{mask_values:.0f} values, {mask_grey:.1%} of the pixels in between"
    add("warning", scan["mask_values"] > 2, "{be} not binary", advice, text, sort_by="mask_grey")
    add("info", scan["mask_pieces"] > 1, "of several pieces", "", "{mask_pieces:.0f} pieces", sort_by="mask_pieces")
    words = f"with specks: pieces of less than {SPECK:.0%} of the largest"
    add("info", scan["mask_specks"] > 0, words, "", "{mask_specks:.0f}", sort_by="mask_specks")
    add("info", scan["mask_holes"] > 0, "with holes", "", "{mask_holes:.0f}", sort_by="mask_holes")
    return findings


def _items(rows: pd.DataFrame, text: Iterable[str] | str, masks: bool = False, pictures: bool = True) -> tuple[Item, ...]:
    texts = [text] * len(rows) if isinstance(text, str) else text
    return tuple(
        Item(row["image_id"], text, (row["image"],) if pictures else (), row["mask"] if masks else "")
        for row, text in zip(rows_of(rows), texts, strict=True)
    )

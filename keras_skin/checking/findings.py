"""What a check finds, and what it finds in the tables, the files and the masks of one data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from keras_skin.checking.masks import SPECK
from keras_skin.data.datasets.records import ExclusionKind, Records

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Item:
    """One offender: what it is called, what is wrong with it, and the files that show it (none, one, or two side by side)."""

    name: str
    text: str = ""
    images: tuple[str, ...] = ()
    mask: str = ""


@dataclass(frozen=True)
class Finding:
    """One kind of fault.

    Attributes:
        severity: `"error"`: the data contradict themselves or are not whole; `"warning"`: usable, but a result may be misread;
            `"info"`: good to know.
        title: what was found, with numbers.
        advice: why it matters and what to do.
        items: all offenders.
    """

    severity: Severity
    title: str
    advice: str = ""
    items: tuple[Item, ...] = ()


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 row`, `2 rows`, `10,015 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as dicts by column."""
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]


def in_tables(records: Records, obtain: str, without_image: Sequence[str] = ()) -> list[Finding]:
    """Rows without an image, images without a row, missing masks and repeated ids, from what the reader left out.

    Args:
        obtain: where the data set is to be had.
        without_image: ids that were published without an image.
    """
    excluded, found = records.excluded, []
    missing = excluded[excluded["kind"] == ExclusionKind.MISSING_IMAGE]
    known = missing["image_id"].isin(without_image)
    if known.any():
        found.append(Finding("info", f"{', '.join(missing.loc[known, 'image_id'])}: published without an image."))
    for split in missing.loc[~known, "split"].unique().tolist():
        rows = missing[~known & (missing["split"] == split)]
        here, of_part = int((records.table["split"] == split).sum()), f" in the {split} part" if split else ""
        items = tuple(Item(image_id) for image_id in rows["image_id"])
        if not here:
            title = f"The {split} part has no images here: its table names {counted(len(rows), 'image')}."
            found.append(Finding("warning", title, f"To get them: {obtain}", items))
            continue
        title = f"{counted(len(rows), 'row')} without an image{of_part}: {here:,} of {here + len(rows):,} images are here."
        advice = f"The files that the table names are not there (a partial download?). To get them: {obtain}"
        found.append(Finding("error", title, advice, items))
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
            found.append(Finding(severity, words.format(counted(len(chosen), noun)) + ".", advice, items))
    if len(rest):
        items = tuple(Item(row["image_id"], row["reason"]) for row in rows_of(rest))
        found.append(Finding("warning", f"{counted(len(rest), 'image')} left out by the reader.", "", items))
    return found


def in_labels(table: pd.DataFrame) -> list[Finding]:
    """Groups on two sides of the official split, lesions with two diagnoses, images without a label."""
    found = []
    parts = table[table["split"] != ""].groupby("group_id")["split"].agg(lambda splits: " and ".join(sorted(set(splits))))
    across = parts[parts.str.contains(" and ")]
    if len(across):
        items = tuple(Item(str(group), f"in {where}") for group, where in across.items())
        title = f"{counted(len(across), 'lesion or patient', 'lesions or patients')} with images in two official parts."
        advice = "The official split leaks: scores on the test part are too good. Split by group instead."
        found.append(Finding("error", title, advice, items))
    if "lesion_id" in table:
        lesions = table[(table["lesion_id"] != "") & (table["label"] != "")].groupby(["group_id", "lesion_id"])["label"]
        told = lesions.agg(lambda labels: " and ".join(sorted(set(labels))))
        conflicts = told[told.str.contains(" and ")]
        if len(conflicts):
            items = tuple(Item(row["lesion_id"], row["label"]) for row in rows_of(conflicts.reset_index()))
            title = f"{counted(len(conflicts), 'lesion')} with different labels on different images."
            found.append(Finding("warning", title, "At least one of the labels is wrong.", items))
    bare = table[table["label"] == ""]
    if len(bare) and len(bare) < len(table):
        found.append(Finding("warning", f"{counted(len(bare), 'image')} without a label.", "", _items(bare, "")))
    return found


def in_files(table: pd.DataFrame, scan: pd.DataFrame) -> list[Finding]:
    """Files that do not decode or are no 8-bit RGB images, and pictures that show nothing."""
    found = []
    bad = scan["image_problem"] != ""
    if bad.any():
        items = _items(table[bad], scan.loc[bad, "image_problem"], pictures=False)
        advice = "Such files are left out of training and test. Download them again."
        found.append(Finding("error", f"{counted(int(bad.sum()), 'image')} that cannot be used.", advice, items))
    blank = ~bad & (scan["detail"] < 2)
    if blank.any():
        title = f"{counted(int(blank.sum()), 'image')} of a single shade."
        found.append(Finding("warning", title, "There is nothing to see on them.", _items(table[blank], "")))
    return found


def in_masks(table: pd.DataFrame, scan: pd.DataFrame) -> list[Finding]:
    """Masks that do not fit their image, hold nothing or everything, are coarse, or hold more than two values."""
    found = []

    def tell(severity: Severity, wrong: pd.Series, words: str, advice: str, told: str = "", worst: str = "") -> None:
        """`told` is formatted with the fields of the row; the items stand by the field `worst`, the greatest first."""
        if wrong.any():
            rows = scan[wrong].sort_values(worst, ascending=False, kind="stable") if worst else scan[wrong]
            title = f"{counted(len(rows), 'mask')} {words.format(be='is' if len(rows) == 1 else 'are')}."
            texts = [told.format(**row) for row in rows_of(rows)]
            found.append(Finding(severity, title, advice, _items(table.loc[rows.index], texts, masks=True)))

    bad = scan["mask_problem"] != ""
    size = bad & scan["mask_problem"].str.startswith("mask of")
    tell("error", size, "of another size than the image", "Left out of training and test.", "{mask_problem}")
    tell("error", bad & ~size, "that cannot be read", "Left out of training and test.", "{mask_problem}")
    tell("error", scan["mask_empty"], "without a single set pixel", "A model would learn that there is no lesion.")
    advice = "Either the lesion fills the picture or nobody drew it; such a mask teaches nothing."
    tell("warning", scan["mask_full"], "{be} full: set all over the image", advice)
    advice = "They tell little of where a lesion ends."
    words = "{be} full-frame: drawn along all four sides of the image"
    tell("warning", scan["mask_full_frame"], words, advice, "{mask_area:.0%} of the image", worst="mask_area")
    advice = "Their outline is a staircase; a score on them has that much error."
    told = "{mask_repeats:.0%} of rows or columns repeat"
    tell("warning", scan["mask_blocky"], "{be} coarse: enlarged from a few pixels", advice, told, worst="mask_repeats")
    advice = (
        "A person clicked a rough outline: scores on these masks reward rough outlines. Report them apart, or leave them out."
    )
    words = "{be} coarse: drawn as polygons of a few long straight sides"
    tell("warning", scan["mask_polygon"], words, advice, "{mask_sides:.0f} sides", worst="mask_long_sides")
    advice = "Read with a threshold (128; BMP: above 0). Ramps of grey come from JPEG or from resizing with interpolation."
    told = "{mask_values:.0f} values, {mask_grey:.1%} of the pixels in between"
    tell("warning", scan["mask_values"] > 2, "{be} not binary", advice, told, worst="mask_grey")
    tell("info", scan["mask_pieces"] > 1, "of several pieces", "", "{mask_pieces:.0f} pieces", worst="mask_pieces")
    words = f"with specks: pieces of less than {SPECK:.0%} of the largest"
    tell("info", scan["mask_specks"] > 0, words, "", "{mask_specks:.0f}", worst="mask_specks")
    tell("info", scan["mask_holes"] > 0, "with holes", "", "{mask_holes:.0f}", worst="mask_holes")
    return found


def _items(rows: pd.DataFrame, text: Iterable[str] | str, masks: bool = False, pictures: bool = True) -> tuple[Item, ...]:
    texts = [text] * len(rows) if isinstance(text, str) else list(text)
    return tuple(
        Item(row["image_id"], told, (row["image"],) if pictures else (), row["mask"] if masks else "")
        for row, told in zip(rows_of(rows), texts, strict=True)
    )

"""Numbers of images and classes beside the published ones, and how complete the metadata are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from keras_skin.checking.findings import Finding, counted, rows_of
from keras_skin.data.datasets.records import ExclusionKind, Records

UNKNOWN = ("unk", "unknown")
ORDER = ("", "train", "validation", "test")


def class_table(records: Records, published: Mapping[str, Any]) -> pd.DataFrame:
    """Images by part and class: here, named by the tables (with or without an image), and as published.

    Args:
        published: `{"images": {part: count}, "classes": {part: {class: count}}}`; the part is "" where there is no official one.

    Returns:
        Columns `part`, `class` ("all" in each part's first row), `here`, `share` (of the part's images here), `in_tables`,
        `published` (-1 where nothing was published).
    """
    named = pd.concat([records.table[["image_id", "split", "label"]], _named_without_image(records)])
    rows = []
    for part in _parts(records, published):
        here, told = records.table[records.table["split"] == part], named[named["split"] == part]
        official = published.get("classes", {}).get(part, {})
        rows.append((part, "all", len(here), 1.0, told["image_id"].nunique(), published.get("images", {}).get(part, -1)))
        for name in dict.fromkeys([*records.classes, *official]):
            count = int((here["label"] == name).sum())
            total = told.loc[told["label"] == name, "image_id"].nunique()
            rows.append((part, name, count, count / max(len(here), 1), total, official.get(name, -1)))
    return pd.DataFrame(rows, columns=["part", "class", "here", "share", "in_tables", "published"])


def _named_without_image(records: Records) -> pd.DataFrame:
    """Rows of the tables that are left out of the records, each image once."""
    excluded = records.excluded[~records.excluded["kind"].isin([ExclusionKind.MISSING_ROW, ExclusionKind.STRAY_MASK])]
    left_out = excluded[~excluded["image_id"].isin(records.table["image_id"])]
    return left_out[["image_id", "split", "label"]]


def _parts(records: Records, published: Mapping[str, Any]) -> list[str]:
    official = published.get("images", {})
    here = {*records.table["split"], *records.excluded["split"]} - ({""} if official and "" not in official else set())
    return [*official, *sorted(here - set(official), key=lambda part: (ORDER.index(part) if part in ORDER else 9, part))]


def against_published(classes: pd.DataFrame, records: Records, published: Mapping[str, Any]) -> list[Finding]:
    """Where the numbers of images, of labels and of groups differ from the published ones.

    Images that a table names but that are not there are told elsewhere; here it is tables and folders that are too short, too
    long or altered.
    """
    found = []
    for part in classes["part"].unique().tolist():
        rows = classes[classes["part"] == part]
        whole, of_part = rows.iloc[0], f"the {part} part" if part else "the data set"
        if whole["published"] < 0:
            continue
        if whole["in_tables"] == 0:
            title = f"{of_part[0].upper()}{of_part[1:]} is not here ({counted(int(whole['published']), 'published image')})."
            found.append(Finding("info", title))
            continue
        if whole["in_tables"] != whole["published"]:
            more = "fewer" if whole["in_tables"] < whole["published"] else "more"
            title = f"{counted(int(whole['in_tables']), 'image')} in {of_part}, {more} than the {whole['published']:,} published."
            found.append(Finding("warning", title, "A part of the data set, another edition, or an altered table."))
        altered = rows[(rows["class"] != "all") & (rows["published"] >= 0) & (rows["in_tables"] != rows["published"])]
        if len(altered) and whole["in_tables"] == whole["published"]:
            told = ", ".join(
                f"{row['class']} {row['published']:,} published, {row['in_tables']:,} here" for row in rows_of(altered)
            )
            title = f"The labels of {of_part} are not the published ones: {told}."
            found.append(Finding("error", title, "As many rows, but other labels: an altered copy of the table."))
    groups, wanted = records.table["group_id"].nunique(), published.get("groups", -1)
    if wanted >= 0 and len(records.table) == sum(published["images"].values()) and groups != wanted:
        title = f"{counted(groups, 'group')} of images (patients or lesions), {wanted:,} published."
        found.append(Finding("warning", title, "Images of one lesion may not be kept together in a split."))
    return found


def completeness(table: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """How many images have each field: `field`, `known`, `unknown` (said to be so), `blank`, `values` (different ones)."""
    rows = []
    for field in fields:
        if field in table:
            text = table[field].str.strip()
            unknown, blank = text.str.lower().isin(UNKNOWN), text == ""
            known = text[~unknown & ~blank]
            rows.append((field, len(known), int(unknown.sum()), int(blank.sum()), known.nunique()))
    return pd.DataFrame(rows, columns=["field", "known", "unknown", "blank", "values"])


def in_metadata(complete: pd.DataFrame, images: int) -> list[Finding]:
    """Fields that many images lack, or that never vary."""
    lacking = complete[complete["known"] < 0.9 * images]
    found = []
    if len(lacking):
        told = ", ".join(f"{row['field']} known of {row['known'] / images:.0%}" for row in rows_of(lacking))
        title = f"{counted(len(lacking), 'metadata field')} not known of more than one image in ten: {told}."
        found.append(Finding("info", title, "Whether a field is blank may itself tell the class: keep it apart from its value."))
    constant = complete[(complete["values"] == 1) & (complete["known"] > 0)]
    if len(constant) and images > 1:
        found.append(Finding("info", f"The same value in all images that have one: {', '.join(constant['field'])}."))
    return found

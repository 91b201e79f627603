"""Compares the numbers of images and classes with the published ones, and measures how complete the metadata are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from keras_skin.checking.findings import Finding, counted, rows_of
from keras_skin.data.datasets.records import ExclusionKind, Records

UNKNOWN = ("unk", "unknown")
ORDER = ("", "train", "validation", "test")


def class_table(records: Records, published: Mapping[str, Any]) -> pd.DataFrame:
    """Counts images by split and class: on disk, in the tables (with or without an image), and as published.

    Args:
        published: `{"images": {split: count}, "classes": {split: {class: count}}}`; the split is "" without an official one.

    Returns:
        Columns `split`, `class` ("all" in each split's first row), `here`, `share` (of the split's images here), `in_tables`,
        `published` (-1 for unpublished).
    """
    named = pd.concat([records.table[["image_id", "split", "label"]], _named_without_image(records)])
    rows = []
    for split in _splits(records, published):
        images, table_rows = records.table[records.table["split"] == split], named[named["split"] == split]
        official = published.get("classes", {}).get(split, {})
        total = table_rows["image_id"].nunique()
        rows.append((split, "all", len(images), 1.0, total, published.get("images", {}).get(split, -1)))
        for name in dict.fromkeys([*records.classes, *official]):
            count = int((images["label"] == name).sum())
            total = table_rows.loc[table_rows["label"] == name, "image_id"].nunique()
            rows.append((split, name, count, count / max(len(images), 1), total, official.get(name, -1)))
    return pd.DataFrame(rows, columns=["split", "class", "here", "share", "in_tables", "published"])


def _named_without_image(records: Records) -> pd.DataFrame:
    """Rows of the tables that are left out of the records, each image once."""
    excluded = records.excluded[~records.excluded["kind"].isin([ExclusionKind.MISSING_ROW, ExclusionKind.STRAY_MASK])]
    left_out = excluded[~excluded["image_id"].isin(records.table["image_id"])]
    return left_out[["image_id", "split", "label"]]


def _splits(records: Records, published: Mapping[str, Any]) -> list[str]:
    official = published.get("images", {})
    names = {*records.table["split"], *records.excluded["split"]} - ({""} if official and "" not in official else set())
    return [*official, *sorted(names - set(official), key=lambda name: (ORDER.index(name) if name in ORDER else 9, name))]


def against_published(classes: pd.DataFrame, records: Records, published: Mapping[str, Any]) -> list[Finding]:
    """Findings where the numbers of images, labels or groups differ from the published ones.

    Missing images of rows in the tables are not counted here (see `findings.in_tables`), only rows.
    """
    findings = []
    for split in classes["split"].unique().tolist():
        rows = classes[classes["split"] == split]
        total, name = rows.iloc[0], f"the {split} split" if split else "the data set"
        if total["published"] < 0:
            continue
        if total["in_tables"] == 0:
            title = f"{name[0].upper()}{name[1:]} is missing ({counted(int(total['published']), 'published image')})."
            findings.append(Finding("info", title))
        elif total["in_tables"] != total["published"]:
            more = "fewer" if total["in_tables"] < total["published"] else "more"
            title = f"{counted(int(total['in_tables']), 'image')} in {name}, {more} than the {total['published']:,} published."
            findings.append(Finding("warning", title, "An incomplete download, another edition, or an altered table."))
        else:
            altered = rows[(rows["class"] != "all") & (rows["published"] >= 0) & (rows["in_tables"] != rows["published"])]
            labels = [f"{row['class']} {row['published']:,} published, {row['in_tables']:,} here" for row in rows_of(altered)]
            if labels:
                title = f"The labels of {name} differ from the published ones: {', '.join(labels)}."
                findings.append(Finding("error", title, "As many rows, but other labels: an altered copy of the table."))
    groups, expected = records.table["group_id"].nunique(), published.get("groups", -1)
    if expected >= 0 and len(records.table) == sum(published["images"].values()) and groups != expected:
        title = f"{counted(groups, 'group')} of images (patients or lesions), {expected:,} published."
        findings.append(Finding("warning", title, "Images of one lesion may end up in different splits."))
    return findings


def completeness(table: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Counts the images that have each field: `field`, `known`, `unknown` (marked as unknown), `blank`, `values` (distinct)."""
    rows = []
    for field in fields:
        if field in table:
            text = table[field].str.strip()
            unknown, blank = text.str.lower().isin(UNKNOWN), text == ""
            known = text[~unknown & ~blank]
            rows.append((field, len(known), int(unknown.sum()), int(blank.sum()), known.nunique()))
    return pd.DataFrame(rows, columns=["field", "known", "unknown", "blank", "values"])


def in_metadata(complete: pd.DataFrame, images: int) -> list[Finding]:
    """Findings of fields that many images lack, or that never vary."""
    findings = []
    incomplete = complete[complete["known"] < 0.9 * images]
    if len(incomplete):
        fields = ", ".join(f"{row['field']} known for {row['known'] / images:.0%}" for row in rows_of(incomplete))
        title = f"{counted(len(incomplete), 'metadata field')} unknown for more than one image in ten: {fields}."
        findings.append(Finding("info", title, "Whether a field is blank may itself predict the class: encode it separately."))
    constant = complete[(complete["values"] == 1) & (complete["known"] > 0)]
    if len(constant) and images > 1:
        findings.append(Finding("info", f"The same value in all images that have one: {', '.join(constant['field'])}."))
    return findings

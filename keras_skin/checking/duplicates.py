"""Finds repeated pictures, in one data set or in two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from keras_skin.checking.findings import Finding, Item, Severity, counted
from keras_skin.data.datasets.records import Records, bare_id
from keras_skin.data.splits.fingerprints import same_pictures

_SIDES = ("image_id", "image", "label", "split", "group_id")


def pairs_within(table: pd.DataFrame, prints: pd.DataFrame) -> pd.DataFrame:
    """Finds pairs of images in one data set with the same id (less `_downsampled`), the same bytes, or the same picture.

    Args:
        table: the table of `Records`.
        prints: their fingerprints, with the columns of `keras_skin.data.splits.fingerprints.fingerprints`.

    Returns:
        Columns `a_*` and `b_*` (image_id, image, label, split, group_id), `same_id`, `same_file`, `distance` (differing
        bits of the perceptual hashes, -1 for pictures that do not look the same).
    """
    rows = np.arange(len(table))
    return _pairs(table, prints, rows, rows)


def pairs_between(one: pd.DataFrame, prints: pd.DataFrame, other: pd.DataFrame, other_prints: pd.DataFrame) -> pd.DataFrame:
    """Finds pairs of images in two data sets, `a` in the first and `b` in the second; see `pairs_within`."""
    table = pd.concat([one, other], ignore_index=True)
    prints = pd.concat([prints, other_prints], ignore_index=True)
    return _pairs(table, prints, np.arange(len(one)), np.arange(len(one), len(table)))


def _pairs(table: pd.DataFrame, prints: pd.DataFrame, rows_a: np.ndarray, rows_b: np.ndarray) -> pd.DataFrame:
    ids = _equal(table["image_id"].map(bare_id), rows_a, rows_b)
    files = _equal(prints["sha256"].where(prints["sha256"] != ""), rows_a, rows_b)
    set_a, set_b = set(rows_a.tolist()), set(rows_b.tolist())
    distances = {(int(a), int(b)): int(bits) for a, b, bits in same_pictures(prints) if int(a) in set_a and int(b) in set_b}
    keys = sorted({*distances, *ids, *files})
    first, second = [key[0] for key in keys], [key[1] for key in keys]
    frame = pd.DataFrame({f"a_{name}": table[name].to_numpy()[first] for name in _SIDES}, dtype=object)
    frame = frame.assign(**{f"b_{name}": table[name].to_numpy()[second] for name in _SIDES})
    return frame.assign(
        same_id=[key in ids for key in keys],
        same_file=[key in files for key in keys],
        distance=[distances.get(key, -1) for key in keys],
    )


def _equal(values: pd.Series, rows_a: np.ndarray, rows_b: np.ndarray) -> set[tuple[int, int]]:
    """Pairs (row, later row) of equal values, one from `rows_a` and one from `rows_b`; missing values equal nothing."""
    side_a = pd.DataFrame({"value": values.iloc[rows_a].to_numpy(), "a": rows_a}).dropna()
    side_b = pd.DataFrame({"value": values.iloc[rows_b].to_numpy(), "b": rows_b}).dropna()
    pairs = side_a.merge(side_b, on="value")
    pairs = pairs[pairs["a"] < pairs["b"]]
    return set(zip(pairs["a"].tolist(), pairs["b"].tolist(), strict=True))


def repeated_groups(table: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """(N,) int: the groups of a table, united where they share a picture, for splits without repeated pictures."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    position = pd.Series(range(len(table)), index=table["image_id"])
    codes, _ = pd.factorize(table["group_id"])
    first, second = codes[position[pairs["a_image_id"]]], codes[position[pairs["b_image_id"]]]
    count = int(codes.max()) + 1
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(edges, directed=False)[1][codes]


def findings_within(pairs: pd.DataFrame) -> list[Finding]:
    """Findings of pairs in one data set, the most severe first; each pair is in one finding."""
    conflict = (pairs["a_label"] != pairs["b_label"]) & (pairs["a_label"] != "") & (pairs["b_label"] != "")
    across = (pairs["a_split"] != pairs["b_split"]) & (pairs["a_split"] != "") & (pairs["b_split"] != "")
    same_file, same_group = pairs["same_file"], pairs["a_group_id"] == pairs["b_group_id"]
    kinds: list[tuple[Severity, pd.Series, str, str]] = [
        ("error", conflict & same_file, "of identical files with different labels", "At least one label of each pair is wrong."),
        ("error", across, "of equal pictures in two official splits", "The official split leaks: leave out one of each pair."),
        ("warning", conflict, "that look the same, with different labels", "Look at them: one lesion cannot be both."),
        ("warning", same_file, "of identical files", "They count twice; unless grouped, they can end up in different splits."),
        (
            "warning",
            ~same_group,
            "that look the same, but are not in one group",
            "They can end up in different splits; unite their groups, or leave out one of each pair.",
        ),
        ("info", same_group, "that look the same within one group", "Harmless in a split by group."),
    ]
    findings, remaining = [], pd.Series(True, index=pairs.index)
    for severity, mask, words, advice in kinds:
        rows = pairs[remaining & mask]
        remaining &= ~mask
        if len(rows):
            findings.append(Finding(severity, f"{counted(len(rows), 'pair')} {words}.", advice, _items(rows)))
    return findings


def findings_between(pairs: pd.DataFrame, records: Records, other: Records, name: str) -> list[Finding]:
    """Findings of pairs with another data set.

    Args:
        pairs: the pairs from `pairs_between`.
        records, other: both data sets; the ids of rows without an image are compared, too.
        name: name of the other data set.
    """
    findings = []
    if records.classes != other.classes:
        pairs = pairs.assign(a_label="", b_label="")  # labels of other classes (benign, NV) cannot be compared
    if len(pairs):
        images = pairs["a_image_id"].nunique()
        by_id, by_file, by_sight = (
            int(count) for count in (pairs["same_id"].sum(), pairs["same_file"].sum(), (pairs["distance"] >= 0).sum())
        )
        title = f"{counted(images, 'image')} also in {name} ({by_id:,} by id, {by_file:,} by their bytes, {by_sight:,} by sight)."
        advice = f"Harmless alone; leave them out if you train on one data set and test on the other. {_by_split(pairs)}"
        findings.append(Finding("warning", title, advice.strip(), _items(pairs, name)))
        differ = pairs[(pairs["a_label"] != pairs["b_label"]) & (pairs["a_label"] != "") & (pairs["b_label"] != "")]
        if len(differ):
            title = f"{counted(differ['a_image_id'].nunique(), 'image')} with another label in {name}."
            findings.append(Finding("warning", title, "One of the two labels is out of date or wrong.", _items(differ, name)))
    shared_ids = _ids(records) & _ids(other) - {bare_id(image_id) for image_id in pairs["a_image_id"]}
    if shared_ids:
        title = f"{counted(len(shared_ids), 'more id')} shared with {name} in the tables, with an image missing here or there."
        findings.append(Finding("info", title, "", tuple(Item(image_id) for image_id in sorted(shared_ids))))
    return findings


def _ids(records: Records) -> set[str]:
    return {bare_id(image_id) for image_id in [*records.table["image_id"], *records.excluded["image_id"]]}


def _by_split(pairs: pd.DataFrame) -> str:
    counts = Counter(zip(pairs["a_split"], pairs["b_split"], strict=True))
    texts = [f"{count:,} in {one} here and {two} there" for (one, two), count in sorted(counts.items()) if one and two]
    return f"By split: {', '.join(texts)}." if texts else ""


def _items(pairs: pd.DataFrame, name: str = "") -> tuple[Item, ...]:
    return tuple(_item(row, name) for row in pairs.to_dict("records"))


def _item(row: dict, name: str) -> Item:
    other = f"{name} {row['b_image_id']}" if name else row["b_image_id"]
    return Item(f"{row['a_image_id']} = {other}", "; ".join(_remarks(row)), (row["a_image"], row["b_image"]))


def _remarks(row: dict) -> Iterable[str]:
    if row["same_file"]:
        yield "same bytes"
    elif row["distance"] >= 0:
        yield f"look the same ({row['distance']} of 64 bits differ)"
    elif row["same_id"]:
        yield "same id, but the pictures differ"
    if row["a_label"] and row["b_label"] and row["a_label"] != row["b_label"]:
        yield f"{row['a_label']} and {row['b_label']}"
    if row["a_split"] and row["b_split"]:
        yield f"{row['a_split']} and {row['b_split']}"

"""Pictures that are there twice, in one data set or in two."""

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
    """Pairs of images of one data set that have the same id (less `_downsampled`), the same bytes, or show the same picture.

    Args:
        table: of `Records`.
        prints: a row for each of its rows, with the columns of `keras_skin.data.splits.fingerprints.fingerprints`.

    Returns:
        Columns `a_*` and `b_*` (image_id, image, label, split, group_id), `same_id`, `same_file`, `distance` (bits in which the
        perceptual hashes differ, -1 where the pictures do not look the same).
    """
    whole = np.arange(len(table))
    return _pairs(table, prints, whole, whole)


def pairs_between(one: pd.DataFrame, prints: pd.DataFrame, other: pd.DataFrame, other_prints: pd.DataFrame) -> pd.DataFrame:
    """Pairs of images of two data sets, `a` of the one and `b` of the other; arguments and columns as in `pairs_within`."""
    table = pd.concat([one, other], ignore_index=True)
    both = pd.concat([prints, other_prints], ignore_index=True)
    return _pairs(table, both, np.arange(len(one)), np.arange(len(one), len(table)))


def _pairs(table: pd.DataFrame, prints: pd.DataFrame, left: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    near = same_pictures(prints)
    ids = _equal(table["image_id"].map(bare_id), left, right)
    files = _equal(prints["sha256"].where(prints["sha256"] != ""), left, right)
    distances = {(int(a), int(b)): int(distance) for a, b, distance in near}
    wanted_left, wanted_right = set(left.tolist()), set(right.tolist())
    keys = sorted({pair for pair in {*distances, *ids, *files} if pair[0] in wanted_left and pair[1] in wanted_right})
    first, second = [key[0] for key in keys], [key[1] for key in keys]
    frame = pd.DataFrame({f"a_{name}": table[name].to_numpy()[first] for name in _SIDES}, dtype=object)
    frame = frame.assign(**{f"b_{name}": table[name].to_numpy()[second] for name in _SIDES})
    return frame.assign(
        same_id=[key in ids for key in keys],
        same_file=[key in files for key in keys],
        distance=[distances.get(key, -1) for key in keys],
    )


def _equal(values: pd.Series, left: np.ndarray, right: np.ndarray) -> set[tuple[int, int]]:
    """Pairs (position, later position) of equal values, one of `left` and one of `right`; missing values equal nothing."""
    one = pd.DataFrame({"value": values.iloc[left].to_numpy(), "a": left}).dropna()
    other = pd.DataFrame({"value": values.iloc[right].to_numpy(), "b": right}).dropna()
    met = one.merge(other, on="value")
    met = met[met["a"] < met["b"]]
    return set(zip(met["a"].tolist(), met["b"].tolist(), strict=True))


def repeated_groups(table: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """(N,) int: groups, those that share a picture united, so that no picture is on both sides of a split by them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    position = pd.Series(range(len(table)), index=table["image_id"])
    codes, _ = pd.factorize(table["group_id"])
    first, second = codes[position[pairs["a_image_id"]]], codes[position[pairs["b_image_id"]]]
    count = int(codes.max()) + 1
    joined = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(joined, directed=False)[1][codes]


def found_within(pairs: pd.DataFrame) -> list[Finding]:
    """What pairs of one data set mean, the worst first; each pair is told once."""
    conflict = (pairs["a_label"] != pairs["b_label"]) & (pairs["a_label"] != "") & (pairs["b_label"] != "")
    across = (pairs["a_split"] != pairs["b_split"]) & (pairs["a_split"] != "") & (pairs["b_split"] != "")
    same_file, same_group = pairs["same_file"], pairs["a_group_id"] == pairs["b_group_id"]
    kinds: list[tuple[Severity, pd.Series, str, str]] = [
        ("error", conflict & same_file, "of identical files with different labels", "At least one label of each pair is wrong."),
        ("error", across, "of equal pictures in two official parts", "The official split leaks: leave one of each pair out."),
        ("warning", conflict, "that look the same, with different labels", "Look at them: one lesion cannot be both."),
        ("warning", same_file, "of identical files", "They count twice; unless grouped, a split can put them on both sides."),
        (
            "warning",
            ~same_group,
            "that look the same, but are not in one group",
            "A split by group can put them on both sides; unite their groups, or leave one of each pair out.",
        ),
        ("info", same_group, "that look the same within one group", "Harmless in a split by group."),
    ]
    found, left = [], pd.Series(True, index=pairs.index)
    for severity, chosen, words, advice in kinds:
        rows = pairs[left & chosen]
        left &= ~chosen
        if len(rows):
            found.append(Finding(severity, f"{counted(len(rows), 'pair')} {words}.", advice, _items(rows)))
    return found


def found_between(pairs: pd.DataFrame, own: Records, other: Records, name: str) -> list[Finding]:
    """What pairs with another data set mean.

    Args:
        pairs: as from `pairs_between`.
        own, other: both data sets; their rows without an image count as shared ids, too.
        name: what the other one is called.
    """
    found = []
    if own.classes != other.classes:
        pairs = pairs.assign(a_label="", b_label="")  # labels of other names (benign, NV) cannot be compared
    if len(pairs):
        images = pairs["a_image_id"].nunique()
        ways = [
            f"{int(pairs[column].sum()):,} {words}" for column, words in (("same_id", "by id"), ("same_file", "by their bytes"))
        ]
        ways.append(f"{int((pairs['distance'] >= 0).sum()):,} by sight")
        title = f"{counted(images, 'image')} also in {name} ({', '.join(ways)})."
        advice = f"Harmless alone; training on one set and testing on the other must leave them out. {_parts(pairs)}"
        found.append(Finding("warning", title, advice.strip(), _items(pairs, name)))
        differ = pairs[(pairs["a_label"] != pairs["b_label"]) & (pairs["a_label"] != "") & (pairs["b_label"] != "")]
        if len(differ):
            title = f"{counted(differ['a_image_id'].nunique(), 'image')} with another label in {name}."
            found.append(Finding("warning", title, "One of the two labels is out of date or wrong.", _items(differ, name)))
    told = _ids(own) & _ids(other) - {bare_id(image_id) for image_id in pairs["a_image_id"]}
    if told:
        title = f"{counted(len(told), 'more id')} shared with {name} by the tables, without an image here or there."
        found.append(Finding("info", title, "", tuple(Item(image_id) for image_id in sorted(told))))
    return found


def _ids(records: Records) -> set[str]:
    return {bare_id(image_id) for image_id in [*records.table["image_id"], *records.excluded["image_id"]]}


def _parts(pairs: pd.DataFrame) -> str:
    counts = Counter(zip(pairs["a_split"], pairs["b_split"], strict=True))
    told = [f"{count:,} of {here} here and {there} there" for (here, there), count in sorted(counts.items()) if here and there]
    return f"By part: {', '.join(told)}." if told else ""


def _items(pairs: pd.DataFrame, name: str = "") -> tuple[Item, ...]:
    return tuple(_item(row, name) for row in pairs.to_dict("records"))


def _item(row: dict, name: str) -> Item:
    other = f"{name} {row['b_image_id']}" if name else row["b_image_id"]
    return Item(f"{row['a_image_id']} = {other}", "; ".join(_ways(row)), (row["a_image"], row["b_image"]))


def _ways(row: dict) -> Iterable[str]:
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

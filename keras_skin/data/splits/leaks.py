"""The leak guard: no picture, image or group of images on two sides of training.

Images are matched by id (less `_downsampled`), by group (patient or lesion), by the bytes of their files, and by their pictures
(see `fingerprints`). Ids and groups that are plain numbers identify nothing outside their own data set; all others mean the same
everywhere: `HAM_0000550` is one lesion in HAM10000 and in ISIC 2019, `ISIC_0000000` one image in every year's challenge.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_skin.data.datasets.records import bare_id
from keras_skin.data.splits.fingerprints import MIN_DETAIL, fingerprints, same_pictures
from keras_skin.registry import UserError, did_you_mean, shorten

MODES = ("error", "exclude")
FITTED = ("train", "validation")
DROPPED_COLUMNS = ("image_id", "dataset", "label", "split", "reason")
_KINDS = ("id", "group", "file", "picture")
_SIDE = ("image_id", "dataset", "split", "label", "image")


def guard(
    table: pd.DataFrame,
    mode: str = "error",
    groups: bool = True,
    prints: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Keeps images that are validated or tested on out of training, and images that are tested on out of validation.

    Images that the test split and an external set share leak nothing, since neither is fitted: they are noted and stay in both.

    Args:
        table: columns `image_id, group_id, image, label, split, dataset` of texts; `split` is `train`, `validation`, `test` or
            `external/<name>`.
        mode: `"error"` lists the pairs; `"exclude"` drops images of the training side: from each union of images that are linked,
            directly or through others, the training images where any is validated or tested on, the validation images where any
            is tested on. Whole groups are dropped. Test and external images always stay.
        groups: whether a group in two splits is a leak; `False` where images were split one by one on purpose: then similar
            pictures of one group are no leak either, but one image or file in two splits still is.
        prints: fingerprints of (at least) the files of `table`; default: the files are read.

    Returns:
        The remaining rows; a table `image_id, dataset, label, split, reason` of the dropped ones; sentences with all counts.

    Raises:
        UserError: if two splits share an image and `mode` is `"error"`.
    """
    if mode not in MODES:
        raise UserError(f"leak_guard is {mode!r}, expected one of {', '.join(MODES)}.{did_you_mean(mode, MODES)}")
    rows = table.reset_index(drop=True)
    prints = _prints(rows, prints)
    leaks = find_leaks(rows, groups, prints)
    fitted, others = leaks[leaks["fitted"]], leaks[~leaks["fitted"]]
    notes = [f"Leak guard: compared {len(rows)} images by id, {'group, ' if groups else ''}file and picture."]
    if len(others):
        notes.append(f"Leak guard: {_pairs(others)}; both score them, none is trained on, and all stay.")
    if fitted.empty:
        return rows, pd.DataFrame(columns=list(DROPPED_COLUMNS), dtype=str), notes
    if mode == "error":
        raise UserError(describe_leaks(fitted))
    dropped = _dropped(rows, fitted, unite(rows, groups, prints))
    counts = dropped["split"].value_counts().reindex(FITTED, fill_value=0)
    notes.append(
        f"Leak guard: {_pairs(fitted)}. Left out for that: {counts['train']} images of the training split and "
        f"{counts['validation']} of the validation split."
    )
    return rows.drop(dropped.index).reset_index(drop=True), dropped.reset_index(drop=True), notes


def find_leaks(table: pd.DataFrame, groups: bool = True, prints: pd.DataFrame | None = None) -> pd.DataFrame:
    """Finds all pairs of images in different splits that are linked by id, group, file or picture.

    Args:
        table, groups, prints: as for `guard`.

    Returns:
        One row per pair: `kind` (all that apply, of `id, group, file, picture`; `group` only where the ids differ); `image_id,
        dataset, split, label, image` of the image nearer to training, and the same of the other with the prefix `other_`;
        `distance` of their hashes in bits (missing where either has none); `conflict`, whether one image has two different
        labels; `fitted`, whether either image is trained or validated on. Sorted: training first.
    """
    rows = table.reset_index(drop=True)
    prints = _prints(rows, prints)
    split = rows["split"].to_numpy(object)
    _check_splits(split)
    pairs_by = {kind: _across(keys, split) for kind, keys in _keys(rows, prints, groups).items()}
    pictures = _picture_pairs(rows, prints, groups)
    pairs_by["picture"] = pictures[split[pictures[:, 0]] != split[pictures[:, 1]]]
    codes = {kind: pairs.min(axis=1) * len(rows) + pairs.max(axis=1) for kind, pairs in pairs_by.items()}
    every = np.unique(np.concatenate(list(codes.values())))
    has = {kind: np.isin(every, codes[kind]) if kind in codes else np.zeros(len(every), bool) for kind in _KINDS}
    has["group"] &= ~has["id"]
    first, second = np.divmod(every, max(len(rows), 1))
    rank = np.array([_rank(name) for name in split], np.int64)
    names = rows["split"].to_numpy(str)
    swap = (rank[first] > rank[second]) | ((rank[first] == rank[second]) & (names[first] > names[second]))
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    kinds = [", ".join(kind for kind in _KINDS if has[kind][pair]) for pair in range(len(every))]
    leaks = pd.DataFrame({"kind": pd.Series(kinds, dtype=object)})
    for prefix, side in (("", first), ("other_", second)):
        for column in _SIDE:
            leaks[prefix + column] = rows[column].to_numpy(object)[side]
    has_picture = prints["detail"].to_numpy() >= MIN_DETAIL
    hashes = prints["phash"].to_numpy()
    bits = pd.Series(np.bitwise_count(hashes[first] ^ hashes[second]), dtype="Int64")
    leaks["distance"] = bits.mask(~(has_picture[first] & has_picture[second]))
    one_image = has["id"] | has["file"] | has["picture"]
    label, other = leaks["label"], leaks["other_label"]
    leaks["conflict"] = one_image & (label != other) & (label != "") & (other != "")
    leaks["fitted"] = rank[first] < len(FITTED)
    order = np.lexsort((second, names[second], first, rank[second], rank[first]))
    return leaks.iloc[order].reset_index(drop=True)


def unite(table: pd.DataFrame, groups: bool = True, prints: pd.DataFrame | None = None) -> np.ndarray:
    """Numbers the unions of linked images: if A and B are linked, and B and C, then A, B and C are one union.

    Args:
        table, groups, prints: as for `guard`; `split` is not needed.

    Returns:
        (N,) the number of each row's union, from 0 in the order of the rows.
    """
    rows = table.reset_index(drop=True)
    prints = _prints(rows, prints)
    links = [_picture_pairs(rows, prints, groups)]
    for keys in _keys(rows, prints, groups).values():
        known = np.flatnonzero(keys != "")
        codes, _ = pd.factorize(keys[known])
        heads = np.full(codes.max(initial=-1) + 1, len(rows), np.int64)
        np.minimum.at(heads, codes, known)
        links.append(np.column_stack([known, heads[codes]]))
    ends = np.concatenate(links)
    if not len(ends):
        return np.arange(len(rows))
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(rows), len(rows)))
    return pd.factorize(connected_components(graph, directed=False)[1])[0]


def describe_leaks(leaks: pd.DataFrame) -> str:
    """The error's text: how many pairs, by kind and splits; the first 20 with their files; what to do."""
    pairs = []
    for row in leaks.to_dict("records"):
        conflict = f"; label conflict: {row['label']} here, {row['other_label']} there" if row["conflict"] else ""
        files = list(dict.fromkeys(row[key] for key in ("image", "other_image") if row[key]))
        pairs.append(
            f"  {_place(row)} and {_place(row, 'other_')}: same {row['kind']}{conflict}\n"
            f"    {' and '.join(files) or 'no files here'}"
        )
    advice = (
        'Set leak_guard to "exclude" to drop the training side of each pair (the validation side of validation and test), or '
        "choose splits that have no image in common."
    )
    return "\n".join([f"Leak: {_pairs(leaks)}.", *shorten(pairs), advice])


def _pairs(leaks: pd.DataFrame) -> str:
    """`3 pairs of images on two sides (2 train-test, 1 validation-test; 1 by id, 3 by file; 1 with different labels)`."""
    sides = (leaks["split"] + "-" + leaks["other_split"]).value_counts(sort=False)
    kinds = leaks["kind"].str.split(", ").explode().value_counts().reindex(_KINDS, fill_value=0)
    counts = [
        ", ".join(f"{count} {name}" for name, count in sides.items()),
        ", ".join(f"{count} by {kind}" for kind, count in kinds.items() if count),
    ]
    if leaks["conflict"].any():
        counts.append(f"{leaks['conflict'].sum()} with different labels")
    return f"{len(leaks)} pair{'s' if len(leaks) != 1 else ''} of images on two sides ({'; '.join(counts)})"


def _place(row: dict[Any, Any], prefix: str = "") -> str:
    return f"{row[prefix + 'image_id']} ({row[prefix + 'split']} of {row[prefix + 'dataset']})"


def _dropped(rows: pd.DataFrame, leaks: pd.DataFrame, unions: np.ndarray) -> pd.DataFrame:
    """The rows to drop: those whose union has a row of a later split."""
    side = rows["split"].map(_rank).clip(upper=len(FITTED)).to_numpy()
    latest = pd.Series(side).groupby(unions).transform("max").to_numpy()
    stay = np.flatnonzero(side == latest)
    winner = dict(zip(unions[stay][::-1], stay[::-1], strict=True))
    direct: dict[tuple[str, str], str] = {}
    for pair in leaks.to_dict("records"):
        direct.setdefault((pair["dataset"], pair["image_id"]), f"{_place(pair, 'other_')}: same {pair['kind']}")
    table = rows.to_dict("records")
    dropped = np.flatnonzero(side < latest)
    reasons = [
        direct.get(
            (table[row]["dataset"], table[row]["image_id"]),
            f"{_place(table[winner[unions[row]]])}: linked through other images",
        )
        for row in dropped
    ]
    return rows.loc[dropped, list(DROPPED_COLUMNS[:-1])].assign(reason=[f"leak: {reason}" for reason in reasons])


def _across(keys: np.ndarray, split: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of rows of different splits that have the same key, other than ""."""
    frame = pd.DataFrame({"key": keys, "split": split, "row": np.arange(len(keys))})
    frame = frame[frame["key"] != ""]
    frame = frame[frame.groupby("key")["split"].transform("nunique") > 1]
    rows_of = {name: rows[["key", "row"]] for name, rows in frame.groupby("split")}
    pairs = [
        rows_of[one].merge(rows_of[other], on="key")[["row_x", "row_y"]].to_numpy(np.int64)
        for one, other in combinations(rows_of, 2)
    ]
    return np.concatenate([np.empty((0, 2), np.int64), *pairs])


def _keys(rows: pd.DataFrame, prints: pd.DataFrame, groups: bool) -> dict[str, np.ndarray]:
    """What identifies each row besides its picture: texts by kind, "" where unknown."""
    keys = {"id": _anywhere(rows["image_id"].map(bare_id), rows), "file": prints["sha256"].to_numpy(object)}
    return keys | ({"group": _anywhere(rows["group_id"], rows)} if groups else {})


def _anywhere(names: pd.Series, rows: pd.DataFrame) -> np.ndarray:
    """Names that mean the same in every data set: plain numbers are prefixed with the name of their data set."""
    number = names.str.fullmatch(r"[\d.]+")
    return names.where(~number, rows["dataset"] + "\n" + names).to_numpy(object)


def _picture_pairs(rows: pd.DataFrame, prints: pd.DataFrame, groups: bool) -> np.ndarray:
    """(P, 2) pairs of rows of similar pictures; within a group only where groups must not straddle splits."""
    pairs = same_pictures(prints)[:, :2]
    names = _anywhere(rows["group_id"], rows)
    one_group = (names[pairs[:, 0]] == names[pairs[:, 1]]) & (names[pairs[:, 0]] != "")
    return pairs if groups else pairs[~one_group]


def _prints(rows: pd.DataFrame, prints: pd.DataFrame | None) -> pd.DataFrame:
    """One fingerprint per row; an empty one for a row without a file."""
    files = rows["image"]
    named = files[files != ""].unique()
    prints = fingerprints(named) if prints is None else prints.drop_duplicates("path")
    missing = set(named) - set(prints["path"])
    if missing:
        raise ValueError(f"no fingerprints of {len(missing)} files, for example {min(missing)}")
    no_file = pd.DataFrame({"path": "", "sha256": "", "phash": np.zeros(1, np.uint64), "detail": 0.0, "thumbnail": b""})
    places = pd.Index(prints["path"]).get_indexer(files)  # -1, the last row, for rows without a file
    return pd.concat([prints[prints["path"] != ""], no_file]).iloc[places].reset_index(drop=True)


def _rank(split: str) -> int:
    """Order of the splits, those nearest to training first: 0 `train`, 1 `validation`, 2 `test`, 3 any external set."""
    return ("train", "validation", "test").index(split) if not split.startswith("external/") else 3


def _check_splits(split: np.ndarray) -> None:
    unknown = {name for name in set(split) if name not in (*FITTED, "test") and not name.startswith("external/")}
    if unknown:
        raise ValueError(f"unknown splits {sorted(unknown)}, expected train, validation, test or external/<name>")

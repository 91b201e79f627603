"""The same picture in two data sets: known by its id (less `_downsampled`), its group, or the bytes of its file.

305 of the 379 test images of ISIC 2016 are training images of ISIC 2017: whoever trains on one and tests on the other must look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from keras_skin.data.records import Records, bare_id
from keras_skin.registry import UserError, did_you_mean

DROPPED_COLUMNS = ("image_id", "dataset", "label", "reason")


def add_training(
    base: pd.DataFrame,
    extra: Records,
    only_labels: Sequence[str] | None = None,
    held_out: Sequence[pd.DataFrame] = (),
    parts: Sequence[str] = ("train", "validation"),
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Adds images of another data set to the training part, without those that validate or test, and without repeats.

    Args:
        base: table with `split` (`train`, `validation`, `test`) and `dataset`.
        extra: where more training images come from.
        only_labels: the labels wanted; default: all.
        held_out: tables of more images that must not be trained on: external test sets, and the rows of official validation and
            test parts that have no image here (`Records.excluded`). Columns `image_id`, and where known `group_id`, `image`,
            `label` and `dataset`.
        parts: the official parts of `extra` that are taken (images without an official part always are).

    Returns:
        The base and the added rows (`split` is `train`), by `image_id`; sentences with all counts; and a table
        `image_id, dataset, label, reason` of what was not taken.

    Raises:
        UserError: if a label is not one of the data set's.
    """
    for label in only_labels or ():
        if label not in extra.classes:
            raise UserError(
                f"{extra.name} has no label {label!r}.{did_you_mean(label, extra.classes)} Known: {', '.join(extra.classes)}."
            )
    wanted = extra.table if only_labels is None else extra.table[extra.table["label"].isin(list(only_labels))]
    kept_back = pd.concat([_known(base[base["split"] != "train"]), *(_known(table) for table in held_out)])
    trained = _known(base[base["split"] == "train"])
    sizes = {Path(file).stat().st_size for file in wanted["image"]}
    away, here = _Seen(kept_back, sizes, groups=True), _Seen(trained, sizes, groups=False)
    added, dropped = [], []
    for row in wanted.sort_values("image_id").to_dict("records"):
        reason = f"in the {row['split']} part of {extra.name}" if row["split"] not in (*parts, "") else ""
        for seen, what in ((away, "held out for validation or test"), (here, "already in the training part")):
            match = seen.find(row) if not reason else None
            if match:
                conflict = match["label"] and match["label"] != row["label"]
                reason = what + (f", label conflict: {match['label']} there, {row['label']} here" if conflict else "")
        if reason:
            dropped.append({"image_id": row["image_id"], "dataset": extra.name, "label": row["label"], "reason": reason})
        else:
            added.append({**row, "split": "train"})
            here.add(row)
    left_out = pd.DataFrame(dropped, columns=list(DROPPED_COLUMNS), dtype=str)
    columns = list(dict.fromkeys([*base.columns, *extra.table.columns]))
    table = pd.concat([base, pd.DataFrame(added, columns=list(extra.table.columns), dtype=str)]).reindex(columns=columns)
    table = table.astype(object).where(table.notna(), "").astype(str)
    labelled = f" labelled {' or '.join(only_labels)}" if only_labels is not None else ""
    notes = [f"{extra.name}: {len(wanted)} images{labelled}: {len(added)} added to the training part, {len(dropped)} left out."]
    kinds = left_out["reason"].str.split(",").str[0].value_counts().sort_index()
    notes += [f"{extra.name}: {count} left out because {reason}." for reason, count in kinds.items()]
    conflicts = left_out[left_out["reason"].str.contains("label conflict")]
    if len(conflicts):
        notes.append(f"{extra.name}: {len(conflicts)} of those have another label there: {', '.join(conflicts['image_id'])}.")
    return table.sort_values("image_id", kind="stable", ignore_index=True), notes, left_out


def without_tested(
    base: pd.DataFrame, tested: pd.DataFrame, parts: Sequence[str] = ("train", "validation")
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leaves out of the fitted parts what a test set holds, too; the test set stays whole.

    Args:
        base: table with `split` and `dataset`.
        tested: table of all test images, with `split` and `dataset`.
        parts: the fitted parts.

    Returns:
        The rows that stay, and a table `image_id, dataset, label, split, reason` of those left out.
    """
    sizes = {Path(file).stat().st_size for file in base["image"]}
    known = _Seen(_known(tested), sizes, groups=True)
    kept, dropped = [], []
    for row in base.to_dict("records"):
        match = known.find(row) if row["split"] in parts else None
        kept.append(match is None)
        if match:
            dropped.append(
                {
                    **{key: row[key] for key in ("image_id", "dataset", "label", "split")},
                    "reason": f"the same image or group is tested on in {match['dataset']}, as {match['image_id']}",
                }
            )
    return base[kept], pd.DataFrame(dropped, columns=[*DROPPED_COLUMNS[:3], "split", "reason"], dtype=str)


class _Seen:
    """Images by bare id, by content, and if asked by group; only files of one of `sizes` bytes are read: no others can equal."""

    def __init__(self, table: pd.DataFrame, sizes: Iterable[int], groups: bool) -> None:
        self._sizes, self._groups = set(sizes), groups
        self._by_key: dict[str, dict[Any, str]] = {}
        for row in table.to_dict("records"):
            self.add(row)

    def add(self, row: dict[Any, str]) -> None:
        for key in self._keys(row):
            self._by_key.setdefault(key, row)

    def find(self, row: dict[Any, str]) -> dict[Any, str] | None:
        return next((self._by_key[key] for key in self._keys(row) if key in self._by_key), None)

    def _keys(self, row: dict[Any, str]) -> Iterable[str]:
        yield f"id {bare_id(row['image_id'])}"
        if self._groups and row["group_id"]:
            yield f"group {row['group_id']}"
        if row["image"] and Path(row["image"]).stat().st_size in self._sizes:
            yield f"sha256 {hashlib.sha256(Path(row['image']).read_bytes()).hexdigest()}"


def _known(table: pd.DataFrame) -> pd.DataFrame:
    return table.reindex(columns=["image_id", "group_id", "image", "label", "dataset"], fill_value="").fillna("")

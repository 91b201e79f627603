"""Images of several data sets in one experiment: which of them may be added to the training split.

`leaks` defines what counts as the same image and the same group. 305 of the 379 test images of ISIC 2016 are training images of
ISIC 2017: whoever trains on one and tests on the other must check.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import pandas as pd

from keras_skin.data.datasets.records import Records
from keras_skin.data.splits.leaks import unite
from keras_skin.registry import UserError, did_you_mean

DROPPED_COLUMNS = ("image_id", "dataset", "label", "reason")
_IDENTITY = ["image_id", "group_id", "image", "label", "dataset"]


class OverlapKind(StrEnum):
    """Why an image is not added to the training split; the value is the start of its `reason`."""

    HELD_OUT = "held out for validation or test"
    IN_TRAINING = "already in the training split"
    OTHER_SPLIT = "in another split of its own data set"


def add_training(
    base: pd.DataFrame,
    extra: Records,
    only_labels: Sequence[str] | None = None,
    held_out: Sequence[pd.DataFrame] = (),
    splits: Sequence[str] = ("train", "validation"),
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Adds images of another data set to the training split, without those that validate or test, and without repeats.

    Args:
        base: table with `split` (`train`, `validation`, `test`) and `dataset`.
        extra: the other data set.
        only_labels: the labels to add; default: all.
        held_out: tables of more images that must not be trained on: external test sets, and the rows of official validation and
            test splits that have no image (`Records.excluded`). Columns `image_id`, and where known `group_id`, `image`, `label`
            and `dataset`.
        splits: the official splits of `extra` to add (images without an official split are always added).

    Returns:
        The base and the added rows (`split` is `train`), by `image_id`; sentences with all counts; and a table
        `image_id, dataset, label, reason, kind, conflict` of the images that were left out: `kind` is an `OverlapKind`,
        `conflict` whether the same image has another label elsewhere.

    Raises:
        UserError: if a label is not one of the data set's.
    """
    for label in only_labels or ():
        if label not in extra.classes:
            raise UserError(
                f"{extra.name} has no label {label!r}.{did_you_mean(label, extra.classes)} Known: {', '.join(extra.classes)}."
            )
    candidates = extra.table if only_labels is None else extra.table[extra.table["label"].isin(list(only_labels))]
    candidates = candidates.sort_values("image_id", ignore_index=True)
    in_other_split = ~candidates["split"].isin([*splits, ""])
    untrained = pd.concat([base[base["split"] != "train"], *held_out])
    overlap = pd.DataFrame({"kind": "", "reason": "", "conflict": False}, index=candidates.index)
    overlap.loc[in_other_split, "kind"] = OverlapKind.OTHER_SPLIT
    overlap["reason"] = ("in the " + candidates["split"] + f" split of {extra.name}").where(in_other_split, "")
    overlap.update(_overlap(untrained, base[base["split"] == "train"], candidates[~in_other_split]))
    is_added = overlap["kind"] == ""
    added = candidates[is_added].assign(split="train")
    left_out = candidates[~is_added].assign(dataset=extra.name)[["image_id", "dataset", "label"]].astype(str)
    left_out = left_out.join(overlap[["reason", "kind", "conflict"]]).reset_index(drop=True)
    columns = list(dict.fromkeys([*base.columns, *extra.table.columns]))
    table = pd.concat([base, added]).reindex(columns=columns)
    table = table.astype(object).where(table.notna(), "").astype(str)
    labelled = f" labelled {' or '.join(only_labels)}" if only_labels is not None else ""
    notes = [
        f"{extra.name}: {len(candidates)} images{labelled}: {len(added)} added to the training split, {len(left_out)} left out."
    ]
    plain = left_out["reason"].where(left_out["kind"] == OverlapKind.OTHER_SPLIT, left_out["kind"])
    counts = plain.value_counts().sort_index()
    notes += [f"{extra.name}: {count} left out because {reason}." for reason, count in counts.items()]
    conflicts = left_out.loc[left_out["conflict"].astype(bool), "image_id"]
    if len(conflicts):
        notes.append(f"{extra.name}: {len(conflicts)} of those have another label there: {', '.join(conflicts)}.")
    return table.sort_values("image_id", kind="stable", ignore_index=True), notes, left_out


def without_fitted(
    table: pd.DataFrame, fitted: pd.DataFrame, owner: str, mode: str
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Removes the test images that another model was trained or chosen on, and the validation images that it was trained on: the
    segmenter, whose masks of them are better than those of new images, or the model whose weights the training starts from.

    Validation images that the other model was only chosen on stay, because this run chooses on them too.

    Args:
        table: all splits, with `split` and `dataset`.
        fitted: the other model's images, `image_id, group_id, label, dataset` and `split`, train or validation; matched by id and
            group, since their files may be elsewhere.
        owner: names the other model at the start of a sentence.
        mode: `"error"` lists the images, `"exclude"` removes them.

    Returns:
        The remaining rows; a table `image_id, dataset, label, split, reason` of the removed ones; sentences with the counts.

    Raises:
        UserError: if there are any and `mode` is `"error"`.
    """
    measured = table[table["split"] != "train"]
    unions = unite(pd.concat([_identity(fitted.assign(image="")), _identity(measured)], ignore_index=True))
    theirs, ours = unions[: len(fitted)], unions[len(fitted) :]
    is_trained = np.isin(ours, theirs[(fitted["split"] == "train").to_numpy()])
    is_fitted = is_trained | (np.isin(ours, theirs) & (measured["split"] != "validation").to_numpy())
    if not is_fitted.any():
        return table, measured[:0].reindex(columns=[*DROPPED_COLUMNS, "split"], fill_value=""), []
    counts = measured.loc[is_fitted, "split"].value_counts().sort_index()
    listed = ", ".join(f"{count} of {split}" for split, count in counts.items())
    note = f"{owner} was fitted on images, patients or lesions of the splits that are measured: {listed}"
    if mode == "error":
        names = ", ".join(measured.loc[is_fitted, "image_id"].head(5)) + (", ..." if is_fitted.sum() > 5 else "")
        raise UserError(
            f"Leak: {note} ({names}).\nSet data.leak_guard to 'exclude' to leave these images out of what is measured, or name "
            "one that was trained on other images."
        )
    dropped = measured[is_fitted].assign(
        reason=f"leak: {owner[0].lower()}{owner[1:]} was fitted on this image, patient or lesion"
    )
    dropped = dropped[[*DROPPED_COLUMNS, "split"]].reset_index(drop=True)
    return table.drop(measured.index[is_fitted]).reset_index(drop=True), dropped, [f"{note}; they are left out."]


def _overlap(held_out: pd.DataFrame, trained: pd.DataFrame, candidates: pd.DataFrame) -> pd.DataFrame:
    """Columns `kind`, `reason` and `conflict` for each candidate; `kind` is "" where it may be added."""
    every = pd.concat([_identity(held_out), _identity(trained), _identity(candidates)], ignore_index=True)
    linked, same = unite(every), unite(every.assign(group_id=""))
    held_out_unions = set(linked[: len(held_out)])
    first_row = {image: row for row, image in reversed(list(enumerate(same)))}
    labels, rows = every["label"].to_list(), []
    for row in range(len(held_out) + len(trained), len(every)):
        first = first_row[same[row]]
        kind = "" if first == row else OverlapKind.IN_TRAINING.value
        if linked[row] in held_out_unions:
            kind = OverlapKind.HELD_OUT.value
        conflict = kind != "" and labels[first] not in ("", labels[row])
        rows.append((kind, f"{kind}, label conflict: {labels[first]} there, {labels[row]} here" if conflict else kind, conflict))
    return pd.DataFrame(rows, columns=["kind", "reason", "conflict"], index=candidates.index)


def _identity(table: pd.DataFrame) -> pd.DataFrame:
    return table.reindex(columns=_IDENTITY, fill_value="").fillna("")

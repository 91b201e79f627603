"""Images of several data sets in one experiment: what may be added to the training part.

What counts as the same image, and as the same group, is said in `leaks`. 305 of the 379 test images of ISIC 2016 are training
images of ISIC 2017: whoever trains on one and tests on the other must look.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_skin.data.datasets.records import Records
from keras_skin.data.splits.leaks import unite
from keras_skin.registry import UserError, did_you_mean

DROPPED_COLUMNS = ("image_id", "dataset", "label", "reason")
_KNOWN = ["image_id", "group_id", "image", "label", "dataset"]


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
    wanted = wanted.sort_values("image_id", ignore_index=True)
    elsewhere = ~wanted["split"].isin([*parts, ""])
    kept_back = pd.concat([base[base["split"] != "train"], *held_out])
    reasons = ("in the " + wanted["split"] + f" part of {extra.name}").where(elsewhere, "")
    reasons.update(_repeats(kept_back, base[base["split"] == "train"], wanted[~elsewhere]))
    added = wanted[reasons == ""].assign(split="train")
    left_out = wanted[reasons != ""].assign(dataset=extra.name, reason=reasons[reasons != ""].to_list())
    left_out = left_out[list(DROPPED_COLUMNS)].astype(str).reset_index(drop=True)
    columns = list(dict.fromkeys([*base.columns, *extra.table.columns]))
    table = pd.concat([base, added]).reindex(columns=columns)
    table = table.astype(object).where(table.notna(), "").astype(str)
    labelled = f" labelled {' or '.join(only_labels)}" if only_labels is not None else ""
    notes = [f"{extra.name}: {len(wanted)} images{labelled}: {len(added)} added to the training part, {len(left_out)} left out."]
    kinds = left_out["reason"].str.split(",").str[0].value_counts().sort_index()
    notes += [f"{extra.name}: {count} left out because {reason}." for reason, count in kinds.items()]
    conflicts = left_out[left_out["reason"].str.contains("label conflict")]
    if len(conflicts):
        notes.append(f"{extra.name}: {len(conflicts)} of those have another label there: {', '.join(conflicts['image_id'])}.")
    return table.sort_values("image_id", kind="stable", ignore_index=True), notes, left_out


def without_fitted(table: pd.DataFrame, fitted: pd.DataFrame, mode: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Leaves nothing in the parts that are measured which another model, that this one is chained to, was fitted on: its masks of
    such images are better than those of new ones.

    Args:
        table: all parts, with `split` and `dataset`.
        fitted: the other model's images, `image_id, group_id, label, dataset`; known again by id and group, since their files may
            be elsewhere.
        mode: `"error"` lists them, `"exclude"` leaves the measured images out: what was fitted cannot be unlearnt.

    Returns:
        The rows that stay; a table `image_id, dataset, label, split, reason` of those left out; sentences with the counts.

    Raises:
        UserError: if there are any and `mode` is `"error"`.
    """
    measured = table[table["split"] != "train"]
    unions = unite(pd.concat([_known(fitted.assign(image="")), _known(measured)], ignore_index=True))
    seen = np.isin(unions[len(fitted) :], unions[: len(fitted)])
    if not seen.any():
        return table, measured[:0].reindex(columns=[*DROPPED_COLUMNS, "split"], fill_value=""), []
    counts = ", ".join(f"{count} of {part}" for part, count in measured.loc[seen, "split"].value_counts().sort_index().items())
    told = f"The segmenter was fitted on images, patients or lesions of the parts that are measured: {counts}"
    if mode == "error":
        names = ", ".join(measured.loc[seen, "image_id"].head(5)) + (", ..." if seen.sum() > 5 else "")
        raise UserError(
            f"Leak: {told} ({names}).\nSet data.leak_guard to 'exclude' to leave these images out of what is measured, or name a "
            "segmenter that was trained on other images."
        )
    dropped = measured[seen].assign(reason="leak: the segmenter was fitted on this image, patient or lesion")
    dropped = dropped[[*DROPPED_COLUMNS, "split"]].reset_index(drop=True)
    return table.drop(measured.index[seen]).reset_index(drop=True), dropped, [f"{told}; they are left out."]


def _repeats(held_out: pd.DataFrame, trained: pd.DataFrame, wanted: pd.DataFrame) -> pd.Series:
    """Why rows of `wanted` may not be added: held out, trained on already, or wanted before under another name; else ""."""
    whole = pd.concat([_known(held_out), _known(trained), _known(wanted)], ignore_index=True)
    linked, same = unite(whole), unite(whole.assign(group_id=""))
    held = set(linked[: len(held_out)])
    first = {image: row for row, image in reversed(list(enumerate(same)))}
    labels, reasons = whole["label"].to_list(), []
    for row in range(len(held_out) + len(trained), len(whole)):
        other = first[same[row]]
        repeated = "already in the training part" if other < row else ""
        reason = "held out for validation or test" if linked[row] in held else repeated
        if reason and labels[other] not in ("", labels[row]):
            reason += f", label conflict: {labels[other]} there, {labels[row]} here"
        reasons.append(reason)
    return pd.Series(reasons, index=wanted.index, dtype=object)


def _known(table: pd.DataFrame) -> pd.DataFrame:
    return table.reindex(columns=_KNOWN, fill_value="").fillna("")

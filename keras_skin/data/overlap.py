"""Images of several data sets in one experiment: what may be added to the training part.

What counts as the same image, and as the same group, is said in `leaks`. 305 of the 379 test images of ISIC 2016 are training
images of ISIC 2017: whoever trains on one and tests on the other must look.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from keras_skin.data.leaks import unite
from keras_skin.data.records import Records
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

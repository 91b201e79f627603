"""Training, validation and test splits: by group, stratified by label, a pure function of the seed.

scikit-learn's grouped splitters depend on the order of the rows and on its version; a published split should not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_skin.registry import UserError, atomic_path, did_you_mean, escape_table, unescape_table

SPLITS = ("train", "validation", "test")
SCHEMES = ("official", "stratified", "kfold", "file")
PROTOCOLS = ("grouped", "paper")
SPLITS_COLUMNS = ("image_id", "group_id", "label", "split", "dataset")
_TEST, _VALIDATION, _FOLDS = 0, 1, 2  # random streams: the test split does not depend on the size of the validation split


def make_splits(
    table: pd.DataFrame,
    scheme: str = "official",
    validation: float = 0.15,
    test: float = 0.2,
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    classes: Sequence[str] = (),
    file: str | os.PathLike[str] | None = None,
    protocol: str = "grouped",
) -> pd.Series:
    """Assigns each row of a records table to a split.

    Args:
        table: columns `image_id, group_id, label, split`, in any order of rows; optionally `union_id`, wider groups of images
            that must stay together (`leaks.unite`).
        scheme: `"official"` takes the data set's own splits, and draws a validation split from the training split where there
            is none; `"stratified"` draws test and validation splits; `"kfold"` takes fold number `fold` of `folds` as test split
            and draws the validation split from the rest; `"file"` reads a `splits.csv`.
        validation: share of the images that validate, from 0 to below 1: of the training split (official), of all (stratified),
            of all outside the fold (kfold).
        test: share of all images that test (stratified only).
        folds: number of folds, at least 2.
        fold: 0 to `folds` - 1.
        seed: non-negative; the same seed, groups and labels give the same splits, whatever the order of the rows.
        classes: order of the labels; default: alphabetical.
        file: the `splits.csv`.
        protocol: `"grouped"` keeps the images of a group together; `"paper"` splits image by image, as most papers do, so that a
            lesion can lie on both sides (`straddling_groups` counts them). Use it only to compare with published numbers.

    Returns:
        A series of `"train"`, `"validation"` and `"test"` with the index of `table`.

    Raises:
        UserError: if the request cannot be met.
    """
    for setting, value, known in (("scheme", scheme, SCHEMES), ("protocol", protocol, PROTOCOLS)):
        if value not in known:
            raise UserError(f"There is no split {setting} {value!r}.{did_you_mean(value, known)} Known: {', '.join(known)}.")
    original, unit = table, "image_id" if protocol == "paper" else "union_id" if "union_id" in table else "group_id"
    table = table.assign(group_id=table[unit])
    if scheme == "file":
        split = _from_file(table, file)
    elif scheme == "official":
        split = _official(table, validation, seed, classes)
    else:
        groups = _groups(table, classes)
        if scheme == "stratified":
            assigned = _stratified(groups, validation, test, seed)
        else:
            assigned = _kfold(groups, validation, folds, fold, seed)
        split = table["group_id"].map(assigned)
    straddling = straddling_groups(original, split)
    if straddling and protocol == "grouped":
        listed = f"{', '.join(straddling[:20])}{' ...' if len(straddling) > 20 else ''}"
        raise UserError(
            f"{len(straddling)} groups lie in more than one split: {listed}. "
            "Images of one patient or lesion must stay together: use split.scheme 'stratified' or 'kfold', or accept the leak "
            "with split.protocol 'paper'."
        )
    return split.rename("split")


def straddling_groups(table: pd.DataFrame, split: pd.Series) -> list[str]:
    """Ids of the groups with images in more than one split, sorted."""
    count = split.groupby(table["group_id"]).nunique()
    return sorted(count[count > 1].index)


def _groups(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row per group, by id: its number of images and its most frequent label (of equals, the rarest of all)."""
    order = list(classes) if len(classes) else sorted(table["label"].unique())
    unknown = sorted(set(table["label"]) - set(order) - {""})
    if unknown:
        raise UserError(f"The table has labels {', '.join(unknown)} that are not among the classes {', '.join(order)}.")
    if (table["group_id"] == "").any():
        raise UserError(f"{(table['group_id'] == '').sum()} images have no group_id.")
    counts = pd.DataFrame({label: table["label"] == label for label in [*order, ""]}).groupby(table["group_id"]).sum()
    rarest_first = counts.sum().sort_values(kind="stable").index
    return pd.DataFrame({"size": counts.sum(axis=1), "label": counts[rarest_first].idxmax(axis=1)}).sort_index()


def _by_class(groups: pd.DataFrame, stream: Sequence[int]) -> list[tuple[str, pd.Series]]:
    """For each class the sizes of its groups, shuffled; a class's order depends on its own groups alone."""
    shuffled = []
    for label in sorted(groups["label"].unique()):
        sizes = groups.loc[groups["label"] == label, "size"]
        shuffled.append((label, sizes.iloc[np.random.default_rng([*stream, *label.encode()]).permutation(len(sizes))]))
    return shuffled


def _quotas(groups: pd.DataFrame, share: float) -> dict[str, int]:
    """Number of images of each class in a `share` of all, rounded by largest remainder, so that the sum is right."""
    exact = groups.groupby("label")["size"].sum() * share
    quotas = np.floor(exact + 1e-9)
    remainders = (exact - quotas).sort_values(ascending=False, kind="stable")
    quotas[remainders.index[: int(np.floor(exact.sum() + 0.5) - quotas.sum())]] += 1
    return quotas.astype(int).to_dict()


def _draw(groups: pd.DataFrame, quotas: dict[str, int], stream: Sequence[int], split: str) -> list[str]:
    """Draws groups that hold about `quotas` images of each class; of each class at least one group goes and one stays."""
    chosen: list[str] = []
    small: list[str] = []
    for label, sizes in _by_class(groups, stream):
        if len(sizes) < 2:
            small.append(f"class '{label}' has {len(sizes)} group")
            continue
        count = int(np.argmin(np.abs(sizes.cumsum().to_numpy() - quotas[label]))) + 1
        chosen += list(sizes.index[: min(count, len(sizes) - 1)])
    if small:
        raise UserError(f"A {split} split cannot be drawn: {'; '.join(small)}, at least 2 are needed.")
    return chosen


def _check_share(value: float, name: str) -> None:
    if not 0 <= value < 1:
        raise UserError(f"split.{name} is {value}, expected a share from 0 to below 1.")


def _stratified(groups: pd.DataFrame, validation: float, test: float, seed: int) -> dict[str, str]:
    _check_share(validation, "validation")
    _check_share(test, "test")
    if validation + test >= 1:
        raise UserError(f"split.validation {validation} and split.test {test} leave nothing for training.")
    assigned = dict.fromkeys(groups.index, "train")
    if test:
        assigned.update(dict.fromkeys(_draw(groups, _quotas(groups, test), [seed, _TEST], "test"), "test"))
    if validation:
        rest = groups[[assigned[group] == "train" for group in groups.index]]
        drawn_groups = _draw(rest, _quotas(groups, validation), [seed, _VALIDATION], "validation")
        assigned.update(dict.fromkeys(drawn_groups, "validation"))
    return assigned


def _kfold(groups: pd.DataFrame, validation: float, folds: int, fold: int, seed: int) -> dict[str, str]:
    """Deals each class's groups, the largest first, to the fold with the fewest images of the class."""
    _check_share(validation, "validation")
    if folds < 2 or not 0 <= fold < folds:
        raise UserError(f"split.folds is {folds} and split.fold {fold}, expected folds >= 2 and 0 <= fold < folds.")
    small = [f"'{label}' has {count}" for label, count in groups["label"].value_counts().sort_index().items() if count < folds]
    if small:
        raise UserError(f"{folds} folds need at least {folds} groups of each class; {', '.join(small)}. Lower split.folds.")
    fold_of: dict[str, int] = {}
    images = np.zeros(folds, int)
    for _, sizes in _by_class(groups, [seed, _FOLDS]):
        of_class = np.zeros(folds, int)
        for group, size in sizes.sort_values(ascending=False, kind="stable").items():
            chosen = min(range(folds), key=lambda number: (of_class[number], images[number], number))
            fold_of[str(group)] = chosen
            of_class[chosen] += size
            images[chosen] += size
    assigned = {group: "test" if number == fold else "train" for group, number in fold_of.items()}
    if validation:
        rest = groups[[fold_of[group] != fold for group in groups.index]]
        drawn_groups = _draw(rest, _quotas(rest, validation), [seed, _VALIDATION, fold], "validation")
        assigned.update(dict.fromkeys(drawn_groups, "validation"))
    return assigned


def _official(table: pd.DataFrame, validation: float, seed: int, classes: Sequence[str]) -> pd.Series:
    _check_share(validation, "validation")
    split = table["split"].copy()
    unknown = int((~split.isin(SPLITS)).sum())
    if unknown:
        raise UserError(f"{unknown} of {len(table)} images are in no official split; use split.scheme 'stratified' or 'kfold'.")
    if not (split == "train").any():
        raise UserError("There is no image of the official training split.")
    if validation and not (split == "validation").any():
        train = table[split == "train"]
        groups = _groups(train, classes)
        drawn_groups = _draw(groups, _quotas(groups, validation), [seed, _VALIDATION], "validation")
        split[(split == "train") & table["group_id"].isin(drawn_groups)] = "validation"
    return split


def _from_file(table: pd.DataFrame, file: str | os.PathLike[str] | None) -> pd.Series:
    if file is None:
        raise UserError("split.scheme 'file' needs split.file, the path of a splits.csv.")
    rows = read_splits(file)
    if "dataset" in table:
        rows = rows[rows["dataset"].isin([*table["dataset"].unique(), ""])]
    rows = rows[rows["split"].isin(SPLITS)]
    if rows["image_id"].duplicated().any():
        raise UserError(f"{file} has an image id twice: {rows['image_id'][rows['image_id'].duplicated()].iloc[0]}.")
    missing = sorted(set(table["image_id"]) - set(rows["image_id"]))
    extra = sorted(set(rows["image_id"]) - set(table["image_id"])) if "dataset" in table else []
    for ids, problem in ((missing, "images of the data have no row in"), (extra, "images are not in the data but have a row in")):
        if ids:
            raise UserError(f"{len(ids)} {problem} {file}: {', '.join(ids[:20])}{' ...' if len(ids) > 20 else ''}.")
    return table["image_id"].map(rows.set_index("image_id")["split"])


def write_splits(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes `image_id,group_id,label,split,dataset` of a records table."""
    with atomic_path(path) as temporary:
        rows = table[list(SPLITS_COLUMNS)].sort_values(["dataset", "image_id"])
        escape_table(rows).to_csv(temporary, index=False, lineterminator="\n")


def read_splits(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads what `write_splits` wrote, or a table of the same columns. The apostrophe of cells such as `'=x` is dropped.

    Raises:
        UserError: if the file cannot be read, a column is missing or a split is unknown.
    """
    try:
        table = unescape_table(pd.read_csv(path, dtype=str, keep_default_na=False))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a splits.csv: {error}.") from error
    missing = [column for column in SPLITS_COLUMNS if column not in table]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; expected {','.join(SPLITS_COLUMNS)}.")
    wrong = table.index[~table["split"].isin(SPLITS) & ~table["split"].str.startswith("external/")]
    if len(wrong):
        raise UserError(
            f"{path}, line {wrong[0] + 2}: found the split {table['split'][wrong[0]]!r}, "
            f"expected {', '.join(SPLITS)} or external/NAME ({len(wrong)} such lines)."
        )
    return table[list(SPLITS_COLUMNS)]

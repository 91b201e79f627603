"""Training, validation and test parts: by group, stratified by label, a pure function of the seed.

scikit-learn's grouped splitters depend on the order of the rows and on its version; a split that papers report should not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_skin.registry import UserError, atomic_path, did_you_mean

PARTS = ("train", "validation", "test")
SCHEMES = ("official", "stratified", "kfold", "file")
PROTOCOLS = ("grouped", "paper")
SPLITS_COLUMNS = ("image_id", "group_id", "label", "split", "dataset")
_TEST, _VALIDATION, _FOLDS = 0, 1, 2  # streams of randomness: the test part does not depend on the size of the validation part


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
    """Says for each row of a records table in which part it is.

    Args:
        table: columns `image_id, group_id, label, split`, in any order of rows; optionally `union_id`, wider groups of images
            that must not be parted (`leaks.unite`): what is carved out is carved by them.
        scheme: `"official"` takes the data set's own split, and carves a validation part from the training part where there is
            none; `"stratified"` carves test and validation parts; `"kfold"` takes fold number `fold` of `folds` as test part and
            carves the validation part from the rest; `"file"` reads a `splits.csv`.
        validation: share of the images that validate, from 0 to below 1: of the training part (official), of all (stratified), of
            what the fold leaves (kfold).
        test: share of all images that test (stratified only).
        folds: number of folds, at least 2.
        fold: 0 to `folds` - 1.
        seed: non-negative; the same seed, groups and labels give the same parts, whatever the order of the rows.
        classes: order of the labels; default: alphabetical.
        file: the `splits.csv`.
        protocol: `"grouped"` keeps the images of a group together; `"paper"` parts single images, as most papers do, so that a
            lesion can lie on both sides (`straddling_groups` counts them): to set a number beside a published one, no more.

    Returns:
        A series of `"train"`, `"validation"` and `"test"` with the table's index.

    Raises:
        UserError: if the request cannot be met.
    """
    if scheme not in SCHEMES:
        raise UserError(f"There is no split scheme {scheme!r}.{did_you_mean(scheme, SCHEMES)} Known: {', '.join(SCHEMES)}.")
    if protocol not in PROTOCOLS:
        raise UserError(
            f"There is no split protocol {protocol!r}.{did_you_mean(protocol, PROTOCOLS)} Known: {', '.join(PROTOCOLS)}."
        )
    whole, carved_by = table, "image_id" if protocol == "paper" else "union_id" if "union_id" in table else "group_id"
    table = table.assign(group_id=table[carved_by])
    if scheme == "file":
        parts = _from_file(table, file)
    elif scheme == "official":
        parts = _official(table, validation, seed, classes)
    else:
        groups = _groups(table, classes)
        if scheme == "stratified":
            assigned = _stratified(groups, validation, test, seed)
        else:
            assigned = _kfold(groups, validation, folds, fold, seed)
        parts = table["group_id"].map(assigned)
    torn = straddling_groups(whole, parts)
    if torn and protocol == "grouped":
        raise UserError(
            f"{len(torn)} groups lie in more than one part: {', '.join(torn[:20])}{' ...' if len(torn) > 20 else ''}. "
            "Images of one patient or lesion must stay together: use split.scheme 'stratified' or 'kfold', or ask for the leak "
            "with split.protocol 'paper'."
        )
    return parts.rename("split")


def straddling_groups(table: pd.DataFrame, parts: pd.Series) -> list[str]:
    """Ids of the groups with images in more than one part, sorted."""
    parts_of_group = parts.groupby(table["group_id"]).nunique()
    return sorted(parts_of_group[parts_of_group > 1].index)


def _groups(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row per group, by id: its number of images and its most frequent label (of equals, the one that is rarer overall)."""
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
    """How many images of each class make up `share` of all: whole numbers by largest remainder, so that the sum is right."""
    exact = groups.groupby("label")["size"].sum() * share
    quotas = np.floor(exact + 1e-9)
    remainders = (exact - quotas).sort_values(ascending=False, kind="stable")
    quotas[remainders.index[: int(np.floor(exact.sum() + 0.5) - quotas.sum())]] += 1
    return quotas.astype(int).to_dict()


def _carve(groups: pd.DataFrame, quotas: dict[str, int], stream: Sequence[int], what: str) -> list[str]:
    """Groups that hold so many images of each class, as near as whole groups allow; at least one group goes and one stays."""
    taken: list[str] = []
    short: list[str] = []
    for label, sizes in _by_class(groups, stream):
        if len(sizes) < 2:
            short.append(f"class '{label}' has {len(sizes)} group")
            continue
        count = int(np.argmin(np.abs(sizes.cumsum().to_numpy() - quotas[label]))) + 1
        taken += list(sizes.index[: min(count, len(sizes) - 1)])
    if short:
        raise UserError(f"A {what} part cannot be carved out: {'; '.join(short)}, at least 2 are needed.")
    return taken


def _share(value: float, name: str) -> None:
    if not 0 <= value < 1:
        raise UserError(f"split.{name} is {value}, expected a share from 0 to below 1.")


def _stratified(groups: pd.DataFrame, validation: float, test: float, seed: int) -> dict[str, str]:
    _share(validation, "validation")
    _share(test, "test")
    if validation + test >= 1:
        raise UserError(f"split.validation {validation} and split.test {test} leave nothing for training.")
    assigned = dict.fromkeys(groups.index, "train")
    if test:
        assigned.update(dict.fromkeys(_carve(groups, _quotas(groups, test), [seed, _TEST], "test"), "test"))
    if validation:
        rest = groups[[assigned[group] == "train" for group in groups.index]]
        carved = _carve(rest, _quotas(groups, validation), [seed, _VALIDATION], "validation")
        assigned.update(dict.fromkeys(carved, "validation"))
    return assigned


def _kfold(groups: pd.DataFrame, validation: float, folds: int, fold: int, seed: int) -> dict[str, str]:
    """Deals each class's groups, the largest first, to the fold that has fewest images of the class."""
    _share(validation, "validation")
    if folds < 2 or not 0 <= fold < folds:
        raise UserError(f"split.folds is {folds} and split.fold {fold}, expected folds >= 2 and 0 <= fold < folds.")
    few = [f"'{label}' has {count}" for label, count in groups["label"].value_counts().sort_index().items() if count < folds]
    if few:
        raise UserError(f"{folds} folds need at least {folds} groups of each class; {', '.join(few)}. Lower split.folds.")
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
        carved = _carve(rest, _quotas(rest, validation), [seed, _VALIDATION, fold], "validation")
        assigned.update(dict.fromkeys(carved, "validation"))
    return assigned


def _official(table: pd.DataFrame, validation: float, seed: int, classes: Sequence[str]) -> pd.Series:
    _share(validation, "validation")
    parts = table["split"].copy()
    unknown = int((~parts.isin(PARTS)).sum())
    if unknown:
        raise UserError(f"{unknown} of {len(table)} images are in no official part; use split.scheme 'stratified' or 'kfold'.")
    if not (parts == "train").any():
        raise UserError("There is no image of the official training part.")
    if validation and not (parts == "validation").any():
        train = table[parts == "train"]
        groups = _groups(train, classes)
        carved = _carve(groups, _quotas(groups, validation), [seed, _VALIDATION], "validation")
        parts[(parts == "train") & table["group_id"].isin(carved)] = "validation"
    return parts


def _from_file(table: pd.DataFrame, file: str | os.PathLike[str] | None) -> pd.Series:
    if file is None:
        raise UserError("split.scheme 'file' needs split.file, the path of a splits.csv.")
    told = read_splits(file)
    if "dataset" in table:
        told = told[told["dataset"].isin([*table["dataset"].unique(), ""])]
    told = told[told["split"].isin(PARTS)]
    if told["image_id"].duplicated().any():
        raise UserError(f"{file} has an image id twice: {told['image_id'][told['image_id'].duplicated()].iloc[0]}.")
    absent = sorted(set(table["image_id"]) - set(told["image_id"]))
    gone = sorted(set(told["image_id"]) - set(table["image_id"])) if "dataset" in table else []
    for ids, what in ((absent, "images of the data have no row in"), (gone, "images are not in the data but have a row in")):
        if ids:
            raise UserError(f"{len(ids)} {what} {file}: {', '.join(ids[:20])}{' ...' if len(ids) > 20 else ''}.")
    return table["image_id"].map(told.set_index("image_id")["split"])


def write_splits(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes `image_id,group_id,label,split,dataset` of a table whose `split` column says the part each row is in."""
    with atomic_path(path) as temporary:
        table[list(SPLITS_COLUMNS)].sort_values(["dataset", "image_id"]).to_csv(temporary, index=False, lineterminator="\n")


def read_splits(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads what `write_splits` wrote.

    Raises:
        UserError: if the file, a column or a part's name is not as expected.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a splits.csv: {error}.") from error
    absent = [column for column in SPLITS_COLUMNS if column not in table]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}; expected {','.join(SPLITS_COLUMNS)}.")
    wrong = table.index[~table["split"].isin(PARTS) & ~table["split"].str.startswith("external/")]
    if len(wrong):
        raise UserError(
            f"{path}, line {wrong[0] + 2}: found the split {table['split'][wrong[0]]!r}, "
            f"expected {', '.join(PARTS)} or external/NAME ({len(wrong)} such lines)."
        )
    return table[list(SPLITS_COLUMNS)]

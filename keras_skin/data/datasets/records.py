"""Records: one table of images, masks and labels per data set; finds a data set on disk and checks its files."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from keras_skin.data.datasets import readers
from keras_skin.registry import Entry, UserError, shorten

COLUMNS = ("image_id", "group_id", "image", "mask", "label", "split", "dataset")
LONGEST_ID = 240
"""Bytes of an image id in UTF-8. A run names files after it, and file systems allow 255 bytes with the ending."""
LONGEST_CLASS = 200
"""Bytes of the name of a class; the files of a run have words before and after it."""
EXCLUDED_COLUMNS = ("image_id", "file", "reason", "split", "label", "kind")


class ExclusionKind(StrEnum):
    """Why an image of a data set is not used; the sentence for people is in the column `reason`."""

    MISSING_IMAGE = "missing image"
    MISSING_MASK = "missing mask"
    MISSING_ROW = "missing row"
    STRAY_MASK = "stray mask"
    DUPLICATE_ID = "duplicate id"
    LABEL_CONFLICT = "label conflict"
    BAD_FILE = "bad file"
    BAD_NAME = "bad name"
    INCOMPLETE_METADATA = "incomplete metadata"


class MissingData(UserError):
    """A data set that was not found, or a folder that does not hold it."""


@dataclass(frozen=True)
class Records:
    """A data set: one row per usable image, and all images that are left out.

    Attributes:
        name: name of the data set.
        table: sorted by `image_id`, which is unique; columns `image_id, group_id, image, mask, label, split, dataset`,
            then metadata. Paths are absolute; an empty text stands for "none". `group_id` is the patient, else the lesion, else
            the image.
        classes: the labels, in the order of the model's outputs.
        excluded: images that cannot be used: `image_id, file, reason, split, label, kind` (an `ExclusionKind`).
        notes: sentences for the log and the report.
    """

    name: str
    table: pd.DataFrame
    classes: tuple[str, ...]
    excluded: pd.DataFrame
    notes: tuple[str, ...] = ()


def make_records(
    name: str,
    rows: pd.DataFrame | Sequence[dict[str, str]],
    classes: Sequence[str],
    excluded: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
) -> Records:
    """Builds Records from a reader's rows: fills in defaults, puts rows and columns in order.

    Args:
        name: name of the data set.
        rows: one per image, with at least `image_id` and `image`. An empty `group_id` becomes the bare image id; other missing
            cells become "".
        classes: the labels, in the order of the model's outputs.
        excluded: rows as from `excluded_rows`.
        notes: sentences for the log and the report.
    """
    table = pd.DataFrame(rows)
    table = table.reindex(columns=list(dict.fromkeys([*COLUMNS, *table.columns]))).astype(object).fillna("").astype(str)
    table["group_id"] = table["group_id"].where(table["group_id"] != "", table["image_id"].map(bare_id))
    table["dataset"] = name
    repeated = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise ValueError(f"the reader '{name}' returned an id twice: {repeated.iloc[0]}")
    table = table.sort_values("image_id", kind="stable", ignore_index=True)
    return Records(name, table, tuple(classes), _sorted(excluded_rows([], "") if excluded is None else excluded), tuple(notes))


def excluded_rows(
    images: Iterable[str] | pd.DataFrame,
    kind: str | Iterable[str],
    reason: str | Iterable[str] = "",
    file: str | Iterable[str] = "",
    split: str | Iterable[str] = "",
    label: str | Iterable[str] = "",
) -> pd.DataFrame:
    """Rows for `Records.excluded`, of columns or of one text for all rows.

    Args:
        images: ids, or a table whose columns `image_id`, `label` and, where it has one, `split` are taken.
        kind: an `ExclusionKind`, or one for each row.
    """
    if isinstance(images, pd.DataFrame):
        images, label, split = images["image_id"], images["label"], images.get("split", split)

    def cells(values: str | Iterable[str]) -> str | pd.Series:
        if isinstance(values, pd.Series):
            return values.reset_index(drop=True)
        return str(values) if isinstance(values, str) else pd.Series(list(values), dtype=str)

    image_ids = cells(images)
    rest = {"file": file, "reason": reason, "split": split, "label": label, "kind": kind}
    columns = {"image_id": image_ids, **{name: cells(values) for name, values in rest.items()}}
    return pd.DataFrame(columns, index=range(len(image_ids)), dtype=str)


def _sorted(excluded: pd.DataFrame) -> pd.DataFrame:
    return excluded.sort_values(["image_id", "file"], kind="stable", ignore_index=True)


def bare_id(image_id: str) -> str:
    """The id under which an image is known in every year's data set (a `_downsampled` copy shows the same picture)."""
    return image_id.removesuffix("_downsampled")


def read_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    folder: str | None = None,
    on_bad_image: str = "exclude",
    check_images: bool = True,
    **reader_args: Any,
) -> Records:
    """Finds a data set, reads its tables, and checks every image and mask by decoding it.

    Args:
        name: name of a registered reader.
        data_dir: folder that holds data sets, each under its usual name, or the data set's own folder.
        folder: the data set's folder, absolute or relative to `data_dir`; default: the reader's usual names.
        on_bad_image: `"exclude"` leaves out and lists images that cannot be used, `"error"` raises with the list.
        check_images: whether image and mask files are decoded.
        **reader_args: passed to the reader.

    Returns:
        The records; every row has an image that decodes.

    Raises:
        MissingData: if the data set is missing; the message says how to get it.
        UserError: if a table or the name of a class is invalid, no image can be used, or an image cannot be used and
            `on_bad_image` is `"error"`.
    """
    if on_bad_image not in ("exclude", "error"):
        raise UserError(f"on_bad_image is {on_bad_image!r}, expected 'exclude' or 'error'.")
    entry = readers.get(name)
    root, notes = locate(entry, data_dir, folder)
    if not is_text(str(root)):
        raise UserError(f"The path {str(root)!a} of the data set '{name}' has bytes that are not UTF-8. Rename the folder.")
    records = entry.builder(root, **reader_args)
    records = replace(records, notes=(f"{name}: read from {root}.", *notes, *records.notes))
    _check_classes(records.classes, name)
    records = check_names(records)
    if check_images:
        records = check_files(records)
    if on_bad_image == "error" and len(records.excluded):
        raise UserError(
            f"The data set '{name}' in {root} has {describe_excluded(records.excluded)}\n"
            "Fix the files, or set on_bad_image to 'exclude' to leave them out."
        )
    if records.table.empty:
        raise UserError(
            f"No image of the data set '{name}' in {root} can be used"
            + (f": {describe_excluded(records.excluded)}" if len(records.excluded) else ".")
            + f"\nExpected:\n{textwrap.indent(entry.info['tree'].strip(), '  ')}"
        )
    return records


def describe_excluded(excluded: pd.DataFrame, limit: int = 20) -> str:
    """`N images that cannot be used:` and the first `limit` of them, a line each; files that are only missing come last."""
    missing_last = (excluded["kind"] == ExclusionKind.MISSING_IMAGE).argsort(kind="stable")
    rows = excluded.iloc[missing_last][["image_id", "file", "reason"]].itertuples(index=False)
    lines = [f"  {image_id}: {reason}" + (f" ({file})" if file else "") for image_id, file, reason in rows]
    title = f"{len(lines)} image{'s' if len(lines) != 1 else ''} that cannot be used:"
    return "\n".join([title, *shorten(lines, limit)])


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8. File names with other bytes, and JSON with lone surrogates, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_classes(classes: Sequence[str], dataset: str) -> None:
    lines = []
    for name in classes:
        if not is_text(name):
            lines.append(f"  {name!r} has a character that is half of one (a lone surrogate), expected Unicode text.")
        elif len(name.encode()) > LONGEST_CLASS:
            lines.append(f"  {name[:40]!r}... has {len(name.encode())} bytes in UTF-8, expected at most {LONGEST_CLASS}.")
    if lines:
        title = f"Names of classes of the data set '{dataset}' cannot be names of files. Write them otherwise:"
        raise UserError("\n".join([title, *shorten(lines)]))


def check_names(records: Records) -> Records:
    """Moves the rows to `excluded` whose ids are too long to be names of files."""
    table = records.table
    sizes = table["image_id"].map(lambda image_id: len(image_id.encode()))
    bad = table[sizes > LONGEST_ID]
    reasons = [f"the id has {size} bytes in UTF-8, expected at most {LONGEST_ID}: rename the image" for size in sizes[bad.index]]
    bad_rows = excluded_rows(bad, ExclusionKind.BAD_NAME, reasons, bad["image"])
    excluded = _sorted(pd.concat([records.excluded, bad_rows]))
    return replace(records, table=table.drop(index=bad.index).reset_index(drop=True), excluded=excluded)


def check_files(records: Records) -> Records:
    """Decodes every image and mask in a thread pool and moves the rows whose files are bad to `excluded`."""
    from keras_skin.data.images.files import BadImage, check_image, check_mask

    def problems(image: str, mask: str) -> list[tuple[str, str]]:
        file_problems, header = [], None
        try:
            header = check_image(Path(image))
        except BadImage as error:
            file_problems.append((image, str(error)))
        if mask:
            try:
                check_mask(Path(mask), header)
            except BadImage as error:
                file_problems.append((mask, str(error)))
        return file_problems

    table, is_bad, files, reasons = records.table, [], [], []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for file_problems in pool.map(problems, table["image"], table["mask"]):
            is_bad.append(bool(file_problems))
            if file_problems:
                files.append("; ".join(file for file, _ in file_problems))
                reasons.append("; ".join(reason for _, reason in file_problems))
    bad = table.loc[is_bad]
    bad_rows = excluded_rows(bad, ExclusionKind.BAD_FILE, reasons, files)
    excluded = _sorted(pd.concat([records.excluded, bad_rows]))
    return replace(records, table=table.drop(index=bad.index).reset_index(drop=True), excluded=excluded)


def locate(entry: Entry, data_dir: str | os.PathLike[str] | None, folder: str | None = None) -> tuple[Path, list[str]]:
    """Folder of a data set, and a note where it does not have one of the usual names.

    Raises:
        MissingData: if there is no such folder, or more than one candidate.
    """
    recognises: Callable[[Path], bool] = entry.info["recognises"]
    base = Path(data_dir).expanduser().absolute() if data_dir is not None else None
    if folder is not None:
        places = [(base or Path.cwd()) / Path(folder).expanduser()]
    elif base is None:
        raise _missing(entry, [], "no data folder was given (--data DIR or $KERAS_SKIN_DATA)")
    else:
        places = [base / name for name in entry.info["folders"]] + [base]
    for place in places:
        if place.is_dir() and recognises(place):
            return place, []
    if folder is None and base is not None and base.is_dir():
        matches = [place for place in sorted(base.iterdir()) if place.is_dir() and recognises(place)]
        if len(matches) == 1:
            note = f"{entry.name}: no folder of the usual name; took the only one with its layout, '{matches[0].name}'."
            return matches[0], [note]
        if matches:
            raise _missing(
                entry,
                places,
                "more than one folder has its layout, name one of them as the data set's 'folder': "
                + ", ".join(place.name for place in matches),
            )
    raise _missing(entry, places)


def wrong_folder(entry: Entry, folder: Path) -> MissingData:
    """The error a reader raises for a folder that does not have its layout."""
    return _missing(entry, [folder])


def _missing(entry: Entry, places: Sequence[Path], why: str = "") -> MissingData:
    lines = [f"The data set '{entry.name}' ({entry.info['title']}) was not found" + (f": {why}." if why else ".")]
    if places:
        lines += ["Looked in:", *(f"  {place}: {_contents(place)}" for place in dict.fromkeys(places))]
    lines += [
        "Expected there:",
        textwrap.indent(entry.info["tree"].strip(), "  "),
        f"To get it: {entry.info['obtain']}",
        f"Terms: {entry.info['terms']}",
        "To try the experiment without it: --demo renders small synthetic stand-ins.",
    ]
    return MissingData("\n".join(lines))


def _contents(folder: Path, limit: int = 12) -> str:
    if not folder.is_dir():
        return "a file, not a folder" if folder.exists() else "not there"
    names = sorted(item.name + ("/" if item.is_dir() else "") for item in folder.iterdir())
    return "found " + (", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") or "nothing")

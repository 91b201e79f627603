"""Records: one table of images, masks and labels per data set, and how a data set is found on disk and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from keras_skin.data.datasets import readers
from keras_skin.registry import Entry, UserError

COLUMNS = ("image_id", "group_id", "image", "mask", "label", "split", "dataset")
EXCLUDED_COLUMNS = ("image_id", "file", "reason", "split", "label")
PRINTED = 20


class MissingData(UserError):
    """A data set that is not where it was looked for, or a folder that does not hold it."""


@dataclass(frozen=True)
class Records:
    """A data set: one row per usable image, and all that was left out.

    Attributes:
        name: name of the data set.
        table: sorted by `image_id`, which is unique; columns `image_id, group_id, image, mask, label, split, dataset`,
            then metadata. Paths are absolute; an empty text stands for "none". `group_id` is the patient, else the lesion, else
            the image.
        classes: the labels, in the order of the model's outputs.
        excluded: what the data set names but cannot be used: `image_id, file, reason, split, label`.
        notes: sentences for the log and the report.
    """

    name: str
    table: pd.DataFrame
    classes: tuple[str, ...]
    excluded: pd.DataFrame
    notes: tuple[str, ...] = ()


def make_records(
    name: str,
    rows: Sequence[dict[str, str]],
    classes: Sequence[str],
    excluded: Sequence[dict[str, str]] = (),
    notes: Sequence[str] = (),
) -> Records:
    """Builds Records from a reader's rows: fills in defaults, puts rows and columns in order.

    Args:
        rows: one dict per image with at least `image_id` and `image`; `group_id` defaults to the bare image id, `dataset` to
            `name`, the others to "".
        excluded: dicts with at least `image_id` and `reason`.
    """
    columns = list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)]))
    rows = [{**dict.fromkeys(columns, ""), "group_id": bare_id(row["image_id"]), "dataset": name, **row} for row in rows]
    table = pd.DataFrame(rows, columns=columns, dtype=str)
    table = table.sort_values("image_id", kind="stable", ignore_index=True)
    if table["image_id"].duplicated().any():
        raise ValueError(f"the reader '{name}' returned an id twice: {table['image_id'][table['image_id'].duplicated()].iloc[0]}")
    return Records(name, table, tuple(classes), _excluded_table(excluded), tuple(notes))


def bare_id(image_id: str) -> str:
    """The id under which an image is known in every year's data set (a `_downsampled` copy shows the same picture)."""
    return image_id.removesuffix("_downsampled")


def read_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    folder: str | None = None,
    on_bad_image: str = "exclude",
    check_images: bool = True,
    progress: Callable[[int, int], None] | None = None,
    **reader_args: Any,
) -> Records:
    """Finds a data set, reads its tables, and checks every image and mask by decoding it.

    Args:
        name: name of a registered reader.
        data_dir: folder that holds data sets, each under its usual name, or the data set's own folder.
        folder: the data set's folder, absolute or relative to `data_dir`; default: the reader's usual names.
        on_bad_image: `"exclude"` leaves out and lists what cannot be used, `"error"` raises with the list.
        check_images: whether image and mask files are decoded.
        progress: called with (files done, files in all).
        **reader_args: passed to the reader.

    Returns:
        The records; every row has an image that decodes.

    Raises:
        MissingData: if the data set is not there; the message says how to get it.
        UserError: if the tables are wrong, nothing is left, or something is bad and `on_bad_image` is `"error"`.
    """
    if on_bad_image not in ("exclude", "error"):
        raise UserError(f"on_bad_image is {on_bad_image!r}, expected 'exclude' or 'error'.")
    entry = readers.get(name)
    root, notes = locate(entry, data_dir, folder)
    records = entry.builder(root, **reader_args)
    records = replace(records, notes=(f"{name}: read from {root}.", *notes, *records.notes))
    if check_images:
        records = check_files(records, progress)
    if on_bad_image == "error" and len(records.excluded):
        raise UserError(
            f"The data set '{name}' in {root} has {describe_excluded(records.excluded)}\n"
            "Mend the files, or set on_bad_image to 'exclude' to go on without them."
        )
    if records.table.empty:
        raise UserError(
            f"No image of the data set '{name}' in {root} can be used"
            + (f": {describe_excluded(records.excluded)}" if len(records.excluded) else ".")
            + f"\nExpected:\n{indent(entry.info['tree'])}"
        )
    return records


def describe_excluded(excluded: pd.DataFrame, limit: int = PRINTED) -> str:
    """`N images that cannot be used:` and the first `limit` of them, a line each; files that are only absent come last."""
    absent_last = excluded["reason"].str.startswith("a row without an image")
    excluded = excluded.iloc[absent_last.argsort(kind="stable")]
    lines = [f"{len(excluded)} image{'s' if len(excluded) != 1 else ''} that cannot be used:"]
    for image_id, file, reason in excluded[["image_id", "file", "reason"]].head(limit).itertuples(index=False):
        lines.append(f"  {image_id}: {reason}" + (f" ({file})" if file else ""))
    if len(excluded) > limit:
        lines.append(f"  ... and {len(excluded) - limit} more")
    return "\n".join(lines)


def check_files(records: Records, progress: Callable[[int, int], None] | None = None) -> Records:
    """Decodes every image and mask in a thread pool and moves the rows whose files are bad to `excluded`."""
    from keras_skin.data.images.files import BadImage, check_image, check_mask

    def problems(image: str, mask: str) -> list[tuple[str, str]]:
        found, header = [], None
        try:
            header = check_image(Path(image))
        except BadImage as error:
            found.append((image, str(error)))
        if mask:
            try:
                check_mask(Path(mask), header)
            except BadImage as error:
                reason = str(error)
                found.append((mask, reason if reason.startswith("mask") else f"mask: {reason}"))
        return found

    table, bad = records.table, []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for index, found in enumerate(pool.map(problems, table["image"], table["mask"])):
            if found:
                row = table.iloc[index]
                bad.append(
                    {
                        "image_id": row["image_id"],
                        "file": "; ".join(file for file, _ in found),
                        "reason": "; ".join(reason for _, reason in found),
                        "split": row["split"],
                        "label": row["label"],
                    }
                )
            if progress is not None:
                progress(index + 1, len(table))
    if not bad:
        return records
    left_out = {row["image_id"] for row in bad}
    return replace(
        records,
        table=table[~table["image_id"].isin(left_out)].reset_index(drop=True),
        excluded=_excluded_table([*records.excluded.to_dict("records"), *bad]),
    )


def locate(entry: Entry, data_dir: str | os.PathLike[str] | None, folder: str | None = None) -> tuple[Path, list[str]]:
    """Folder of a data set, and notes on how it was found where that is not plain.

    Raises:
        MissingData: if there is none, or more than one candidate.
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
        found = [place for place in sorted(base.iterdir()) if place.is_dir() and recognises(place)]
        if len(found) == 1:
            return found[0], [f"{entry.name}: no folder of the usual name; took the only one with its layout, '{found[0].name}'."]
        if found:
            raise _missing(
                entry,
                places,
                "more than one folder has its layout, name one of them as the data set's 'folder': "
                + ", ".join(place.name for place in found),
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
        indent(entry.info["tree"]),
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


def indent(text: str) -> str:
    """Text with each line set in by two spaces."""
    return "\n".join(f"  {line}" for line in text.strip("\n").splitlines())


def _excluded_table(rows: Sequence[dict[Any, str]]) -> pd.DataFrame:
    rows = [{**dict.fromkeys(EXCLUDED_COLUMNS, ""), **row} for row in rows]
    table = pd.DataFrame(rows, columns=list(EXCLUDED_COLUMNS), dtype=str)
    return table.sort_values(["image_id", "file"], kind="stable", ignore_index=True)

"""What readers share: tables with checked ids, folders of images by id, and the join of the two."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_skin.registry import UserError

PRINTED = 20
_DECODED = (".jpg", ".jpeg", ".png", ".bmp")
_REFUSED = (".tif", ".tiff", ".gif", ".webp")  # found, so that the check of the file can refuse them by name
_RANK = {suffix: rank for rank, suffix in enumerate(_DECODED + _REFUSED)}


@dataclass
class Labels:
    """A table of labels: one entry per image id, and the rows that had to be left out."""

    file: Path
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    excluded: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Files:
    """Image files by id, and the files that are a second one for an id."""

    paths: dict[str, Path] = field(default_factory=dict)
    excluded: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Part:
    """One part of a challenge: where its images and masks lie and what its table says. `masks` is None without a mask folder."""

    split: str
    images: Files | None
    image_folder: str
    masks: Files | None
    mask_folder: str
    labels: Labels | None
    labels_name: str
    mask_suffix: str = "_segmentation"


def check_id(image_id: str) -> str | None:
    """Why an id from a table cannot be the name of a file, or None if it can (ids become paths: none may leave its folder)."""
    if not image_id:
        return "an empty image id"
    if ".." in image_id or any(character in image_id for character in "/\\:\0") or image_id.startswith("."):
        return f"image id {image_id!r} with '..' or a path separator"
    return None


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """Rows of a CSV as (line number, stripped cells), without blank lines.

    Raises:
        UserError: if it is not text, or empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError as error:
        lines = enumerate(path.read_bytes().splitlines(), 1)
        line = next(number for number, text in lines if text.decode("utf-8", errors="ignore").encode() != text)
        raise UserError(f"{path} is not a CSV in UTF-8, line {line}: found {error}, expected text in UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: found {error}, expected a CSV.") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows:
        raise UserError(f"{path}, line 1: the file is empty, expected a CSV.")
    return rows


def read_labels(
    path: Path,
    rows: Sequence[tuple[int, list[str]]],
    columns: int,
    parse: Callable[[list[str]], dict[str, str] | str],
    expected: str,
) -> Labels:
    """Turns the rows of a table into labels.

    Args:
        rows: (line number, cells) without the header; the first cell is the image id.
        columns: number of cells in a row.
        parse: gives a row's fields, among them `label`, or a text that says what is wrong.
        expected: what a row should look like, for messages.

    Returns:
        The labels. A repeated row is listed once as left out; rows of one id with different labels are left out altogether.

    Raises:
        UserError: with every row that cannot be read: file, line, found, expected.
    """
    mistakes: list[str] = []
    read: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, cells in rows:
        wrong = f"{len(cells)} columns" if len(cells) != columns else check_id(cells[0])
        fields = wrong or parse(cells)
        if isinstance(fields, str):
            mistakes.append(f"  line {line}: found {fields} in {','.join(cells)!r}")
        else:
            read.setdefault(cells[0], []).append((line, fields))
    if mistakes:
        more = [f"  ... and {len(mistakes) - PRINTED} more"] if len(mistakes) > PRINTED else []
        raise UserError("\n".join([f"{path} cannot be read; expected {expected}:", *mistakes[:PRINTED], *more]))
    labels = Labels(path)
    for image_id, entries in read.items():
        told = {entry[1]["label"] for entry in entries}
        if len(told) > 1:
            listed = ", ".join(f"{entry['label']} (line {line})" for line, entry in entries)
            labels.excluded.append(
                {"image_id": image_id, "file": str(path), "label": "", "reason": f"duplicate id with different labels: {listed}"}
            )
            continue
        labels.rows[image_id] = entries[0][1]
        for line, entry in entries[1:]:
            labels.excluded.append(
                {
                    "image_id": image_id,
                    "file": str(path),
                    "label": entry["label"],
                    "reason": f"duplicate id: line {line} repeats line {entries[0][0]}, which is used",
                }
            )
    return labels


def find_folder(root: Path, name: str) -> Path | None:
    """The folder of that name in `root`, whatever its letters' case."""
    if not root.is_dir():
        return None
    return next((item for item in sorted(root.iterdir()) if item.name.lower() == name.lower() and item.is_dir()), None)


def find_file(folders: Sequence[Path | None], name: str) -> Path | None:
    """The first file of that name in any of the folders, whatever its letters' case."""
    for folder in folders:
        if folder is not None and folder.is_dir():
            for item in sorted(folder.iterdir()):
                if item.name.lower() == name.lower() and item.is_file():
                    return item
    return None


def index_files(folders: Sequence[Path], suffix: str = "", ignore: Sequence[str] = ()) -> Files:
    """Image files by id, searched through all subfolders (archives are often unpacked into a folder of their own name).

    Args:
        folders: the first folder that has an id wins; a user may keep the same images for several tasks.
        suffix: end of the file's stem that is not part of the id, in any case, for example `_segmentation`.
        ignore: ends of stems of files that are something else.
    """
    files = Files()
    for folder in folders:
        here: dict[str, list[Path]] = {}
        for parent, subfolders, names in os.walk(folder):
            subfolders.sort()
            for name in names:
                stem, extension = os.path.splitext(name)
                lower = stem.lower()
                if extension.lower() not in _RANK or name.startswith(".") or any(lower.endswith(end) for end in ignore):
                    continue
                if lower.endswith(suffix):
                    here.setdefault(stem[: len(stem) - len(suffix)], []).append(Path(parent, name))
        for image_id, paths in here.items():
            if image_id in files.paths:
                continue
            first, *others = sorted(paths, key=lambda path: (_RANK[path.suffix.lower()], str(path)))
            files.paths[image_id] = first
            reason = f"duplicate id: a second file, {first.name} is used"
            files.excluded += [{"image_id": image_id, "file": str(path), "reason": reason} for path in others]
    return files


def join(part: Part) -> tuple[list[dict[str, str]], list[dict[str, str]], list[str]]:
    """Joins a part's table with its files.

    Returns:
        Rows, rows left out, and notes, each row with the part's `split`.
    """
    images = part.images or Files()
    notes: list[str] = []
    labels = part.labels.rows if part.labels is not None else {image_id: {"label": ""} for image_id in images.paths}
    excluded = [*images.excluded, *(part.masks.excluded if part.masks else []), *(part.labels.excluded if part.labels else [])]
    if part.labels is None and images.paths:
        notes.append(f"The {part.split} part has no {part.labels_name}: its {len(images.paths)} images have no label.")
    if part.images is None:
        notes.append(
            f"The {part.split} part has no images ({part.image_folder} is not there): "
            f"its {len(labels)} rows of {part.labels_name} are left out."
        )
    elif part.masks is None:
        notes.append(f"The {part.split} part has no masks ({part.mask_folder} is not there).")
    rows: list[dict[str, str]] = []
    for image_id, fields in labels.items():
        row = {"image_id": image_id, **fields}
        if image_id not in images.paths:
            excluded.append({**row, "file": str(part.labels.file) if part.labels else "", "reason": "a row without an image"})
        elif part.masks is not None and image_id not in part.masks.paths:
            excluded.append(
                {
                    **row,
                    "file": str(images.paths[image_id]),
                    "reason": f"no mask: {image_id}{part.mask_suffix}.png is not in {part.mask_folder}",
                }
            )
        else:
            mask = str(part.masks.paths[image_id]) if part.masks is not None else ""
            rows.append({**row, "image": str(images.paths[image_id]), "mask": mask})
    told = {row["image_id"] for row in part.labels.excluded} if part.labels else set()
    excluded += [
        {"image_id": image_id, "file": str(path), "reason": f"an image without a row in {part.labels_name}"}
        for image_id, path in images.paths.items()
        if image_id not in labels and image_id not in told
    ]
    for row in [*rows, *excluded]:
        row["split"] = part.split
    return rows, [{key: row.get(key, "") for key in ("image_id", "file", "reason", "split", "label")} for row in excluded], notes

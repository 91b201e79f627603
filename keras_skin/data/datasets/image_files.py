"""Image files by id, and their join with the rows of a table. Each folder is listed once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from keras_skin.data.datasets.records import ExclusionKind, excluded_rows, is_text
from keras_skin.data.datasets.tables import without_repeats

_DECODED = (".jpg", ".jpeg", ".png", ".bmp")
_REFUSED = (".tif", ".tiff", ".gif", ".webp")  # listed, so that the check of the files can refuse them by name
_RANK = {suffix: rank for rank, suffix in enumerate(_DECODED + _REFUSED)}


def find_folder(root: Path, name: str) -> Path | None:
    """The folder of that name in `root`, in any case."""
    if not root.is_dir():
        return None
    return next((item for item in sorted(root.iterdir()) if item.name.lower() == name.lower() and item.is_dir()), None)


def find_file(folders: Sequence[Path | None], name: str) -> Path | None:
    """The first file of that name in any of the folders, in any case."""
    for folder in folders:
        if folder is not None and folder.is_dir():
            for item in sorted(folder.iterdir()):
                if item.name.lower() == name.lower() and item.is_file():
                    return item
    return None


@dataclass(frozen=True)
class Files:
    """Image files by id. Further files of an id, and files whose paths are not UTF-8, are not used."""

    paths: dict[str, Path] = field(default_factory=dict)
    repeated: dict[str, list[Path]] = field(default_factory=dict)
    undecodable: list[Path] = field(default_factory=list)

    def excluded(self) -> pd.DataFrame:
        """The files that are not used, as excluded rows."""
        pairs = [(image_id, path) for image_id, paths in self.repeated.items() for path in paths]
        reasons = [f"duplicate id: a second file, {self.paths[image_id].name} is used" for image_id, _ in pairs]
        repeated = excluded_rows(
            [image_id for image_id, _ in pairs], ExclusionKind.DUPLICATE_ID, reasons, [str(path) for _, path in pairs]
        )
        names = [str(path).encode(errors="backslashreplace").decode() for path in self.undecodable]
        stems = [Path(name).stem for name in names]
        reason = "the path has bytes that are not UTF-8: rename the file or its folder"
        return pd.concat([repeated, excluded_rows(stems, ExclusionKind.BAD_NAME, reason, names)], ignore_index=True)


def index_files(folders: Iterable[Path], suffix: str = "", ignore: Sequence[str] = ()) -> Files:
    """Indexes image files by id, through all subfolders (archives are often unpacked into a folder of their own name).

    Args:
        folders: the first folder that has an id wins; a user may keep the same images for several tasks.
        suffix: end of a file's stem that is not part of the id, in any case, for example `_segmentation`.
        ignore: ends of stems of files that are something else.
    """
    files = Files()
    for folder in folders:
        candidates: dict[str, list[Path]] = {}
        for parent, subfolders, names in os.walk(folder):
            subfolders.sort()
            for name in names:
                stem, extension = os.path.splitext(name)
                lower = stem.lower()
                if extension.lower() not in _RANK or name.startswith(".") or any(lower.endswith(end) for end in ignore):
                    continue
                if not is_text(os.path.join(parent, name)):
                    files.undecodable.append(Path(parent, name))
                elif lower.endswith(suffix):
                    candidates.setdefault(stem[: len(stem) - len(suffix)], []).append(Path(parent, name))
        for image_id, paths in candidates.items():
            if image_id not in files.paths:
                first, *others = sorted(paths, key=lambda path: (_RANK[path.suffix.lower()], str(path)))
                files.paths[image_id] = first
                if others:
                    files.repeated[image_id] = others
    return files


def add_files(
    frame: pd.DataFrame,
    repeated: pd.DataFrame,
    table: Path,
    images: Files,
    masks: Files | None = None,
    missing_mask: str = "",
    split: str = "",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Adds the columns `image` and `mask` (absolute paths; `mask` is "" where there is none) and `split`.

    Args:
        frame: columns `image_id`, `label` and more, each id once.
        repeated: rows of the table that are excluded already.
        table: the file that `frame` comes from.
        images, masks: files by id.
        missing_mask: why an image without a mask is excluded, `{}` being its id; by default it is used without one.
        split: the official split.

    Returns:
        The rows that have an image, and all excluded rows.
    """
    rows = frame.assign(
        image=_paths(frame["image_id"], images), mask=_paths(frame["image_id"], masks) if masks else "", split=split
    )
    without_image = rows[rows["image"] == ""]
    stray = sorted(set(images.paths).difference(frame["image_id"], repeated["image_id"]))
    stray_files = [str(images.paths[image_id]) for image_id in stray]
    excluded = [
        repeated,
        excluded_rows(without_image, ExclusionKind.MISSING_IMAGE, "a row without an image", str(table)),
        excluded_rows(stray, ExclusionKind.MISSING_ROW, f"an image without a row in {table.name}", stray_files),
        images.excluded(),
    ]
    rows = rows.drop(index=without_image.index)
    if masks is not None:
        excluded.append(masks.excluded())
    if masks is not None and missing_mask:
        bare = rows[rows["mask"] == ""]
        reasons = [missing_mask.format(image_id) for image_id in bare["image_id"]]
        excluded.append(excluded_rows(bare, ExclusionKind.MISSING_MASK, reasons, bare["image"]))
        rows = rows.drop(index=bare.index)
    return rows, pd.concat(excluded, ignore_index=True).assign(split=split)


def _paths(ids: pd.Series, files: Files) -> pd.Series:
    return ids.map({image_id: str(path) for image_id, path in files.paths.items()}).astype(object).fillna("").astype(str)


@dataclass(frozen=True)
class ChallengeSplit:
    """The official names of the folders and the table of one split of a challenge.

    Attributes:
        split: `train`, `validation` or `test`.
        images: folders of images, any of which may be missing.
        table: the table of labels, in the data set's folder, a folder of its own name or one of `images`; "" without labels.
        masks: the folder of masks; "" without masks.
        mask_suffix: end of a mask's stem, for messages.
    """

    split: str
    images: tuple[str, ...]
    table: str = ""
    masks: str = ""
    mask_suffix: str = "_segmentation"

    def image_folders(self, root: Path) -> list[Path]:
        """The folders of images in the data set's folder."""
        folders = (find_folder(root, name) for name in self.images)
        return [folder for folder in folders if folder is not None]


def read_splits(
    root: Path, splits: Iterable[ChallengeSplit], read_labels: Callable[[Path], pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Joins the tables of a challenge's splits with their files. An image of several splits belongs to the first of them.

    Args:
        root: the data set's folder.
        splits: the official splits.
        read_labels: reads a table; returns columns `image_id`, `label` and more.

    Returns:
        The rows, the excluded rows, and notes.
    """
    joined, excluded, notes = [excluded_rows([], "")[["image_id", "label"]]], [], []
    for names in splits:
        folders, mask_folder = names.image_folders(root), find_folder(root, names.masks)
        table = find_file([root, find_folder(root, Path(names.table).stem), *folders], names.table)
        if not folders and table is None:
            notes.append(f"The {names.split} split is missing.")
            continue
        images = index_files(folders, ignore=("_segmentation", "_superpixels"))
        masks = index_files([mask_folder], "_segmentation") if mask_folder else None
        if table is not None:
            labels, repeated = without_repeats(read_labels(table), table)
        else:
            labels, repeated = pd.DataFrame({"image_id": list(images.paths), "label": ""}, dtype=str), excluded_rows([], "")
            if names.table:
                notes.append(f"The {names.split} split has no {names.table}: its {len(labels)} images have no label.")
        if not folders:
            notes.append(
                f"The {names.split} split has no images ({names.images[0]} is missing): "
                f"its {len(labels)} rows of {names.table} are left out."
            )
        elif masks is None and names.masks:
            notes.append(f"The {names.split} split has no masks ({names.masks} is missing).")
        missing_mask = f"no mask: {{}}{names.mask_suffix}.png is not in {names.masks}"
        rows, left_out = add_files(labels, repeated, table or root, images, masks, missing_mask, names.split)
        joined.append(rows)
        excluded.append(left_out)
        if table is None and masks is not None:
            stray = {image_id: str(path) for image_id, path in masks.paths.items() if image_id not in images.paths}
            reason = "a mask without an image"
            excluded.append(excluded_rows(stray, ExclusionKind.STRAY_MASK, reason, stray.values(), names.split))
    rows = pd.concat(joined, ignore_index=True).astype(object).fillna("").astype(str)
    repeated = rows[rows.duplicated("image_id")]
    rows = rows.drop(index=repeated.index)
    split_of = rows.set_index("image_id")["split"]
    reasons = [f"duplicate id: also in the {split_of[image_id]} split, which is used" for image_id in repeated["image_id"]]
    excluded.append(excluded_rows(repeated, ExclusionKind.DUPLICATE_ID, reasons, repeated["image"]))
    return rows, pd.concat(excluded, ignore_index=True), notes

"""A user's own images: a folder of images and a table with a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.image_files import add_files, find_file, find_folder, index_files
from keras_skin.data.datasets.readers import Licence, get, register
from keras_skin.data.datasets.records import ExclusionKind, Records, excluded_rows, make_records, wrong_folder
from keras_skin.registry import UserError

METADATA = {"age": "numeric", "sex": "categorical", "localization": "categorical"}
TABLE = "metadata.csv"
TREE = """
csv_folder/             (or any folder, named as the data set's "folder")
  images/               mole_0001.jpg ... (JPEG, PNG or BMP, searched through all folders)
  masks/                mole_0001.png ... (optional, of the images' sizes: the lesion is white)
  metadata.csv          image_id,label, and if known patient_id,lesion_id,mask,split,age,sex,localization
"""
COUNTS = {"benign": 40, "malignant": 24}
_LOOKS = {"benign": "NV", "malignant": "MEL"}
_OPTIONAL = ("patient_id", "lesion_id", "mask", "split", *METADATA)
_SUFFIX = r"\.(jpe?g|png|bmp)$"


def recognises(folder: Path) -> bool:
    """Whether the folder has `images/` and a `metadata.csv` other than that of PAD-UFES-20, whose ids stand in `img_id`."""
    table = find_file([folder], TABLE)
    if table is None or find_folder(folder, "images") is None:
        return False
    with table.open("rb") as stream:
        return b"img_id" not in stream.readline(10_000)


def render(folder: Path, seed: int = 0, counts: dict[str, int] | None = None, size: tuple[int, int] = (300, 400)) -> None:
    """Draws a small stand-in with masks and all clinical fields."""
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    image_counts = {_LOOKS[label]: count for label, count in drawing.counts_or_default(counts, COUNTS).items()}
    cases = clinical.rows_of("ham10000", seed, image_counts, dict.fromkeys(image_counts, 0), None)  # cases like those of HAM10000
    names = pd.Series([f"mole_{number:04d}" for number in range(1, len(cases) + 1)], dtype=str)
    diagnoses = cases["dx"].str.upper()
    rows = pd.DataFrame(
        {
            "image_id": names,
            "patient_id": cases["lesion_id"].str.replace("HAM_", "P"),
            "mask": names + ".png",
            **{name: cases[name].replace("unknown", "") for name in METADATA},
            "label": diagnoses.map({look: label for label, look in _LOOKS.items()}),
        }
    )
    with drawing.new_folder(folder, "a folder of one's own images", seed) as root:
        files, masks = "images/" + names + ".jpg", "masks/" + rows["mask"]
        looks.draw_all(seed, cases["lesion_id"], diagnoses, size, root, files, masks)
        clinical.write(rows, root / TABLE)


@register(
    "csv_folder",
    title="a folder of images with a table",
    folders=("csv_folder",),
    classes=("benign", "malignant"),
    tree=TREE,
    obtain="these are images of your own: put them into one folder as shown above",
    terms="yours",
    licence=Licence.OWN,
    render=render,
    recognises=recognises,
    metadata=METADATA,
    published={},
)
def read(folder: Path, classes: Sequence[str] | None = None) -> Records:
    """Reads a user's own images; the classes are the values of the column `label`. Labels that differ only in case, spaces or
    invisible characters are an error.

    `image_id` is the image's file name, with or without its extension; `label` a class, or nothing; `mask` the name of a file in
    masks/, or nothing. `group_id` is `patient_id`, else `lesion_id`, else the image: with neither, pictures of one patient can
    be on both sides of a split, and a note reports it. `split` (`train`, `validation`, `test`) is an official split where
    every row has one. `age` is in years, `sex` and `localization` are any words; an empty cell or `unknown` is unknown. Other
    columns are ignored.

    Args:
        classes: the classes in the order of the model's outputs, of two the positive one last; default: those of the table, in
            alphabetical order.
    """
    if not recognises(folder):
        raise wrong_folder(get("csv_folder"), folder)
    table, images = find_file([folder], TABLE), find_folder(folder, "images")
    assert table is not None
    assert images is not None
    rows = _rows(table, classes)
    labels = tuple(classes) if classes is not None else tuple(sorted(set(rows["label"]) - {""}))
    if len(labels) == 1:
        raise UserError(
            f"{table}: found the one label {labels[0]!r}, expected two classes or more, or no labels at all to train on masks."
        )
    rows, repeated = tables.without_repeats(rows, table)
    usable = rows.rename(columns={"mask": "mask_file"})
    usable, excluded = add_files(usable, repeated, table, index_files([images]))
    usable, without_mask, notes = _add_masks(usable, find_folder(folder, "masks"))
    excluded = pd.concat([excluded, without_mask])
    split_of = rows.set_index("image_id")["split"]
    usable["split"] = usable["image_id"].map(split_of)
    excluded["split"] = excluded["image_id"].map(split_of).astype(object).fillna("")
    notes = [*_notes(rows, labels, chosen=classes is not None), *notes]
    return make_records("csv_folder", usable.drop(columns="mask_file"), labels, excluded, notes)


def _rows(table: Path, classes: Sequence[str] | None) -> pd.DataFrame:
    columns = [
        tables.image_ids("image_id"),
        tables.text("label"),
        tables.text("patient_id", required=False),
        tables.text("lesion_id", required=False),
        tables.text("mask", required=False),
        tables.one_of("split", ("train", "validation", "test", ""), required=False),
        tables.number("age", 0, 120, required=False),
        tables.text("sex", required=False),
        tables.text("localization", required=False),
    ]
    rows = tables.read_table(table, columns)
    tables.refuse_lookalikes(rows["label"], table, classes or ())
    if classes is not None and set(rows["label"]) - {*classes, ""}:
        tables.read_table(table, [tables.one_of("label", [*classes, ""])])  # raises, with the lines
    stems = {name: rows[name].str.replace(_SUFFIX, "", case=False, regex=True) for name in ("image_id", "mask")}
    blank = {name: rows[name].mask(rows[name].str.lower() == "unknown", "") for name in ("sex", "localization")}
    groups = rows["patient_id"].where(rows["patient_id"] != "", rows["lesion_id"])
    return rows.assign(**stems, **blank, group_id=groups)


def _add_masks(rows: pd.DataFrame, folder: Path | None) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The rows with the paths of their masks, excluded rows whose mask is missing, and notes."""
    files = index_files([folder]) if folder is not None else None
    paths = {name: str(path) for name, path in files.paths.items()} if files is not None else {}
    masks = rows["mask_file"].map(paths).astype(object).fillna("").astype(str)
    missing = rows[(rows["mask_file"] != "") & (masks == "")]
    reasons = "no mask: " + missing["mask_file"] + " is not in masks/"
    excluded = excluded_rows(missing, ExclusionKind.MISSING_MASK, reasons, missing["image"])
    unnamed = len(set(paths) - set(rows["mask_file"]))
    notes = [f"{unnamed} files in masks/ are named by no row (column mask) and are ignored."] if unnamed else []
    return rows.assign(mask=masks).drop(index=missing.index), excluded, notes


def _notes(rows: pd.DataFrame, classes: Sequence[str], chosen: bool) -> list[str]:
    notes = []
    blank = [name for name in _OPTIONAL if (rows[name] == "").all()]
    if blank:
        notes.append(f"{TABLE} has no values for {', '.join(blank)}.")
    alone = int((rows["group_id"] == "").sum())
    if alone:
        notes.append(
            f"{alone} of {len(rows)} images name no patient_id and no lesion_id: pictures of one patient may be on both sides "
            "of a split, and the scores are then too good."
        )
    if len(classes) == 2 and not chosen:
        notes.append(
            f"The classes are {' and '.join(classes)}, in alphabetical order; {classes[1]} is the positive one. "
            'Set "classes" to change the order.'
        )
    return notes

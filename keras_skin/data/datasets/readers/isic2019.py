"""ISIC 2019 challenge: 25,331 training images of eight classes with age, sex, site and lesion; the test split has no labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.image_files import add_files, find_file, find_folder, index_files
from keras_skin.data.datasets.readers import Counts, Licence, get, register
from keras_skin.data.datasets.records import Records, make_records, wrong_folder
from keras_skin.registry import UserError

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
UNKNOWN = "UNK"
METADATA = {"age_approx": "numeric", "sex": "categorical", "anatom_site_general": "categorical"}
IMAGES = "ISIC_2019_Training_Input"
LABELS, DETAILS = "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv"
TREE = """
isic2019/
  ISIC_2019_Training_Input/             ISIC_0000000.jpg, ISIC_0000001_downsampled.jpg ... (a doubled folder is fine)
  ISIC_2019_Training_GroundTruth.csv    image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK
  ISIC_2019_Training_Metadata.csv       image,age_approx,anatom_site_general,lesion_id,sex
"""
COUNTS = {"MEL": 12, "NV": 24, "BCC": 12, "AK": 8, "BKL": 12, "DF": 8, "VASC": 8, "SCC": 8}


def recognises(folder: Path) -> bool:
    """Whether the folder has the training images' folder."""
    return find_folder(folder, IMAGES) is not None


def render(
    folder: Path, seed: int = 0, counts: Counts = None, size: tuple[int, int] = (300, 400), table: pd.DataFrame | None = None
) -> None:
    """Draws a small stand-in in the official layout, in the doubled folder that the archive is often unpacked to.

    A `table` has the columns of both official tables, joined on `image`.
    """
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    rows = clinical.rows_of("isic2019", seed, counts, COUNTS, table)
    columns = [*CLASSES, UNKNOWN]
    with drawing.new_folder(folder, "ISIC 2019", seed) as root:
        images = root / IMAGES / IMAGES
        lesions = rows["lesion_id"].where(rows["lesion_id"] != "", rows["image"])
        looks.draw_all(seed, lesions, clinical.labels(rows, columns), size, images, rows["image"] + ".jpg")
        clinical.write(rows[["image", *columns]], root / LABELS)
        clinical.write(rows[["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]], root / DETAILS)


@register(
    "isic2019",
    title="ISIC 2019 challenge, training data",
    folders=("isic2019", "ISIC2019", "ISIC_2019", "isic-2019"),
    classes=CLASSES,
    tree=TREE,
    obtain="https://challenge.isic-archive.com/data/#2019 (training data, metadata, ground truth)",
    terms="CC BY-NC 4.0 (no commercial use)",
    licence=Licence.NON_COMMERCIAL,
    render=render,
    recognises=recognises,
    metadata=METADATA,
    published={
        "images": {"": 25331},
        "classes": {
            "": {"MEL": 4522, "NV": 12875, "BCC": 3323, "AK": 867, "BKL": 2624, "DF": 239, "VASC": 253, "SCC": 628},
        },
    },
)
def read(folder: Path) -> Records:
    """Reads the training data, which have no official split.

    `group_id` is the lesion where the metadata name one; an image without one is its own group (by its id without
    `_downsampled`). Metadata columns: `age_approx` (years, in steps of five), `sex`, `anatom_site_general` and `lesion_id`, ""
    where unknown. The class `UNK` is among the classes only if an image has it.
    """
    images = find_folder(folder, IMAGES)
    if images is None:
        raise wrong_folder(get("isic2019"), folder)
    places = [folder, images]
    table = find_file(places, LABELS)
    if table is None:
        raise UserError(f"{folder} has no {LABELS}: expected it in this folder.")
    rows = tables.read_table(table, [tables.image_ids("image")], [*CLASSES, UNKNOWN])
    rows, repeated = tables.without_repeats(rows.rename(columns={"image": "image_id"}), table)
    rows, notes = _with_metadata(rows, find_file(places, DETAILS))
    files = index_files([images], ignore=("_segmentation",))
    rows, excluded = add_files(rows, repeated, table, files)
    unknown = [UNKNOWN] if (rows["label"] == UNKNOWN).any() else []
    return make_records("isic2019", rows, [*CLASSES, *unknown], excluded, notes)


def _with_metadata(rows: pd.DataFrame, path: Path | None) -> tuple[pd.DataFrame, list[str]]:
    columns = ["age_approx", "sex", "anatom_site_general", "lesion_id"]
    if path is None:
        return rows.assign(**dict.fromkeys(columns, "")), [
            f"There is no {DETAILS}: images of one lesion cannot be kept together, and there are no metadata."
        ]
    joined = tables.join_table(rows, path, [tables.number("age_approx", 0, 120), *map(tables.text, columns[1:])])
    notes = []
    bare = int(joined["sex"].isna().sum())
    if bare:
        notes.append(f"{bare} of {len(rows)} images have no row in {path.name}.")
    joined[columns] = joined[columns].fillna("")
    blank = int((joined["lesion_id"] == "").sum())
    if blank:
        notes.append(f"{blank} of {len(rows)} images have no lesion_id: each is a group of its own.")
    return joined.assign(group_id=joined["lesion_id"]), notes

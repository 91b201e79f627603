"""ISIC 2018 challenge, task 3 (diagnosis): HAM10000 to train on, 193 images to validate and 1512 to test, in seven classes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.image_files import ChallengeSplit, find_file, find_folder, read_splits
from keras_skin.data.datasets.readers import Counts, Licence, get, register
from keras_skin.data.datasets.records import Records, make_records, wrong_folder

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"
TREE = """
isic2018_task3/
  ISIC2018_Task3_Training_Input/                  ISIC_0024306.jpg ... (the images of HAM10000)
  ISIC2018_Task3_Training_GroundTruth.csv         image,MEL,NV,BCC,AKIEC,BKL,DF,VASC (or in a folder of that name)
  ISIC2018_Task3_Training_LesionGroupings.csv     image,lesion_id,diagnosis_confirm_type
  ISIC2018_Task3_Validation_Input/
  ISIC2018_Task3_Validation_GroundTruth.csv
  ISIC2018_Task3_Test_Input/
  ISIC2018_Task3_Test_GroundTruth.csv
"""
COUNTS = {"train": 42, "validation": 14, "test": 14}
_WITHOUT_IMAGE = "ISIC_0035068"
_WHY_NOT = (
    "diagnosis_confirm_type tells how the diagnosis was made, which gives the label away: it is kept in the table, but is "
    "never an input of a model."
)

_SPLITS = [
    ChallengeSplit(split, images=(f"ISIC2018_Task3_{word}_Input",), table=f"ISIC2018_Task3_{word}_GroundTruth.csv")
    for split, word in SPLITS.items()
]


def recognises(folder: Path) -> bool:
    """Whether the folder has the images of any split."""
    return any(names.image_folders(folder) for names in _SPLITS)


def render(
    folder: Path, seed: int = 0, counts: Counts = None, size: tuple[int, int] = (300, 400), table: pd.DataFrame | None = None
) -> None:
    """Draws a small stand-in of all three splits in the official layout.

    A `table` has the columns `image`, the seven classes, `split`, `lesion_id` and `diagnosis_confirm_type` ("" outside the
    training split).
    """
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    rows = clinical.rows_of("isic2018_task3", seed, counts, COUNTS, table)
    lesions = rows["lesion_id"].where(rows["lesion_id"] != "", rows["image"])
    files = "ISIC2018_Task3_" + rows["split"].map(SPLITS) + "_Input/" + rows["image"] + ".jpg"
    with drawing.new_folder(folder, "ISIC 2018, task 3", seed) as root:
        looks.draw_all(seed, lesions, clinical.labels(rows, CLASSES), size, root, files)
        for split, rows_of_split in rows.groupby("split"):
            name = f"ISIC2018_Task3_{SPLITS[str(split)]}_GroundTruth"
            (root / name).mkdir()
            clinical.write(rows_of_split[["image", *CLASSES]], root / name / f"{name}.csv")
        grouped = rows.loc[rows["split"] == "train", ["image", "lesion_id", "diagnosis_confirm_type"]]
        clinical.write(grouped, root / GROUPINGS)


@register(
    "isic2018_task3",
    title="ISIC 2018 challenge, task 3 (diagnosis)",
    folders=("isic2018_task3", "ISIC2018_Task3", "isic2018", "ISIC2018", "ISIC_2018"),
    classes=CLASSES,
    tree=TREE,
    obtain="https://challenge.isic-archive.com/data/#2018 (task 3, all parts, and the lesion groupings)",
    terms="CC BY-NC 4.0 (no commercial use)",
    licence=Licence.NON_COMMERCIAL,
    render=render,
    recognises=recognises,
    metadata={},
    never_inputs=("diagnosis_confirm_type",),
    published={
        "images": {"train": 10015, "validation": 193, "test": 1512},
        "classes": {"train": {"MEL": 1113, "NV": 6705, "BCC": 514, "AKIEC": 327, "BKL": 1099, "DF": 115, "VASC": 142}},
        "without_image": ("ISIC_0035068",),
    },
)
def read(folder: Path) -> Records:
    """Reads the splits in the folder; `split` is the official `train`, `validation` or `test`.

    `group_id` is the lesion in the training split (from the lesion groupings) and the image elsewhere. `diagnosis_confirm_type`
    gives the label away and is never an input.
    """
    if not recognises(folder):
        raise wrong_folder(get("isic2018_task3"), folder)
    rows, excluded, notes = read_splits(folder, _SPLITS, _labels)
    if _WITHOUT_IMAGE in set(excluded["image_id"]):
        notes.append(f"{_WITHOUT_IMAGE} was published with a label, but without an image.")
    rows, more = with_lesions(rows, folder)
    notes += [*more, _WHY_NOT] if (rows["diagnosis_confirm_type"] != "").any() else more
    return make_records("isic2018_task3", rows, CLASSES, excluded, notes)


def _labels(path: Path) -> pd.DataFrame:
    return tables.read_table(path, [tables.image_ids("image")], CLASSES).rename(columns={"image": "image_id"})


def with_lesions(rows: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Adds `group_id`, `lesion_id` and `diagnosis_confirm_type` from the lesion groupings, "" for other images."""
    columns = ["lesion_id", "diagnosis_confirm_type"]
    places = [folder, *(find_folder(folder, name) for name in (GROUPINGS[:-4], "ISIC2018_Task3_Training_GroundTruth"))]
    path = find_file(places, GROUPINGS)
    if path is None:
        return rows.assign(group_id="", **dict.fromkeys(columns, "")), [
            f"There is no {GROUPINGS}: images of one lesion cannot be kept together, each image is a group of its own."
        ]
    joined = tables.join_table(rows, path, [*map(tables.text, columns)])
    joined[columns] = joined[columns].fillna("")
    grouped = int((joined["lesion_id"] != "").sum())
    return joined.assign(group_id=joined["lesion_id"]), [
        f"{grouped} of {len(joined)} images are grouped by lesion ({path.name}); each other image is a group of its own."
    ]

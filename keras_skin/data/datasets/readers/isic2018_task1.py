"""ISIC 2018 challenge, task 1 (segmentation): 2594 images with masks to train on, 100 to validate and 1000 to test."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets.image_files import ChallengeSplit, find_file, find_folder, read_splits
from keras_skin.data.datasets.readers import Counts, Licence, get, register
from keras_skin.data.datasets.readers.isic2018_task3 import GROUPINGS, with_lesions
from keras_skin.data.datasets.records import Records, make_records, wrong_folder

SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
TREE = """
isic2018_task1/
  ISIC2018_Task1-2_Training_Input/        ISIC_0000000.jpg ...
  ISIC2018_Task1_Training_GroundTruth/    ISIC_0000000_segmentation.png ...
  ISIC2018_Task1-2_Validation_Input/
  ISIC2018_Task1_Validation_GroundTruth/
  ISIC2018_Task1-2_Test_Input/
  ISIC2018_Task1_Test_GroundTruth/
  ISIC2018_Task3_Training_LesionGroupings.csv     (optional: keeps images of one lesion together)
"""
COUNTS = {"train": 16, "validation": 4, "test": 6}

_SPLITS = [
    ChallengeSplit(split, images=(f"ISIC2018_Task1-2_{word}_Input",), masks=f"ISIC2018_Task1_{word}_GroundTruth")
    for split, word in SPLITS.items()
]


def recognises(folder: Path) -> bool:
    """Whether the folder has the images of any split."""
    return any(names.image_folders(folder) for names in _SPLITS)


def render(
    folder: Path, seed: int = 0, counts: Counts = None, size: tuple[int, int] = (300, 400), table: pd.DataFrame | None = None
) -> None:
    """Draws a small stand-in of all three splits in the official layout.

    A `table` has the columns `image` and `split`.
    """
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    rows = clinical.rows_of("isic2018_task1", seed, counts, COUNTS, table)
    words = rows["split"].map(SPLITS)
    with drawing.new_folder(folder, "ISIC 2018, task 1", seed) as root:
        labels = pd.Series(["NV", "MEL", "BKL", "NV"] * (len(rows) // 4 + 1), dtype=str)[: len(rows)]
        files = "ISIC2018_Task1-2_" + words + "_Input/" + rows["image"] + ".jpg"
        masks = "ISIC2018_Task1_" + words + "_GroundTruth/" + rows["image"] + "_segmentation.png"
        looks.draw_all(seed, rows["image"], labels, size, root, files, masks)


@register(
    "isic2018_task1",
    title="ISIC 2018 challenge, task 1 (segmentation)",
    folders=("isic2018_task1", "ISIC2018_Task1", "isic2018", "ISIC2018", "ISIC_2018"),
    classes=(),
    tree=TREE,
    obtain="https://challenge.isic-archive.com/data/#2018 (task 1, all parts)",
    terms="CC BY-NC 4.0 (no commercial use)",
    licence=Licence.NON_COMMERCIAL,
    render=render,
    recognises=recognises,
    metadata={},
    published={"images": {"train": 2594, "validation": 100, "test": 1000}},
)
def read(folder: Path) -> Records:
    """Reads the splits in the folder; `split` is the official `train`, `validation` or `test`.

    There are masks, but no labels: `classes` is empty. Many of these images are in HAM10000 too; where the lesion groupings of
    task 3 lie in the folder, `group_id` is the lesion of those, else the image.
    """
    if not recognises(folder):
        raise wrong_folder(get("isic2018_task1"), folder)
    rows, excluded, notes = read_splits(folder, _SPLITS, lambda path: pd.DataFrame())
    if find_file([folder, find_folder(folder, GROUPINGS[:-4])], GROUPINGS):
        rows, more = with_lesions(rows, folder)
        rows = rows.drop(columns=["lesion_id", "diagnosis_confirm_type"])
        notes += more
    else:
        notes.append("There are no lesion ids: each image is a group of its own.")
    return make_records("isic2018_task1", rows, (), excluded, notes)

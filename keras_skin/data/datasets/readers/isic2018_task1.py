"""ISIC 2018 challenge, task 1 (segmentation): 2594 images with masks to train on, 100 to validate and 1000 to test."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.readers import get, register
from keras_skin.data.datasets.readers.isic2018_task3 import GROUPINGS, with_lesions
from keras_skin.data.datasets.records import Records, make_records, wrong_folder
from keras_skin.data.datasets.tables import ChallengeSplit, find_file, find_folder, index_files

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


def recognises(folder: Path) -> bool:
    """Whether the folder has the images of any split."""
    return any(find_folder(folder, f"ISIC2018_Task1-2_{word}_Input") for word in SPLITS.values())


def render(
    folder: Path,
    seed: int = 0,
    counts: dict[str, int] | None = None,
    size: tuple[int, int] = (300, 400),
    table: pd.DataFrame | None = None,
) -> None:
    """Draws a small stand-in of all three splits in the official layout.

    Args:
        folder: a new folder.
        seed: decides all pictures.
        counts: number of images of `train`, `validation` and `test`.
        size: (height, width).
        table: draws one picture for each row of it instead; columns `image` and `split` (one of the three splits).
    """
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    rows = clinical.rows_of("isic2018_task1", seed, counts, COUNTS, table)
    words = rows["split"].map(SPLITS)
    with drawing.new_folder(folder, "ISIC 2018, task 1", seed) as root:
        labels = pd.Series(["NV", "MEL", "BKL", "NV"] * (len(rows) // 4 + 1), dtype=str)[: len(rows)]
        looks.draw_all(
            seed,
            rows["image"],
            labels,
            size,
            root,
            "ISIC2018_Task1-2_" + words + "_Input/" + rows["image"] + ".jpg",
            "ISIC2018_Task1_" + words + "_GroundTruth/" + rows["image"] + "_segmentation.png",
        )


@register(
    "isic2018_task1",
    title="ISIC 2018 challenge, task 1 (segmentation)",
    folders=("isic2018_task1", "ISIC2018_Task1", "isic2018", "ISIC2018", "ISIC_2018"),
    classes=(),
    tree=TREE,
    obtain="https://challenge.isic-archive.com/data/#2018 (task 1, all parts)",
    terms="CC BY-NC 4.0 (no commercial use)",
    render=render,
    recognises=recognises,
    metadata={},
    published={"images": {"train": 2594, "validation": 100, "test": 1000}},
)
def read(folder: Path) -> Records:
    """Reads the splits in the folder; `split` is the official `train`, `validation` or `test`.

    There are masks, but no labels: `classes` is empty. Many of these images are in HAM10000 too; where the lesion groupings of
    task 3 lie in the folder, `group_id` is the lesion of those, else the image.

    Raises:
        MissingData: if the folder has no split.
        UserError: if the lesion groupings cannot be read.
    """
    if not recognises(folder):
        raise wrong_folder(get("isic2018_task1"), folder)
    splits = (_files_of(folder, split, word) for split, word in SPLITS.items())
    rows, excluded, notes = tables.read_splits(splits, lambda path: pd.DataFrame())
    if find_file([folder, find_folder(folder, GROUPINGS[:-4])], GROUPINGS):
        rows, more = with_lesions(rows, folder)
        rows = rows.drop(columns=["lesion_id", "diagnosis_confirm_type"])
        notes += more
    else:
        notes.append("There are no lesion ids: each image is a group of its own.")
    return make_records("isic2018_task1", rows, (), excluded, notes)


def _files_of(folder: Path, split: str, word: str) -> ChallengeSplit:
    images = find_folder(folder, f"ISIC2018_Task1-2_{word}_Input")
    masks = find_folder(folder, f"ISIC2018_Task1_{word}_GroundTruth")
    return ChallengeSplit(
        split,
        images=index_files([images], ignore=("_segmentation", "_superpixels")) if images else None,
        image_folder=f"ISIC2018_Task1-2_{word}_Input",
        masks=index_files([masks], "_segmentation") if masks else None,
        mask_folder=f"ISIC2018_Task1_{word}_GroundTruth",
    )

"""ISIC 2018 challenge, task 1 (segmentation): 2594 images with masks to train on, 100 to validate and 1000 to test."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import csv_tables
from keras_skin.data.datasets.readers import get, register
from keras_skin.data.datasets.readers.isic2018_task3 import GROUPINGS, with_lesions
from keras_skin.data.datasets.records import Records, wrong_folder
from keras_skin.data.datasets.tables import Files, find_file, find_folder, index_files

PARTS = {"train": "Training", "validation": "Validation", "test": "Test"}
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
    """Whether the folder has the images of any part."""
    return any(find_folder(folder, f"ISIC2018_Task1-2_{word}_Input") for word in PARTS.values())


def render(
    folder: Path,
    seed: int = 0,
    counts: dict[str, int] | None = None,
    size: tuple[int, int] = (300, 400),
    table: pd.DataFrame | None = None,
) -> None:
    """Draws a small stand-in of all three parts in the official layout.

    Args:
        folder: a new folder.
        seed: decides all pictures.
        counts: number of images of `train`, `validation` and `test`.
        size: (height, width).
        table: draws one picture for each row of it instead; columns `image` and `split` (one of the three parts).
    """
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    rows = clinical.rows_of("isic2018_task1", seed, counts, COUNTS, table)
    words = rows["split"].map(PARTS)
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
    """Reads whatever parts the folder holds; `split` is the official `train`, `validation` or `test`.

    There are masks, but no labels: `classes` is empty. Many of these images are in HAM10000 too; where the lesion groupings of
    task 3 lie in the folder, `group_id` is the lesion of those, else the image.

    Raises:
        MissingData: if the folder holds no part.
        UserError: if the lesion groupings cannot be read.
    """
    if not recognises(folder):
        raise wrong_folder(get("isic2018_task1"), folder)
    rows: dict[str, dict[str, str]] = {}
    excluded: list[dict[str, str]] = []
    notes = []
    for split, word in PARTS.items():
        images = find_folder(folder, f"ISIC2018_Task1-2_{word}_Input")
        if images is None:
            notes.append(f"The {split} part is not there.")
            continue
        folder_of_masks = f"ISIC2018_Task1_{word}_GroundTruth"
        masks = find_folder(folder, folder_of_masks)
        if masks is None:
            notes.append(f"The {split} part has no masks ({folder_of_masks} is not there).")
        read_rows, left_out = _part(
            index_files([images], ignore=("_segmentation", "_superpixels")),
            index_files([masks], "_segmentation") if masks else None,
            folder_of_masks,
        )
        left_out += [
            {
                "image_id": row["image_id"],
                "file": row["image"],
                "reason": f"duplicate id: also in the {rows[row['image_id']]['split']} part, which is used",
            }
            for row in read_rows
            if row["image_id"] in rows
        ]
        rows = {**{row["image_id"]: {**row, "split": split} for row in read_rows}, **rows}
        excluded += [{**row, "split": split, "label": ""} for row in left_out]
    table = pd.DataFrame(list(rows.values()), columns=["image_id", "image", "mask", "split"], dtype=str).assign(label="")
    if find_file([folder, find_folder(folder, GROUPINGS[:-4])], GROUPINGS):
        table, told = with_lesions(table, folder)
        table = table.drop(columns=["lesion_id", "diagnosis_confirm_type"])
        notes += told
    else:
        notes.append("There are no lesion ids: each image is a group of its own.")
    return csv_tables.to_records("isic2018_task1", table, (), [pd.DataFrame(excluded, dtype=str)], notes)


def _part(images: Files, masks: Files | None, folder_of_masks: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of one part, and what is left out: images without a mask where there is a folder of masks, and the other way round."""
    excluded = [*images.excluded, *(masks.excluded if masks else [])]
    found = masks.paths if masks else {}
    rows = []
    for image_id, image in images.paths.items():
        if masks is not None and image_id not in found:
            excluded.append(
                {
                    "image_id": image_id,
                    "file": str(image),
                    "reason": f"no mask: {image_id}_segmentation.png is not in {folder_of_masks}",
                }
            )
        else:
            rows.append({"image_id": image_id, "image": str(image), "mask": str(found.get(image_id, ""))})
    excluded += [
        {"image_id": image_id, "file": str(mask), "reason": "a mask without an image"}
        for image_id, mask in found.items()
        if image_id not in images.paths
    ]
    return rows, excluded

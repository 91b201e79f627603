"""ISIC 2016 challenge (at ISBI 2016), parts 1 and 3: 900 training and 379 test images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.image_files import ChallengeSplit, read_splits
from keras_skin.data.datasets.readers import Licence, get, register
from keras_skin.data.datasets.records import Records, make_records, wrong_folder

CLASSES = ("benign", "malignant")
SPLITS = {"train": "Training", "test": "Test"}
TREE = """
isic2016/
  ISBI2016_ISIC_Part1_Training_Data/         ISIC_0000000.jpg ... (or ISBI2016_ISIC_Part3_Training_Data, or both)
  ISBI2016_ISIC_Part1_Training_GroundTruth/  ISIC_0000000_Segmentation.png ...
  ISBI2016_ISIC_Part3_Training_GroundTruth.csv
  ISBI2016_ISIC_Part1_Test_Data/             (or ISBI2016_ISIC_Part3_Test_Data, or both)
  ISBI2016_ISIC_Part1_Test_GroundTruth/
  ISBI2016_ISIC_Part3_Test_GroundTruth.csv
"""
_LABELS = {"benign": "benign", "malignant": "malignant", "0": "benign", "1": "malignant", "0.0": "benign", "1.0": "malignant"}
FIRST_NUMBER = {"train": 0, "test": 10_000}  # of the stand-in pictures; some are also in the stand-in of ISIC 2017
_HEADINGS = ("img_id", "image_id", "image", "id", "name")

_SPLITS = [
    ChallengeSplit(
        split,
        images=(f"ISBI2016_ISIC_Part1_{word}_Data", f"ISBI2016_ISIC_Part3_{word}_Data"),
        table=f"ISBI2016_ISIC_Part3_{word}_GroundTruth.csv",
        masks=f"ISBI2016_ISIC_Part1_{word}_GroundTruth",
        mask_suffix="_Segmentation",
    )
    for split, word in SPLITS.items()
]


def recognises(folder: Path) -> bool:
    """Whether the folder has the images of any split."""
    return any(names.image_folders(folder) for names in _SPLITS)


def render(folder: Path, seed: int = 0, counts: dict[str, int] | None = None, size: tuple[int, int] = (300, 400)) -> None:
    """Draws a small stand-in in the official layout: every fourth lesion is malignant."""
    from keras_skin.data.datasets.stand_ins import drawing

    image_counts = drawing.counts_or_default(counts, {"train": 48, "test": 16})
    with drawing.new_folder(folder, "ISIC 2016", seed) as root:
        for split, word in ((split, word) for split, word in SPLITS.items() if image_counts[split]):
            images = root / f"ISBI2016_ISIC_Part1_{word}_Data"
            masks = root / f"ISBI2016_ISIC_Part1_{word}_GroundTruth"
            lines = []
            for index in range(image_counts[split]):
                number, malignant = FIRST_NUMBER[split] + index, index % 4 == 1
                image, mask = drawing.picture(seed, number, size, malignant)
                drawing.write_image(images / f"ISIC_{number:07d}.jpg", image)
                drawing.write_mask_png(masks / f"ISIC_{number:07d}_Segmentation.png", mask)
                label = CLASSES[malignant] if split == "train" else str(int(malignant))
                lines.append(f"ISIC_{number:07d},{label}\n")
            (root / f"ISBI2016_ISIC_Part3_{word}_GroundTruth.csv").write_text("".join(lines), encoding="utf-8")


@register(
    "isic2016",
    title="ISIC 2016 challenge, parts 1 and 3",
    folders=("isic2016", "ISIC2016", "ISIC_2016", "ISBI2016"),
    classes=CLASSES,
    tree=TREE,
    obtain="https://challenge.isic-archive.com/data/#2016 (parts 1 and 3, training and test)",
    terms="CC-0 (public domain)",
    licence=Licence.FREE,
    render=render,
    recognises=recognises,
    published={
        "images": {"train": 900, "test": 379},
        "classes": {"train": {"benign": 727, "malignant": 173}, "test": {"benign": 304, "malignant": 75}},
    },
)
def read(folder: Path) -> Records:
    """Reads the splits in the folder; `split` is the official `train` or `test`."""
    if not recognises(folder):
        raise wrong_folder(get("isic2016"), folder)
    rows, excluded, notes = read_splits(folder, _SPLITS, _labels)
    return make_records("isic2016", rows, CLASSES, excluded, notes)


def _labels(path: Path) -> pd.DataFrame:
    """The published tables have no header; a copy with `img_id,Label` circulates."""
    label = tables.Column("label", f"one of {', '.join(_LABELS)}", lambda cell: cell.lower() in _LABELS)
    rows = tables.read_table(path, [tables.image_ids("image_id"), label], headings=_HEADINGS)
    return rows.assign(label=rows["label"].str.lower().map(_LABELS))

"""ISIC 2017 challenge, parts 1 and 3: 2000 training, 150 validation and 600 test images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.image_files import ChallengeSplit, find_file, find_folder, read_splits
from keras_skin.data.datasets.readers import Licence, get, register
from keras_skin.data.datasets.records import Records, make_records, wrong_folder

CLASSES = ("benign", "malignant")
SPLITS = {"train": "Training", "validation": "Validation", "test": "Test_v2"}
TREE = """
isic2017/
  ISIC-2017_Training_Data/                ISIC_0000000.jpg ... (superpixels are ignored)
  ISIC-2017_Training_Data_metadata.csv    (optional; may lie in the folder of the images)
  ISIC-2017_Training_Part1_GroundTruth/   ISIC_0000000_segmentation.png ...
  ISIC-2017_Training_Part3_GroundTruth.csv
  the same for Validation and Test_v2
"""
_KERATOSIS = "seborrheic_keratosis"
_METADATA = ["age_approximate", "sex"]

_SPLITS = [
    ChallengeSplit(
        split,
        images=(f"ISIC-2017_{word}_Data",),
        table=f"ISIC-2017_{word}_Part3_GroundTruth.csv",
        masks=f"ISIC-2017_{word}_Part1_GroundTruth",
    )
    for split, word in SPLITS.items()
]


def recognises(folder: Path) -> bool:
    """Whether the folder has the images of any split."""
    return any(names.image_folders(folder) for names in _SPLITS)


def render(folder: Path, seed: int = 0, counts: dict[str, int] | None = None, size: tuple[int, int] = (300, 400)) -> None:
    """Draws a small stand-in of the training split in the official layout; every second new lesion is a melanoma.

    As in the real data sets some pictures are also in ISIC 2016 (drawn with the same seed and size): four of its training split,
    one of them with another label, and one of its test split.
    """
    from keras_skin.data.datasets.stand_ins import drawing

    first = 20_000  # of the pictures that are not in ISIC 2016
    numbers = [1, 2, 5, 6, 10_001, *range(first, first + 1000)][: drawing.counts_or_default(counts, {"train": 16})["train"]]
    with drawing.new_folder(folder, "ISIC 2017", seed) as root:
        images, masks = root / "ISIC-2017_Training_Data", root / "ISIC-2017_Training_Part1_GroundTruth"
        labels, metadata = ["image_id,melanoma,seborrheic_keratosis"], ["image_id,age_approximate,sex"]
        for number in sorted(numbers):
            malignant = number % 2 == 0 if number >= first else number % 4 == 1
            image, mask = drawing.picture(seed, number, size, malignant)
            image_id = f"ISIC_{number:07d}"
            drawing.write_image(images / f"{image_id}.jpg", image)
            drawing.write_mask_png(masks / f"{image_id}_segmentation.png", mask)
            melanoma = malignant or number == 2  # number 2 is benign in ISIC 2016
            labels.append(f"{image_id},{float(melanoma)},{float(not melanoma and number % 3 == 0)}")
            age = "unknown" if number % 5 == 0 else str(20 + number % 13 * 5)
            metadata.append(f"{image_id},{age},{('male', 'female')[number % 2]}")
        (root / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (root / "ISIC-2017_Training_Data_metadata.csv").write_text("\n".join(metadata) + "\n", encoding="utf-8")


@register(
    "isic2017",
    title="ISIC 2017 challenge, parts 1 and 3",
    folders=("isic2017", "ISIC2017", "ISIC_2017", "ISIC-2017"),
    classes=CLASSES,
    tree=TREE,
    obtain="https://challenge.isic-archive.com/data/#2017 (parts 1 and 3)",
    terms="CC-0 (public domain)",
    licence=Licence.FREE,
    render=render,
    recognises=recognises,
    metadata={"age_approximate": "numeric", "sex": "categorical"},
    never_inputs=("diagnosis",),
    published={
        "images": {"train": 2000, "validation": 150, "test": 600},
        "classes": {
            "train": {"benign": 1626, "malignant": 374},
            "validation": {"benign": 120, "malignant": 30},
            "test": {"benign": 483, "malignant": 117},
        },
    },
)
def read(folder: Path) -> Records:
    """Reads the splits in the folder; `split` is the official `train`, `validation` or `test`.

    The label is `malignant` for a melanoma and `benign` for a naevus or a seborrhoeic keratosis; the column `diagnosis` keeps the
    three apart. `age_approximate` and `sex` come from the metadata table where there is one.
    """
    if not recognises(folder):
        raise wrong_folder(get("isic2017"), folder)
    rows, excluded, notes = read_splits(folder, _SPLITS, _labels)
    rows = rows.join(_metadata(folder), on="image_id")
    return make_records("isic2017", rows, CLASSES, excluded, notes)


def _labels(path: Path) -> pd.DataFrame:
    rows = tables.read_table(path, [tables.image_ids("image_id")], ["melanoma", _KERATOSIS], otherwise="nevus")
    labels = (rows["label"] == "melanoma").map({True: "malignant", False: "benign"})
    return rows.rename(columns={"label": "diagnosis"}).assign(label=labels)


def _metadata(folder: Path) -> pd.DataFrame:
    """Age and sex by image id, of all splits; "unknown" becomes ""."""
    metadata_of_splits = [pd.DataFrame(columns=_METADATA, dtype=str)]
    for word in SPLITS.values():
        places = [folder, find_folder(folder, f"ISIC-2017_{word}_Data")]
        path = find_file(places, f"ISIC-2017_{word}_Data_metadata.csv")
        if path is not None:
            rows = tables.read_table(path, [tables.image_ids("image_id"), *map(tables.text, _METADATA)])
            metadata_of_splits.append(tables.one_row_each(rows, "image_id", path))
    metadata = pd.concat(metadata_of_splits)
    metadata = metadata[~metadata.index.duplicated()]
    metadata = metadata.where(metadata.apply(lambda column: column.str.lower() != "unknown"), "")
    return metadata.assign(sex=metadata["sex"].str.lower())

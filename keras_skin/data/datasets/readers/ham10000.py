"""HAM10000 (Tschandl et al., 2018): 10,015 images of 7,470 lesions in seven classes, in the three layouts that circulate."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.image_files import Files, add_files, find_file, find_folder, index_files
from keras_skin.data.datasets.readers import Licence, get, register
from keras_skin.data.datasets.records import Records, make_records, wrong_folder
from keras_skin.registry import UserError, shorten

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
METADATA = {"age": "numeric", "sex": "categorical", "localization": "categorical"}
TREE = """
ham10000/
  HAM10000_images_part_1/                      ISIC_0024306.jpg ... (or all images in images/)
  HAM10000_images_part_2/
  HAM10000_metadata                            (or .csv, .tab) lesion_id,image_id,dx,dx_type,age,sex,localization
  HAM10000_segmentations_lesion_tschandl/      ISIC_0024306_segmentation.png ... (optional; or masks/)
  GroundTruth.csv                              image,MEL,NV,BCC,AKIEC,BKL,DF,VASC (where there is no HAM10000_metadata)
"""
LAYOUTS = ("dataverse", "kmader", "surajghuwalewala")
COUNTS = {"MEL": 12, "NV": 24, "BCC": 12, "AKIEC": 8, "BKL": 12, "DF": 8, "VASC": 8}
_TABLES = ("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab")
_MASKS = ("HAM10000_segmentations_lesion_tschandl", "masks")
_PART = re.compile(r"ham10000_images_part_?[12]")
_WHY_NOT = (
    "dx_type tells how the diagnosis was made (all melanomas by histology, most naevi by follow-up), which gives the "
    "label away: it is kept in the table, but is never an input of a model."
)


def recognises(folder: Path) -> bool:
    """Whether the folder has images and a table of one of the three layouts."""
    return bool(_image_folders(folder))


def render(
    folder: Path,
    seed: int = 0,
    counts: dict[str, int] | None = None,
    size: tuple[int, int] = (300, 400),
    table: pd.DataFrame | None = None,
    layout: str = "dataverse",
) -> None:
    """Draws a small stand-in with masks.

    A `table` has the columns of HAM10000_metadata (`dataset` is optional). `layout` is `"dataverse"` (two parts, a table without
    extension, masks), `"kmader"` (Kaggle: the parts, and again in lower case, a table without `dataset`, no masks) or
    `"surajghuwalewala"` (Kaggle: images/, masks/, GroundTruth.csv).
    """
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    if layout not in LAYOUTS:
        raise UserError(f"There is no layout {layout!r} of HAM10000. Known: {', '.join(LAYOUTS)}.")
    rows = clinical.rows_of("ham10000", seed, counts, COUNTS, table)
    parts = pd.Series("HAM10000_images_part_1", rows.index).where(rows.index < len(rows) / 2, "HAM10000_images_part_2")
    one_folder = layout == "surajghuwalewala"
    files = ("images/" if one_folder else parts + "/") + rows["image_id"] + ".jpg"
    labels = rows["dx"].str.upper()
    with drawing.new_folder(folder, "HAM10000", seed) as root:
        masks = ("masks/" if one_folder else f"{_MASKS[0]}/") + rows["image_id"] + "_segmentation.png"
        looks.draw_all(seed, rows["lesion_id"], labels, size, root, files, None if layout == "kmader" else masks)
        if one_folder:
            flags = {name: (labels == name).map({True: "1.0", False: "0.0"}) for name in CLASSES}
            clinical.write(pd.DataFrame({"image": rows["image_id"], **flags}), root / "GroundTruth.csv")
        elif layout == "kmader":
            clinical.write(rows.drop(columns="dataset", errors="ignore"), root / "HAM10000_metadata.csv")
            (root / "hmnist_8_8_L.csv").write_text("pixel0000,label\n0,0\n", encoding="utf-8")
            lower = root / "ham10000_images_part_1"
            if not lower.exists():  # a file system that ignores case has it already
                lower.mkdir()
                for file in (root / "HAM10000_images_part_1").iterdir():
                    (lower / file.name).write_bytes(file.read_bytes())
        else:
            clinical.write(rows, root / "HAM10000_metadata")


@register(
    "ham10000",
    title="HAM10000",
    folders=("ham10000", "HAM10000", "skin-cancer-mnist-ham10000", "ham1000-segmentation-and-classification", "dataverse_files"),
    classes=CLASSES,
    tree=TREE,
    obtain="https://doi.org/10.7910/DVN/DBW86T (images parts 1 and 2, metadata, segmentations)",
    terms="CC BY-NC 4.0 (no commercial use; some copies say CC BY-NC-SA 4.0)",
    licence=Licence.NON_COMMERCIAL,
    render=render,
    recognises=recognises,
    metadata=METADATA,
    never_inputs=("dx_type",),
    published={
        "images": {"": 10015},
        "classes": {"": {"MEL": 1113, "NV": 6705, "BCC": 514, "AKIEC": 327, "BKL": 1099, "DF": 115, "VASC": 142}},
        "groups": 7470,
    },
)
def read(folder: Path) -> Records:
    """Reads the layout of the Harvard Dataverse, or one of two Kaggle copies; there is no official split.

    `group_id` is the lesion: 2,545 images show a lesion that another image shows too. GroundTruth.csv alone names no lesions, so
    grouping is impossible with it; a note reports it. Metadata columns: `age` (years), `sex`, `localization` ("" where blank or
    `unknown`), `dx_type`, `lesion_id`, and `source` (the column `dataset` of the Dataverse). `dx_type` gives the label away and
    is never an input. `mask` is "" where there is none.
    """
    folders = _image_folders(folder)
    if not folders:
        raise wrong_folder(get("ham10000"), folder)
    metadata, truth = _table(folder), find_file([folder], "GroundTruth.csv")
    if metadata is None and truth is None:
        raise UserError(f"{folder} has no table: expected HAM10000_metadata (or .csv, .tab) or GroundTruth.csv there.")
    rows, repeated, notes = _rows(metadata, truth)
    table = metadata or truth
    assert table is not None
    images, note = _images(folders)
    mask_folders = [place for place in (find_folder(folder, name) for name in _MASKS) if place is not None]
    masks = index_files(mask_folders, "_segmentation") if mask_folders else None
    rows, excluded = add_files(rows, repeated, table, images, masks)
    bare = int((rows["mask"] == "").sum())
    notes += [note] if note else []
    if bare:
        notes.append(f"{bare} of {len(rows)} images have no mask." if masks else f"There are no masks ({_MASKS[0]} is missing).")
    return make_records("ham10000", rows, CLASSES, excluded, notes)


def _image_folders(folder: Path) -> list[Path]:
    """Folders with images, those of the official spelling first."""
    if not folder.is_dir():
        return []
    folders = [place for place in folder.iterdir() if place.is_dir() and _PART.fullmatch(place.name.lower())]
    together = find_folder(folder, "images")
    if together is not None and (_table(folder) or find_file([folder], "GroundTruth.csv")):
        folders.append(together)
    return sorted(folders, key=lambda place: (place.name == place.name.lower(), place.name))


def _table(folder: Path) -> Path | None:
    return next((file for file in (find_file([folder], name) for name in _TABLES) if file is not None), None)


def _images(folders: list[Path]) -> tuple[Files, str]:
    """Images by id, each once; the Kaggle copies hold the same folders twice."""
    images = index_files(folders, ignore=("_segmentation",))
    copies = sum(map(len, images.repeated.values()))
    copies += sum(len(index_files([place]).paths) for place in folders) - len(images.paths)
    images.repeated.clear()  # in this data set, two files of one name are the same picture
    return images, f"{copies} second copies of images are ignored." if copies else ""


def _rows(metadata: Path | None, truth: Path | None) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    if metadata is None:
        assert truth is not None
        rows, repeated = _truth(truth)
        fields = dict.fromkeys(["age", "sex", "localization", "dx_type", "lesion_id", "source"], "")
        return (
            rows.assign(**fields),
            repeated,
            [
                f"Labels from {truth.name} alone, which names no lesions: grouping is impossible. 2,545 of the "
                "10,015 images show a lesion again, so a split can put images of one lesion on both sides. "
                "Add HAM10000_metadata to fix that."
            ],
        )
    rows, repeated = _metadata(metadata)
    notes = [f"Labels and lesions from {metadata.name}. {_WHY_NOT}"]
    newborn = int((pd.to_numeric(rows["age"]) == 0).sum())
    if newborn:
        notes.append(f"{newborn} images have an age of 0.0.")
    if truth is not None:
        other, _ = _truth(truth)
        labels = rows.set_index("image_id")["label"].reindex(other["image_id"]).fillna("")
        differences = [
            f"  {image_id}: {label} in {metadata.name}, {new} in {truth.name}"
            for image_id, label, new in zip(labels.index, labels, other["label"], strict=True)
            if label not in ("", new)
        ]
        if differences:
            title = f"{metadata} and {truth} disagree in {len(differences)} labels:"
            raise UserError("\n".join([title, *shorten(differences), "Fix or remove one of them."]))
        both = int((labels != "").sum())
        notes.append(f"{truth.name} agrees in all {both} labels that both have.")
    return rows, repeated, notes


def _truth(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = tables.read_table(path, [tables.image_ids("image")], CLASSES)
    return tables.without_repeats(rows.rename(columns={"image": "image_id"}), path)


def _metadata(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    columns = [
        tables.text("lesion_id"),
        tables.image_ids("image_id"),
        tables.one_of("dx", [name.lower() for name in CLASSES]),
        tables.text("dx_type"),
        tables.number("age", 0, 120),
        tables.text("sex"),
        tables.text("localization"),
        tables.text("dataset", required=False),
    ]
    rows = tables.read_table(path, columns)
    unknown = {column: rows[column].mask(rows[column].str.lower() == "unknown", "") for column in ("sex", "localization")}
    rows = rows.assign(label=rows["dx"].str.upper(), group_id=rows["lesion_id"], **unknown).rename(columns={"dataset": "source"})
    rows = rows[["image_id", "group_id", "label", "age", "sex", "localization", "dx_type", "lesion_id", "source"]]
    return tables.without_repeats(rows, path)

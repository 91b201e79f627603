"""PAD-UFES-20 (Pacheco et al., 2020): 2,298 smartphone images of 1,373 patients in six classes, with 21 clinical features."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from keras_skin.data.datasets import tables
from keras_skin.data.datasets.image_files import add_files, find_file, find_folder, index_files
from keras_skin.data.datasets.readers import Counts, Licence, get, register
from keras_skin.data.datasets.records import Records, make_records, wrong_folder
from keras_skin.registry import UserError

CLASSES = ("BCC", "ACK", "NEV", "SEK", "SCC", "MEL")
METADATA = {
    "age": "numeric",
    "diameter_1": "numeric",
    "diameter_2": "numeric",
    **dict.fromkeys(
        (
            "smoke",
            "drink",
            "background_father",
            "background_mother",
            "pesticide",
            "gender",
            "skin_cancer_history",
            "cancer_history",
            "has_piped_water",
            "has_sewage_system",
            "fitspatrick",
            "region",
            "itch",
            "grew",
            "hurt",
            "changed",
            "bleed",
            "elevation",
        ),
        "categorical",
    ),
}
TABLE = "metadata.csv"
TREE = """
pad_ufes_20/
  images/imgs_part_1/     PAT_1516_1765_530.png ... (searched through all folders, doubled or not)
  images/imgs_part_2/
  images/imgs_part_3/
  metadata.csv            patient_id,lesion_id,smoke,...,diagnostic,...,img_id,biopsed
"""
COUNTS = {"BCC": 16, "ACK": 14, "NEV": 12, "SEK": 12, "SCC": 12, "MEL": 10}
_ANSWERS = ("True", "False", "UNK", "")
_TEXTS = ("background_father", "background_mother", "gender", "fitspatrick", "region")
_BOUNDS = {"age": (0, 120), "diameter_1": (0, 1000), "diameter_2": (0, 1000)}
_WHY_NOT = (
    "biopsed tells whether a sample was taken (of every BCC, SCC and MEL), which gives the label away: it is kept in the "
    "table, but is never an input of a model by default."
)


def recognises(folder: Path) -> bool:
    """Whether the folder has a `metadata.csv`, and images in folders of the official names or by its column `img_id`."""
    table, images = find_file([folder], TABLE), _image_folders(folder)
    if table is None or not images:
        return False
    if any(find_folder(place, "imgs_part_1") for place in (folder, *images)):
        return True
    with table.open("rb") as stream:
        return b"img_id" in stream.readline(10_000)


def render(
    folder: Path, seed: int = 0, counts: Counts = None, size: tuple[int, int] = (300, 400), table: pd.DataFrame | None = None
) -> None:
    """Draws a small stand-in in the official layout, one of its three folders doubled.

    A `table` has the columns of metadata.csv.
    """
    from keras_skin.data.datasets.stand_ins import clinical, drawing, looks

    rows = clinical.rows_of("pad_ufes_20", seed, counts, COUNTS, table)
    places = pd.Series(range(len(rows)), rows.index) % 3
    files = places.map({0: "imgs_part_1/imgs_part_1/", 1: "imgs_part_2/", 2: "imgs_part_3/"}) + rows["img_id"]
    with drawing.new_folder(folder, "PAD-UFES-20", seed) as root:
        lesions = rows["patient_id"] + "/" + rows["lesion_id"]
        # a telephone shows no dark corners, gel or ruler
        looks.draw_all(seed, lesions, rows["diagnostic"], size, root / "images", files, artefacts=False)
        clinical.write(rows, root / TABLE)


@register(
    "pad_ufes_20",
    title="PAD-UFES-20",
    folders=("pad_ufes_20", "PAD-UFES-20", "PAD_UFES_20", "pad-ufes-20", "PAD-UFES"),
    classes=CLASSES,
    tree=TREE,
    obtain="https://doi.org/10.17632/zr7vgbcyr2.1 (Mendeley Data)",
    terms="CC BY 4.0 (name the authors: Pacheco et al., Data in Brief 32, 2020)",
    licence=Licence.ATTRIBUTION,
    render=render,
    recognises=recognises,
    metadata=METADATA,
    never_inputs=("biopsed",),
    published={
        "images": {"": 2298},
        "classes": {"": {"BCC": 845, "ACK": 730, "NEV": 244, "SEK": 235, "SCC": 192, "MEL": 52}},
        "groups": 1373,
    },
)
def read(folder: Path, unify_countries: bool = False) -> Records:
    """Reads the table as text, cell by cell as published; there is no official split.

    `group_id` is the patient. `image_id` is `img_id` without its extension. Nothing is converted: `True`, `False`, `UNK` (asked,
    but unknown: a value of its own) and "" (not asked) stay as they are. `lesion_id` is unique only together with
    `patient_id`. `biopsed` gives the label away and is never an input by default.

    Args:
        unify_countries: whether the spelling `BRASIL` of a parent's background becomes `BRAZIL`. By default both stay, because
            the published encoding of 81 columns has one for each.
    """
    if not recognises(folder):
        raise wrong_folder(get("pad_ufes_20"), folder)
    table = find_file([folder], TABLE)
    assert table is not None
    rows = _rows(table)
    notes = [_WHY_NOT]
    parents = ["background_father", "background_mother"]
    other = int((rows[parents] == "BRASIL").any(axis=1).sum())
    if other and unify_countries:
        rows[parents] = rows[parents].replace("BRASIL", "BRAZIL")
    if other:
        notes.append(
            f"{other} rows spell a parent's background BRASIL instead of BRAZIL: "
            + ("unified." if unify_countries else "kept as published (unify_countries unifies them).")
        )
    blank = int((rows["smoke"] == "").sum())
    if blank:
        notes.append(f"{blank} of {len(rows)} rows have no answers on habits, history and diameters.")
    rows, repeated = tables.without_repeats(rows, table)
    rows, excluded = add_files(rows, repeated, table, index_files(_image_folders(folder)))
    return make_records("pad_ufes_20", rows, CLASSES, excluded, notes)


def _image_folders(folder: Path) -> list[Path]:
    folders = [find_folder(folder, name) for name in ("images", "imgs_part_1", "imgs_part_2", "imgs_part_3")]
    return [place for place in folders if place is not None]


def _rows(table: Path) -> pd.DataFrame:
    columns = [
        tables.text("patient_id"),
        tables.text("lesion_id"),
        tables.image_ids("img_id"),
        tables.one_of("diagnostic", CLASSES),
    ]
    for name in (*METADATA, "biopsed"):
        if name in _BOUNDS:
            columns.append(tables.number(name, *_BOUNDS[name]))
        else:
            columns.append(tables.text(name) if name in _TEXTS else tables.one_of(name, _ANSWERS))
    rows = tables.read_table(table, columns)
    unnamed = rows.index[rows["patient_id"] == ""]
    if len(unnamed):
        raise UserError(
            f"{table}, line {unnamed[0]}: found no patient_id, expected the patient of each image "
            f"({len(unnamed)} such lines): images of one patient must stay together."
        )
    stems = rows["img_id"].str.replace(r"\.(png|jpe?g|bmp)$", "", case=False, regex=True)
    rows = rows.assign(image_id=stems, group_id=rows["patient_id"])
    return rows.rename(columns={"diagnostic": "label"}).drop(columns="img_id")

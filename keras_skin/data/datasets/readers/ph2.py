"""PH2 (Mendonça et al., 2013): 200 dermoscopic images of the Hospital Pedro Hispano with masks and clinical annotations."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_skin.data.datasets.image_files import Files, add_files, find_file, find_folder, index_files
from keras_skin.data.datasets.readers import Licence, get, register
from keras_skin.data.datasets.records import Records, excluded_rows, make_records, wrong_folder
from keras_skin.data.datasets.tables import is_image_id
from keras_skin.registry import UserError, shorten

CLASSES = ("benign", "malignant")
TREE = """
PH2Dataset/
  PH2_dataset.xlsx and PH2_dataset.txt (either or both)
  PH2 Dataset images/
    IMD002/
      IMD002_Dermoscopic_Image/IMD002.bmp
      IMD002_lesion/IMD002_lesion.bmp
      IMD002_roi/ (not used)
    ...
"""
SUBTYPES = {"0": "common", "1": "atypical", "2": "melanoma"}
COLOURS = {"1": "white", "2": "red", "3": "light_brown", "4": "dark_brown", "5": "blue_gray", "6": "black"}
_WORDS = {"A": "absent", "AT": "atypical", "P": "present", "T": "typical", "": ""}
_FINDINGS = {  # metadata column: (heading of the spreadsheet, codes that may stand in it)
    "pigment_network": ("pigment network", ("AT", "T")),
    "dots_globules": ("dots/globules", ("A", "AT", "T")),
    "streaks": ("streaks", ("A", "P")),
    "regression": ("regression areas", ("A", "P")),
    "blue_whitish_veil": ("blue-whitish veil", ("A", "P")),
}
_SHEET_SUBTYPES = {"common nevus": "common", "atypical nevus": "atypical", "melanoma": "melanoma"}


def recognises(folder: Path) -> bool:
    """Whether the folder, or `PH2Dataset` in it, has the images."""
    return _root(folder) is not None


def render(folder: Path, seed: int = 0, counts: dict[str, int] | None = None, size: tuple[int, int] = (300, 400)) -> None:
    """Draws a small stand-in in the official layout, with 1-bit masks and both tables.

    `counts` are of `common` (default 8), `atypical` (8) and `melanoma` (4) images.
    """
    from keras_skin.data.datasets.stand_ins import drawing

    image_counts = drawing.counts_or_default(counts, {"common": 8, "atypical": 8, "melanoma": 4})
    suspicion = {"common": 0.0, "atypical": 0.25, "melanoma": 1.0}
    rows = []
    with drawing.new_folder(folder, "PH2", seed) as root:
        root = root / "PH2Dataset"
        for index, subtype in enumerate(subtype for subtype, count in image_counts.items() for _ in range(count)):
            image_id = f"IMD{index + 2:03d}"
            image, mask = drawing.picture(seed, 30_000 + index, size, suspicion[subtype])
            case = root / "PH2 Dataset images" / image_id
            drawing.write_image(case / f"{image_id}_Dermoscopic_Image" / f"{image_id}.bmp", image)
            drawing.write_mask_bmp(case / f"{image_id}_lesion" / f"{image_id}_lesion.bmp", mask)
            rng = np.random.default_rng([seed, index])
            findings = [str(rng.choice(codes)) for _, codes in _FINDINGS.values()]
            colours = sorted(rng.choice(list(COLOURS), size=1 + rng.integers(3), replace=False).tolist())
            histology = "Melanoma" if subtype == "melanoma" else ""
            rows.append([image_id, histology, subtype, str(rng.integers(3)), *findings, colours])
        _write_tables(root, rows)


def _write_tables(root: Path, rows: list[list[Any]]) -> None:
    """Writes the annotations as the download has them: a spreadsheet with its header on row 13, a text table with a legend."""
    import openpyxl

    code = {subtype: number for number, subtype in SUBTYPES.items()}
    heading = (
        "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | "
        "Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
    )
    lines = [heading]
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.title = "Folha1"
    titles = [f"{title.title()}\n({'/'.join(codes)})" for title, codes in _FINDINGS.values()]
    for column, title in enumerate(
        [
            "Image Name",
            "Histological Diagnosis",
            *(name.title() for name in _SHEET_SUBTYPES),
            "Asymmetry\n(0/1/2)",
            *titles,
            *(name.replace("_", "-").title() for name in COLOURS.values()),
        ],
        1,
    ):
        sheet.cell(13, column, title)
    for line, (image_id, histology, subtype, asymmetry, *findings, colours) in enumerate(rows, 14):
        crosses = ["X" if name == subtype else None for name in _SHEET_SUBTYPES.values()]
        marks = ["X" if number in colours else None for number in COLOURS]
        for column, value in enumerate([image_id, histology or None, *crosses, int(asymmetry), *findings, *marks], 1):
            sheet.cell(line, column, value)
        lines.append(
            f"|| {image_id} || {histology:>22} || {code[subtype]:>18} || {asymmetry:>9} | "
            + " | ".join(f"{finding:>15}" for finding in findings)
            + f" || {'  '.join(colours):>16} ||"
        )
    workbook.save(root / "PH2_dataset.xlsx")
    legend = ["", "", "Legends for Clinical Diagnosis: ", "   0 - Common Nevus;", "   1 - Atypical Nevus;", "   2 - Melanoma."]
    (root / "PH2_dataset.txt").write_bytes("\r\n".join([*lines, *legend]).encode("ascii"))


@register(
    "ph2",
    title="PH2, Hospital Pedro Hispano",
    folders=("ph2", "PH2", "PH2Dataset", "PH2 Dataset"),
    classes=CLASSES,
    tree=TREE,
    obtain="https://www.fc.up.pt/addi/ph2%20database.html (registration form)",
    terms="research and education only, no redistribution",
    licence=Licence.NON_COMMERCIAL,
    render=render,
    recognises=recognises,
    metadata={
        "asymmetry": "categorical",
        "pigment_network": "categorical",
        "dots_globules": "categorical",
        "streaks": "categorical",
        "regression": "categorical",
        "blue_whitish_veil": "categorical",
        "colors": "categorical",
    },
    never_inputs=("subtype", "histology"),
    published={"images": {"": 200}, "classes": {"": {"benign": 160, "malignant": 40}}},
)
def read(folder: Path) -> Records:
    """Reads images, masks and the two tables; one table is enough, two must agree.

    Common and atypical naevi are `benign`, melanomas `malignant`; `subtype` keeps the three apart. There is no official split and
    no patient id.
    """
    root = _root(folder)
    if root is None:
        raise wrong_folder(get("ph2"), folder)
    annotations, source, notes = _annotations(root)
    image_folder = _image_folder(root)
    assert image_folder is not None
    images = index_files([image_folder], ignore=("_lesion",))
    images = Files(
        {key: path for key, path in images.paths.items() if not _is_roi(path)},
        {key: [path for path in paths if not _is_roi(path)] for key, paths in images.repeated.items()},
    )
    masks = index_files([image_folder], "_lesion")
    rows = pd.DataFrame.from_dict(annotations, orient="index").rename_axis("image_id").reset_index()
    rows["label"] = (rows["subtype"] == "melanoma").map({True: "malignant", False: "benign"})
    rows, excluded = add_files(rows, excluded_rows([], ""), source, images, masks, "no mask: no {}_lesion.bmp")
    return make_records("ph2", rows, CLASSES, excluded, notes)


def _root(folder: Path) -> Path | None:
    for place in (folder, find_folder(folder, "PH2Dataset")):
        if place is not None and _image_folder(place) is not None:
            return place
    return None


def _image_folder(root: Path) -> Path | None:
    return find_folder(root, "PH2 Dataset images") or find_folder(root, "PH2_Dataset_images")


def _is_roi(path: Path) -> bool:
    return path.parent.name.lower().endswith("_roi")


def _annotations(root: Path) -> tuple[dict[str, dict[str, str]], Path, list[str]]:
    sheet, text = find_file([root], "PH2_dataset.xlsx"), find_file([root], "PH2_dataset.txt")
    if sheet is None and text is None:
        raise UserError(f"{root} has no table: expected PH2_dataset.xlsx or PH2_dataset.txt there.")
    if sheet is None or text is None:
        source = sheet or text
        assert source is not None
        table = _read_sheet(source) if sheet else _read_text(source)
        return table, source, [f"Annotations from {source.name} alone."]
    from_sheet, from_text = _read_sheet(sheet), _read_text(text)
    differences = [
        f"  {image_id}: only in {(sheet if image_id in from_sheet else text).name}"
        for image_id in sorted(from_sheet.keys() ^ from_text.keys())
    ]
    for image_id in sorted(from_sheet.keys() & from_text.keys()):
        one, other = from_sheet[image_id], from_text[image_id]
        differences += [
            f"  {image_id}: {column} is {one[column]!r} in {sheet.name}, {other[column]!r} in {text.name}"
            for column in one
            if one[column] != other[column]
        ]
    if differences:
        title = f"The two tables in {root} disagree in {len(differences)} places:"
        raise UserError("\n".join([title, *shorten(differences), "Fix or remove one of them."]))
    return from_sheet, sheet, [f"Annotations from {sheet.name} and {text.name}, which agree."]


def _read_sheet(path: Path) -> dict[str, dict[str, str]]:
    """Reads the spreadsheet: the header is row 13, in some copies row 1; headings go over several lines."""
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # openpyxl warns of styles that it ignores
            workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheets = [list(sheet.iter_rows(values_only=True)) for sheet in workbook.worksheets]
            workbook.close()
    except Exception as error:  # a damaged archive fails in many ways, none of them documented
        raise UserError(f"{path} is not a spreadsheet that can be read: {error}.") from error
    for rows in sheets:
        for number, row in enumerate(rows):
            if row and _cell(row[0]).lower() == "image name":
                return _sheet_rows(path, row, rows[number + 1 :], number + 2)
    raise UserError(f"{path}: found no header row, expected one whose first cell is 'Image Name'.")


def _sheet_rows(path: Path, header: tuple[Any, ...], rows: list[tuple[Any, ...]], first_line: int) -> dict[str, dict[str, str]]:
    position = {re.split(r"[\n(]", _cell(heading).lower())[0].strip(): column for column, heading in enumerate(header)}
    colours = {name.replace("_", "-"): name for name in COLOURS.values()}
    needed = ["histological diagnosis", *_SHEET_SUBTYPES, "asymmetry", *(heading for heading, _ in _FINDINGS.values()), *colours]
    missing = [heading for heading in needed if heading not in position]
    if missing:
        raise UserError(f"{path}, row {first_line - 1}: the header has no {', '.join(missing)}.")
    entries = []
    for line, row in enumerate(rows, first_line):
        if not row or not _cell(row[0]):
            continue
        cells = {heading: _cell(row[column]) if column < len(row) else "" for heading, column in position.items()}
        entries.append(
            (
                line,
                {
                    "image_id": _cell(row[0]),
                    "subtype": " ".join(name for heading, name in _SHEET_SUBTYPES.items() if cells[heading].upper() == "X"),
                    "histology": cells["histological diagnosis"].lower(),
                    "asymmetry": cells["asymmetry"],
                    **{column: cells[heading] for column, (heading, _) in _FINDINGS.items()},
                    "colors": " ".join(name for heading, name in colours.items() if cells[heading].upper() == "X"),
                },
            )
        )
    return _checked(path, entries)


def _read_text(path: Path) -> dict[str, dict[str, str]]:
    """Reads the text table: rows start with `|| IMD`, cells are separated by `|` or `||` and may be empty; a legend follows."""
    entries, mistakes = [], []
    for line, text in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        if not text.startswith("|| IMD"):
            continue
        cells = [cell.strip() for cell in re.split(r"\|\|?", text.strip().removeprefix("||").removesuffix("||"))]
        if len(cells) != 10:
            mistakes.append(f"  line {line}: found {len(cells)} cells, expected 10")
            continue
        entries.append(
            (
                line,
                {
                    "image_id": cells[0],
                    "subtype": SUBTYPES.get(cells[2], cells[2]),
                    "histology": cells[1].lower(),
                    "asymmetry": cells[3],
                    **dict(zip(_FINDINGS, cells[4:9], strict=True)),
                    "colors": " ".join(COLOURS.get(code, code) for code in cells[9].split()),
                },
            )
        )
    if mistakes or not entries:
        title = f"{path} cannot be read; expected rows '|| IMD003 || ... ||' of 10 cells:"
        raise UserError("\n".join([title, *shorten(mistakes)]))
    return _checked(path, entries)


def _checked(path: Path, entries: list[tuple[int, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """Checks all cells and returns the annotations by image id, with codes as words."""
    mistakes, table = [], {}
    for line, entry in entries:
        image_id = entry.pop("image_id")
        wrong = [f"{image_id} a second time"] if image_id in table else []
        if not is_image_id(image_id):
            wrong.append(f"image id {image_id!r}, expected one without '..' or a path separator")
        if entry["subtype"] not in SUBTYPES.values():
            wrong.append(f"clinical diagnosis {entry['subtype']!r}, expected one of {', '.join(SUBTYPES.values())}")
        if entry["asymmetry"] not in ("0", "1", "2"):
            wrong.append(f"asymmetry {entry['asymmetry']!r}, expected 0, 1 or 2")
        for column, (_, codes) in _FINDINGS.items():
            if entry[column] not in codes:
                wrong.append(f"{column} {entry[column]!r}, expected one of {', '.join(codes)}")
            entry[column] = _WORDS.get(entry[column], entry[column])
        mistakes += [f"  line {line}: found {problem}" for problem in wrong]
        table[image_id] = entry
    if mistakes or not table:
        raise UserError("\n".join([f"{path} cannot be read:", *(shorten(mistakes) or ["  it has no rows"])]))
    return table


def _cell(value: Any) -> str:
    """A cell as text; whole numbers lose the `.0` that spreadsheets add."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()

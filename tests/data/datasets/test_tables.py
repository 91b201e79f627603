"""What every reader of a CSV must bear: the spoilt tables that users have, each named by file, line and expected value."""

import os
import re
import shutil
import time

import pandas as pd
import pytest

from keras_skin.data.datasets import readers, tables
from keras_skin.data.datasets.records import read_dataset
from keras_skin.registry import UserError

SIZE = (32, 40)
ISIC2018 = "ISIC2018_Task3_Training"
TABLES = {  # by stand-in: (reader, table, column of ids, a column whose cells are checked or None)
    "ham10000": ("ham10000", "HAM10000_metadata", "image_id", "age"),
    "ham10000_one_hot": ("ham10000", "GroundTruth.csv", "image", "BCC"),
    "isic2018_task3": ("isic2018_task3", f"{ISIC2018}_GroundTruth/{ISIC2018}_GroundTruth.csv", "image", "MEL"),
    "isic2018_task3_lesions": ("isic2018_task3", f"{ISIC2018}_LesionGroupings.csv", "image", None),
    "isic2019": ("isic2019", "ISIC_2019_Training_GroundTruth.csv", "image", "NV"),
    "isic2019_metadata": ("isic2019", "ISIC_2019_Training_Metadata.csv", "image", "age_approx"),
    "csv_folder": ("csv_folder", "metadata.csv", "image_id", "age"),
    "pad_ufes_20": ("pad_ufes_20", "metadata.csv", "img_id", "diameter_1"),
    "isic2016": ("isic2016", "ISBI2016_ISIC_Part3_Training_GroundTruth.csv", None, None),
    "isic2017": ("isic2017", "ISIC-2017_Training_Part3_GroundTruth.csv", "image_id", "melanoma"),
    "isic2017_metadata": ("isic2017", "ISIC-2017_Training_Data_metadata.csv", "image_id", None),
}
BY_NAME = [case for case in TABLES if "2016" not in case]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    root = tmp_path_factory.mktemp("tables")
    for case, (name, *_) in TABLES.items():
        info = readers.get(name).info
        counts = dict.fromkeys(info["classes"], 2) if name in ("ham10000", "isic2019", "pad_ufes_20") else None
        extra = {"layout": "surajghuwalewala"} if case == "ham10000_one_hot" else {}
        info["render"](root / case, 1, counts, SIZE, **extra)
    return root


@pytest.fixture
def case_of(stand_ins, tmp_path):
    """Gives a copy of a stand-in: its folder, its table, and a function that reads it."""

    def copy(case):
        name, table, *_ = TABLES[case]
        folder = shutil.copytree(stand_ins / case, tmp_path / case)
        return folder / table, lambda: read_dataset(name, None, str(folder), check_images=False)

    return copy


def edit(table, line, column, cell):
    """Puts a cell into a table: the column by name, or by number in a table without header; lines count from 1."""
    lines = table.read_bytes().split(b"\n")
    cells = lines[line - 1].split(b",")
    cells[lines[0].decode().split(",").index(column) if isinstance(column, str) else column] = cell
    lines[line - 1] = b",".join(cells)
    table.write_bytes(b"\n".join(lines))


def fails(table, read, line, expected):
    with pytest.raises(UserError) as caught:
        read()
    message = str(caught.value)
    assert str(table) in message
    assert re.search(rf"\b(line|row) {line}\b", message), message
    assert re.search(expected, message), message
    return message


def test_every_reader_of_a_csv_is_among_the_cases():
    assert set(readers.names()) - {"ph2", "isic2018_task1"} == {name for name, *_ in TABLES.values()}


@pytest.mark.parametrize("case", TABLES)
def test_missing_column(case_of, case):
    table, read = case_of(case)
    end = -2 if case == "ham10000" else -1  # its last column is an extra
    rows = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(",".join(row[:end]) for row in rows) + "\n")
    message = fails(table, read, 1, "expected")
    if case in BY_NAME:
        assert f"found no column {rows[0][end]} in the header" in message


@pytest.mark.parametrize("case", [case for case, (*_, typed) in TABLES.items() if typed])
def test_wrong_types(case_of, case):
    table, read = case_of(case)
    edit(table, 3, TABLES[case][3], b"many")
    message = fails(table, read, 3, "'many'")
    assert "expected" in message


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("image_id", [b"../../ISIC_0000001", b"..\\x", b"/etc/passwd", b"C:x", b""])
def test_an_id_that_leads_elsewhere(case_of, case, image_id):
    table, read = case_of(case)
    edit(table, 3, TABLES[case][2] or 0, image_id)
    assert "expected" in fails(table, read, 3, "")


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("first", [b"caf\xe9", "café".encode()], ids=["latin-1", "mixed"])
def test_other_encodings(case_of, case, first):
    """A table whose lines are in different encodings is as wrong as one in another encoding; the first such line is named."""
    table, read = case_of(case)
    edit(table, 2, -1, first)
    edit(table, 4, -1, b"\x93na\xefve\x94")
    message = fails(table, read, 4 if first.decode("utf-8", "ignore") == "café" else 2, "expected .*UTF-8")
    assert "0x93" in message or "0xe9" in message


@pytest.mark.parametrize("case", BY_NAME)
def test_utf_16(case_of, case):
    table, read = case_of(case)
    table.write_text(table.read_text(), encoding="utf-16")
    fails(table, read, 1, "found UTF-16, expected UTF-8")


@pytest.mark.parametrize("case", TABLES)
def test_empty_file(case_of, case):
    table, read = case_of(case)
    table.write_bytes(b"")
    fails(table, read, 1, "expected")


@pytest.mark.parametrize("case", BY_NAME)
def test_header_alone(case_of, case):
    table, read = case_of(case)
    table.write_text(table.read_text().split("\n")[0])
    fails(table, read, 2, "found no rows below the header, expected")


@pytest.mark.parametrize("case", TABLES)
def test_a_row_cut_short(case_of, case):
    table, read = case_of(case)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:-1], lines[-1].rpartition(",")[0]]))
    fails(table, read, len(lines), "expected")


@pytest.mark.parametrize("case", BY_NAME)
@pytest.mark.parametrize(
    ("spoilt", "line", "expected"),
    [
        (b'"', 3, "quotation marks are closed"),
        (b"a,b", 3, "cells, expected"),
        (b"\0", 3, "zero byte, expected"),
    ],
    ids=["quote", "one cell more", "zero"],
)
def test_damage(case_of, case, spoilt, line, expected):
    table, read = case_of(case)
    edit(table, 3, -1, spoilt)
    fails(table, read, line, expected)


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n",
        lambda text: text.rstrip(b"\n"),
        lambda text: b"\n".join(b",".join(b'"' + cell + b'"' for cell in line.split(b",")) for line in text.split(b"\n")[:-1]),
        lambda text: text.replace(b",", b" , "),
    ],
    ids=["BOM", "CRLF", "BOM and CRLF", "no last line end", "quoted", "spaces"],
)
def test_harmless_differences(case_of, case, change):
    table, read = case_of(case)
    before = read()
    table.write_bytes(change(table.read_bytes()))
    after = read()
    assert after.table.equals(before.table)
    assert after.excluded.equals(before.excluded)


@pytest.mark.parametrize("case", BY_NAME)
def test_semicolons_tabs_and_the_order_of_columns(case_of, case):
    table, read = case_of(case)
    before = read().table
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    for delimiter, columns in ((";", frame.columns), ("\t", frame.columns[::-1]), (",", ["more", *frame.columns])):
        frame.assign(more="x")[list(columns)].to_csv(table, sep=delimiter, index=False)
        assert read().table.equals(before)


@pytest.mark.parametrize("case", [case for case in BY_NAME if TABLES[case][3]])
def test_repeated_ids(case_of, case):
    table, read = case_of(case)
    before = read()
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1]]) + "\n")
    after = read()
    assert after.table.equals(before.table)
    if case != "isic2019_metadata":
        assert after.excluded["reason"].tolist() == [f"duplicate id: line {len(lines) + 1} repeats line 2, which is used"]


def test_rows_of_one_id_with_different_labels_are_left_out(case_of):
    table, read = case_of("ham10000")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1].replace(",mel,", ",nv,")]) + "\n")
    records = read()
    reason = f"duplicate id with different labels: MEL (line 2), NV (line {len(lines) + 1})"
    assert records.excluded["reason"].tolist() == [reason]
    assert records.excluded["image_id"][0] not in set(records.table["image_id"])


def test_metadata_that_disagree_are_an_error(case_of):
    table, read = case_of("isic2019_metadata")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1].rpartition(",")[0] + ",other"]) + "\n")
    fails(table, read, len(lines) + 1, "found other cells for ISIC_0053454_downsampled than in line 2, expected one row")


def test_all_mistakes_are_listed_in_order_and_counted(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("image,age,A,B\n" + "x\n" + "".join(f"../{number},old,1.0,1.0\n" for number in range(30)))
    with pytest.raises(UserError) as caught:
        tables.read_table(path, [tables.image_ids("image"), tables.number("age", 0, 120)], ["A", "B"])
    lines = str(caught.value).splitlines()
    assert lines[1] == "  line 2: found 1 cells, expected 4: image,age,A,B"
    assert lines[2] == "  line 3: found image '../0', expected an image id without '..' or a path separator"
    assert lines[3] == "  line 3: found age 'old', expected a number from 0 to 120, or nothing"
    assert lines[4] == "  line 3: found 2 columns that are 1.0, expected one of A, B"
    assert len(lines) == 22
    assert lines[-1] == "  ... and 71 more"


def test_quoted_cells_over_several_lines_keep_the_line_numbers(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('image,note,age\na,"two\nlines, and a comma",5\n\nb,"say ""x""",many\n')
    columns = [tables.image_ids("image"), tables.text("note"), tables.number("age", 0, 120)]
    with pytest.raises(UserError, match=r"line 5: found age 'many'"):
        tables.read_table(path, columns)
    frame = tables.read_table(path, columns[:2])
    assert frame.to_dict("index") == {2: {"image": "a", "note": "two\nlines, and a comma"}, 5: {"image": "b", "note": 'say "x"'}}


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    """Reads the two tables of ISIC 2019 grown to a million rows each; processor time, since tests share the machine."""
    rows = 10**6
    (tmp_path / "ISIC_2019_Training_Input").mkdir()
    with (tmp_path / "ISIC_2019_Training_GroundTruth.csv").open("w") as stream:
        stream.write("image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n")
        stream.writelines(f"ISIC_{number:07d},0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n" for number in range(rows))
    with (tmp_path / "ISIC_2019_Training_Metadata.csv").open("w") as stream:
        stream.write("image,age_approx,anatom_site_general,lesion_id,sex\n")
        stream.writelines(f"ISIC_{number:07d},55,anterior torso,BCN_{number // 2:07d},female\n" for number in range(rows))
    start = time.process_time()
    records = readers.get("isic2019").builder(tmp_path)
    assert time.process_time() - start < 20
    assert len(records.excluded) == rows
    assert (records.excluded["label"] == "NV").all()


@pytest.mark.parametrize("case", [case for case in TABLES if case in readers.names()])
def test_no_file_is_asked_for_by_itself(case_of, case, monkeypatch):
    _, read = case_of(case)
    paths, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, *args, **kwargs: paths.append(path) or stat(path, *args, **kwargs))
    table = read().table
    monkeypatch.undo()
    images = set(table["image"]) | set(table["mask"])
    assert len(images) > 8
    assert not images & {os.fspath(path) for path in paths if isinstance(path, str | os.PathLike)}

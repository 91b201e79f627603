"""Clinical fields by image: no image gets the cells of a row that could mean another one, and nothing is dropped silently."""

import time
import unicodedata

import pytest

from keras_skin.registry import UserError
from keras_skin.workflow import answers, prediction

SPECS = {"image_bytes": "string", "age": "float32", "site": "string"}


@pytest.fixture
def clinical(tmp_path):
    about = {
        "name": "fused",
        "classes": ["a", "b"],
        "metadata": {"age": {"kind": "numeric", "values": []}, "site": {"kind": "categorical", "values": ["back", "head"]}},
        "signatures": {"serving_default": {"inputs": {name: {"dtype": dtype} for name, dtype in SPECS.items()}, "outputs": {}}},
    }
    return prediction.ExportedModel(tmp_path, about, None)


@pytest.fixture
def read(clinical, tmp_path, monkeypatch):
    """Reads rows for images below the folder `photos`."""
    monkeypatch.chdir(tmp_path)

    def read(images, rows, named=("photos",), header="image,age,site"):
        for name in images:
            file = tmp_path / "photos" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        (tmp_path / "m.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        pictures, _ = prediction.find_pictures([prediction.Path(name) for name in named])
        found = answers.read_answers(tmp_path / "m.csv", clinical, pictures)
        ages = {str(picture.file): age for picture, age in zip(pictures, found.table["age"], strict=True)}
        return {name.removeprefix("photos/"): age for name, age in ages.items()}, found

    return read


def refused(read, *arguments, **settings):
    with pytest.raises(UserError) as caught:
        read(*arguments, **settings)
    return str(caught.value)


def test_a_row_that_could_mean_two_images_is_refused(read, tmp_path):
    message = refused(read, ["a.jpg", "x/a.jpg"], ["a.jpg,54,head"])
    photos = tmp_path / "photos"
    assert f"line 2 ('a.jpg') could mean {photos / 'a.jpg'} and {photos / 'x/a.jpg'}. Write one of these paths" in message
    assert "line 2 ('a') could mean" in refused(read, ["a.jpg", "a.png"], ["a,54,head"])
    assert "could mean" in refused(read, ["p/a.jpg", "q/a.jpg"], ["a.jpg,54,head"], named=("photos/p", "photos/q"))


@pytest.mark.parametrize("row", ["./a.jpg", "./a", ".\\a.jpg", "{tmp}/photos/a.jpg", "photos/a.jpg"])
def test_the_whole_path_means_one_image(read, tmp_path, row):
    ages, _ = read(["a.jpg", "x/a.jpg"], [f"{row.format(tmp=tmp_path)},54,head"])
    assert ages == {"a.jpg": "54", "x/a.jpg": ""}


def test_every_image_has_the_row_of_its_path(read):
    ages, found = read(["a.jpg", "x/a.jpg", "y/a.jpg", "y/b.png"], ["y/a.jpg,3,", "a.jpg,1,", "x/a,2,", "b,4,"])
    assert ages == {"a.jpg": "1", "x/a.jpg": "2", "y/a.jpg": "3", "y/b.png": "4"}
    assert not found.notes
    assert not found.unused


def test_named_files_of_the_same_name(read):
    images, named = ["p/a.jpg", "q/a.jpg"], ("photos/p/a.jpg", "photos/q/a.jpg", "photos/q/../q/a.jpg")
    assert read(images, ["q/a.jpg,2,", "photos/p/a.jpg,1,"], named)[0] == {"p/a.jpg": "1", "q/a.jpg": "2"}
    assert "could mean" in refused(read, images, ["./a.jpg,1,"], named=named)


@pytest.mark.parametrize(
    "rows",
    [
        ["a.jpg,1,", "x/a.jpg,2,"],
        ["x/a,1,", "x/a.jpg,2,"],
        ["x/,1,", "x/a.jpg,2,"],
        ["a.jpg,1,", "a.jpg,1,"],
        ["./,1,", "x/,2,"],
        ["x\\a.jpg,1,", "./x/a.jpg,2,"],
    ],
)
def test_an_image_that_two_rows_could_mean_is_refused(read, rows):
    names = [row.split(",")[0] for row in rows]
    message = refused(read, ["x/a.jpg"], rows)
    assert f"x/a.jpg has more than one row: line 2 ({names[0]!r}) and line 3 ({names[1]!r}) could mean it." in message


def test_the_row_of_a_folder_is_that_of_its_images(read):
    ages, found = read(["p1/a.jpg", "p1/deep/b.jpg", "p2/a.jpg", "p3/a.jpg"], ["p1/,1,", "p2/,2,", "p4/,4,", "p3,3,"])
    assert ages == {"p1/a.jpg": "1", "p1/deep/b.jpg": "1", "p2/a.jpg": "2", "p3/a.jpg": ""}
    assert found.notes == [
        "2 of 4 rows are not used:\n  line 4: 'p4/': no folder of images has this name\n"
        "  line 5: 'p3': no image has this name; write p3/ for all images of the folder",
        "1 of 4 images have no row, their fields are unknown:\n  p3/a.jpg",
    ]


def test_a_folder_that_could_be_two_is_refused(read):
    images = ["p/a.jpg", "q/p/b.jpg"]
    assert "line 2 ('p/') could mean" in refused(read, images, ["p/,1,"])
    assert read(images, ["./p/,1,", "q/p/,2,"])[0] == {"p/a.jpg": "1", "q/p/b.jpg": "2"}


def test_accents_match_in_every_form(read):
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    ages, _ = read([decomposed], [f"{composed},5,"])
    assert list(ages.values()) == ["5"]


def test_commas_at_the_end_shift_no_column(read):
    ages, found = read(["a.jpg"], ["a.jpg,54,head,", "b.jpg,3,back,,"])
    assert ages == {"a.jpg": "54"}
    assert found.table["site"].tolist() == ["head"]
    assert "line 2: found 4 cells, expected 3" in refused(read, ["a.jpg"], ["a.jpg,54,head,back"])
    assert "line 2: found 2 cells, expected 3" in refused(read, ["a.jpg"], ["a.jpg,54"])


def test_everything_that_is_not_used_is_named(read):
    ages, found = read(["a.jpg", "b.jpg"], ["a.jpg,55,hed,x", "unused,1,back,y", ",7,back,z"], header="file,Age,site,weight")
    assert ages == {"a.jpg": "55", "b.jpg": ""}
    assert found.notes == [
        "Column 'weight' is not used. Fields: age, site.",
        "2 of 3 rows are not used:\n  line 3: 'unused': no image has this name\n  line 4: '': it names no image",
        "1 of 2 images have no row, their fields are unknown:\n  b.jpg",
        "site: 'hed' (line 2) was not seen in training and counts as unknown. Did you mean 'head'? Known: back, head.",
    ]
    assert [tuple(cell)[:3] for cell in found.unused] == [
        (1, "weight", ""),
        (3, "file", "unused"),
        (4, "file", ""),
        (2, "site", "hed"),
    ]


def test_a_field_without_a_column(read):
    _, found = read(["a.jpg"], ["a,head"], header="image_id,site")
    assert found.table.to_dict("list") == {"age": [""], "site": ["head"]}
    assert found.notes == ["Field 'age' has no column: it is unknown for every image."]


def test_everything_wrong_with_a_table_is_told_at_once(read):
    message = refused(read, ["a.jpg"], ["a,old,", "b,-3,", "c,40,", "c,41,"])
    for words in (
        "c has more than one row",
        "line 2: age is 'old', expected a number from 0 to 1,000,000, or nothing.",
        "age is '-3'",
    ):
        assert words in message
    assert "no column image or image_id or file. It has: picture, age" in refused(read, ["a.jpg"], ["a,3"], header="picture,age")
    assert "found more than one column age" in refused(read, ["a.jpg"], ["a,3,4"], header="image,age,Age")


def test_many_rows_and_images_take_no_time(clinical, tmp_path):
    count = 500
    pictures = [prediction.Picture(tmp_path / f"p{n}" / "a.jpg", f"p{n}/a", f"p{n}/a.jpg") for n in range(count)]
    (tmp_path / "m.csv").write_text("image,age,site\n" + "".join(f"p{n}/a.jpg,{n % 100},head\n" for n in range(10 * count)))
    start = time.process_time()
    found = answers.read_answers(tmp_path / "m.csv", clinical, pictures)
    assert time.process_time() - start < 10
    assert found.table["age"].tolist() == [str(n % 100) for n in range(count)]
    assert len(found.unused) == 9 * count

"""Numbers beside the published ones, on small tables made by hand."""

import pandas as pd
import pytest

from keras_skin.checking import counts
from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import ExclusionKind, excluded_rows, make_records

PUBLISHED = {"images": {"train": 4, "test": 2}, "classes": {"train": {"benign": 3, "malignant": 1}}}


def records(labels, missing=(), split="train"):
    rows = [{"image_id": f"i{n}", "image": "x", "label": label, "split": split} for n, label in enumerate(labels)]
    ids = [f"m{n}" for n in range(len(missing))]
    excluded = excluded_rows(ids, ExclusionKind.MISSING_IMAGE, "a row without an image", split=split, label=missing)
    return make_records("isic2016", rows, ("benign", "malignant"), excluded)


def titles(data, published=PUBLISHED):
    return [(f.severity, f.title) for f in counts.against_published(counts.class_table(data, published), data, published)]


def test_the_class_table_counts_what_is_here_what_is_named_and_what_was_published():
    table = counts.class_table(records(["benign", "malignant"], ["benign", "benign"]), PUBLISHED)
    assert table.to_numpy().tolist()[:3] == [
        ["train", "all", 2, 1.0, 4, 4],
        ["train", "benign", 1, 0.5, 3, 3],
        ["train", "malignant", 1, 0.5, 1, 1],
    ]
    assert table["split"].unique().tolist() == ["train", "test"]


def test_a_whole_table_is_no_fault_even_where_images_lack():
    assert titles(records(["benign", "malignant"], ["benign", "benign"])) == [
        ("info", "The test split is missing (2 published images).")
    ]


def test_short_and_altered_tables_are_told():
    assert titles(records(["benign"] * 2))[0] == ("warning", "2 images in the train split, fewer than the 4 published.")
    severity, title = titles(records(["benign"] * 2 + ["malignant"] * 2))[0]
    assert severity == "error"
    assert "benign 3 published, 2 here, malignant 1 published, 2 here" in title


def test_groups_are_compared_where_all_images_are_here():
    data = records(["benign"] * 4, split="")
    published = {"images": {"": 4}, "groups": 3}
    assert titles(data, published) == [("warning", "4 groups of images (patients or lesions), 3 published.")]


@pytest.mark.parametrize("name", readers.names())
def test_published_counts_add_up(name):
    info = readers.get(name).info
    published = info["published"]
    for part, classes in published.get("classes", {}).items():
        assert sum(classes.values()) == published["images"][part]
        assert set(classes) <= set(info["classes"])


def test_completeness_parts_known_unknown_and_blank():
    table = pd.DataFrame({"age": ["30", "40", "", ""], "itch": ["UNK", "True", "True", "unknown"], "sex": ["f"] * 4})
    complete = counts.completeness(table, ["age", "itch", "sex", "absent"])
    assert complete.to_numpy().tolist() == [["age", 2, 0, 2, 2], ["itch", 2, 2, 0, 1], ["sex", 4, 0, 0, 1]]
    sentences = [finding.title for finding in counts.in_metadata(complete, 4)]
    assert sentences[0].endswith("age known for 50%, itch known for 50%.")
    assert sentences[1].endswith("itch, sex.")

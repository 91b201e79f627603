"""However an image is known on two sides: the pair is named, or the training side goes; what is tested on stays."""

from itertools import combinations

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_skin.data.datasets.records import bare_id, read_dataset
from keras_skin.data.splits.fingerprints import fingerprints
from keras_skin.data.splits.leaks import find_leaks, guard, unite
from keras_skin.registry import UserError

SPLITS = ("train", "validation", "test", "external/a", "external/b")
ORDER = {split: min(place, 2) for place, split in enumerate(SPLITS)}


def table_of(*rows):
    """Rows of (image_id, group_id, split) or dicts."""
    columns = ("image_id", "group_id", "split")
    rows = [row if isinstance(row, dict) else dict(zip(columns, row, strict=True)) for row in rows]
    return pd.DataFrame([{"group_id": "", "image": "", "label": "", "dataset": "set", **row} for row in rows], dtype=str)


def prints_of(table, sha256, phash, blank=()):
    """Made-up fingerprints of the files of a table: pictures of equal hash number have equal thumbnails."""
    thumbnails = [np.random.default_rng(seed % 1000).integers(0, 256, 256, np.uint8).tobytes() for seed in phash]
    return pd.DataFrame(
        {
            "path": table["image"].to_numpy(object),
            "sha256": sha256,
            "phash": np.array([seed * 0x9E3779B97F4A7C15 % 2**64 for seed in phash], np.uint64),
            "detail": [0.0 if row in blank else 50.0 for row in range(len(table))],
            "thumbnail": pd.Series(thumbnails, dtype=object),
        }
    )


@st.composite
def tables(draw):
    """A random table with many overlaps, its fingerprints, and the links between its rows by a plain loop."""
    count = draw(st.integers(0, 14))
    few = st.integers(0, 9)
    rows, sha256, phash = [], [], []
    for row in range(count):
        dataset = draw(st.sampled_from(["one", "two"]))
        image_id = f"I{row}" if draw(st.booleans()) else f"S{draw(few)}" + draw(st.sampled_from(["", "_downsampled"]))
        group_id = draw(st.sampled_from(["", image_id, f"L{draw(few)}", str(draw(few))]))
        split, label = draw(st.sampled_from(SPLITS)), draw(st.sampled_from(["", "benign", "malignant"]))
        fields = {"dataset": dataset, "image_id": image_id, "group_id": group_id, "split": split, "label": label}
        rows.append({**fields, "image": f"{row}.jpg"})
        sha256.append(f"sha{row if draw(st.booleans()) else draw(few)}")
        phash.append(100 + row if draw(st.booleans()) else draw(few) + 1)
    columns = ["dataset", "image_id", "group_id", "split", "label", "image"]
    return pd.DataFrame(rows, columns=columns, dtype=str), sha256, phash


def linked(table, sha256, phash, groups):
    """(i, j) -> kinds, by comparing all with all."""
    rows, links = table.to_dict("records"), {}
    for i, j in combinations(range(len(rows)), 2):
        one, other = rows[i], rows[j]
        same_group = one["group_id"] == other["group_id"] != "" and (
            not one["group_id"].isdigit() or one["dataset"] == other["dataset"]
        )
        kinds = {
            "id": bare_id(one["image_id"]) == bare_id(other["image_id"]),
            "group": groups and same_group,
            "file": sha256[i] == sha256[j],
            "picture": phash[i] == phash[j] and (groups or not same_group),
        }
        kinds["group"] &= not kinds["id"]
        if any(kinds.values()):
            links[i, j] = ", ".join(kind for kind, holds in kinds.items() if holds)
    return links


def slow_unions(count, pairs):
    unions = list(range(count))
    for _ in range(count):
        for i, j in pairs:
            unions[i] = unions[j] = min(unions[i], unions[j])
    return unions


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(example=tables(), groups=st.booleans())
def test_random_tables_come_out_clean(example, groups):
    table, sha256, phash = example
    prints = prints_of(table, sha256, phash)
    expected = {
        frozenset((table["image"][i], table["image"][j])): kinds
        for (i, j), kinds in linked(table, sha256, phash, groups).items()
        if table["split"][i] != table["split"][j]
    }
    leaks = find_leaks(table, groups=groups, prints=prints)
    pairs = [frozenset(pair) for pair in leaks[["image", "other_image"]].to_numpy()]
    assert dict(zip(pairs, leaks["kind"], strict=True)) == expected
    assert len(pairs) == len(expected)
    assert (leaks["split"].map(ORDER) <= leaks["other_split"].map(ORDER)).all()
    assert leaks["fitted"].tolist() == leaks["split"].isin(["train", "validation"]).tolist()

    remaining, dropped, notes = guard(table, "exclude", groups, prints=prints)
    again = find_leaks(remaining, groups=groups, prints=prints)
    assert not again["fitted"].any()
    assert len(remaining) + len(dropped) == len(table)
    assert dropped["split"].isin(["train", "validation"]).all()
    tested = ~table["split"].isin(["train", "validation"])
    assert (
        remaining[~remaining["split"].isin(["train", "validation"])]
        .reset_index(drop=True)
        .equals(table[tested].reset_index(drop=True))
    )
    unions = slow_unions(len(table), linked(table, sha256, phash, groups))
    sides = table["split"].map(ORDER).tolist()
    latest = [max(side for side, other in zip(sides, unions, strict=True) if other == union) for union in unions]
    stays = [side == last for side, last in zip(sides, latest, strict=True)]
    assert remaining["image"].tolist() == table["image"][stays].tolist()
    if leaks["fitted"].any():
        with pytest.raises(UserError, match=f"^Leak: {leaks['fitted'].sum()} pair"):
            guard(table, "error", groups, prints=prints)
        assert f"{(dropped['split'] == 'train').sum()} images of the training split" in notes[-1]
        assert len(dropped)
    else:
        assert guard(table, "error", groups, prints=prints)[0].equals(table)
        assert dropped.empty


@settings(max_examples=40, deadline=None)
@given(example=tables())
def test_unions_are_the_connected_components(example):
    table, sha256, phash = example
    unions = slow_unions(len(table), linked(table, sha256, phash, True))
    expected = [list(dict.fromkeys(unions)).index(union) for union in unions]
    assert unite(table, prints=prints_of(table, sha256, phash)).tolist() == expected


def test_the_error_lists_pairs_files_and_what_to_do():
    rows = [
        {"image_id": f"I{n}{end}", "split": split, "label": label, "image": f"{split}/{n}.jpg", "dataset": split}
        for split, label, end in (("train", "benign", "_downsampled"), ("test", "malignant", ""))
        for n in range(23)
    ]
    table = table_of(*rows, ("v", "g", "validation"), ("w", "g", "test"))
    prints = prints_of(table, [f"{row}" for row in range(48)], range(1, 49))
    with pytest.raises(UserError) as caught:
        guard(table, prints=prints)
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "Leak: 24 pairs of images on two sides (23 train-test, 1 validation-test; 23 by id, 1 by group; "
        "23 with different labels)."
    )
    assert lines[1:3] == [
        "  I0_downsampled (train of train) and I0 (test of test): same id; label conflict: benign here, malignant there",
        "    train/0.jpg and test/0.jpg",
    ]
    assert lines[-2] == "  ... and 4 more"
    assert 'Set leak_guard to "exclude"' in lines[-1]
    assert len(lines) == 1 + 2 * 20 + 2


def test_training_gives_way_to_validation_and_both_to_test():
    table = table_of(
        ("a1", "a", "train"),
        ("a2", "a", "validation"),
        ("b1", "b", "train"),
        ("b2", "b", "validation"),
        ("b3", "b", "test"),
        ("c1", "c", "train"),
        ("c2", "c", "external/x"),
        ("d1", "d", "test"),
        ("d2", "d", "external/x"),
        ("e1", "e", "train"),
        ("e2", "e", "train"),
    )
    remaining, dropped, notes = guard(table, "exclude")
    assert dropped["image_id"].tolist() == ["a1", "b1", "b2", "c1"]
    assert remaining["image_id"].tolist() == ["a2", "b3", "c2", "d1", "d2", "e1", "e2"]
    assert dropped.columns.tolist() == ["image_id", "dataset", "label", "split", "reason"]
    assert dropped["reason"][3] == "leak: c2 (external/x of set): same group"
    assert notes == [
        "Leak guard: compared 11 images by id, group, file and picture.",
        "Leak guard: 1 pair of images on two sides (1 test-external/x; 1 by group); both score them, none is trained on, "
        "and all stay.",
        "Leak guard: 5 pairs of images on two sides (2 train-validation, 1 train-test, 1 train-external/x, 1 validation-test; "
        "5 by group). Left out for that: 3 images of the training split and 1 of the validation split.",
    ]


def test_a_lesion_goes_whole_when_one_picture_of_it_is_tested_on():
    table = table_of(
        {"image_id": "a1", "group_id": "lesion", "split": "train", "image": "a1.jpg"},
        {"image_id": "a2", "group_id": "lesion", "split": "train", "image": "a2.jpg"},
        {"image_id": "z", "group_id": "other", "split": "test", "image": "z.jpg"},
    )
    prints = prints_of(table, ["1", "2", "3"], [1, 2, 1])
    _, dropped, _ = guard(table, "exclude", prints=prints)
    assert dropped["reason"].tolist() == [
        "leak: z (test of set): same picture",
        "leak: z (test of set): linked through other images",
    ]
    assert guard(table, "exclude", groups=False, prints=prints)[1]["image_id"].tolist() == ["a1"]
    assert find_leaks(table, prints=prints_of(table, ["1", "2", "3"], [1, 2, 1], blank=[0])).empty


def test_similar_pictures_of_one_lesion_may_straddle_where_groups_may():
    table = table_of(
        {"image_id": "a1", "group_id": "a", "split": "train", "image": "a1.jpg"},
        {"image_id": "a2", "group_id": "a", "split": "test", "image": "a2.jpg"},
        {"image_id": "b1", "group_id": "b", "split": "train", "image": "b1.jpg"},
        {"image_id": "b2", "group_id": "b", "split": "test", "image": "b2.jpg"},
    )
    prints = prints_of(table, ["1", "2", "3", "3"], [1, 1, 2, 2])
    assert find_leaks(table, prints=prints)["kind"].tolist() == ["group, picture", "group, file, picture"]
    assert find_leaks(table, groups=False, prints=prints)["kind"].tolist() == ["file"]


def test_groups_of_two_data_sets():
    def leaks(group_id):
        return find_leaks(
            table_of(
                {"image_id": "a", "group_id": group_id, "split": "train", "dataset": "ham10000"},
                {"image_id": "b", "group_id": group_id, "split": "test", "dataset": "isic2019"},
            )
        )

    assert leaks("HAM_0000550")["kind"].tolist() == ["group"]
    assert leaks("550").empty
    assert leaks("550.0").empty
    assert leaks("").empty


def test_an_unknown_mode_or_split():
    with pytest.raises(UserError, match=r"leak_guard is 'exlude', expected one of error, exclude\. Did you mean 'exclude'\?"):
        guard(table_of(), "exlude")
    with pytest.raises(ValueError, match=r"unknown splits \['dev'\]"):
        guard(table_of(("a", "a", "dev")))


def test_files_without_fingerprints_are_not_passed_over():
    table = table_of({"image_id": "a", "split": "train", "image": "a.jpg"})
    with pytest.raises(ValueError, match=r"no fingerprints of 1 files, for example a\.jpg"):
        find_leaks(table, prints=fingerprints([]))


def test_two_lesions_that_the_archive_shows_in_two_sets(real_data):
    """Real tables: HAM10000 against ISIC 2019 without any file."""
    ham = pd.read_csv(next((real_data / "csv" / "ham10000").glob("HAM10000_metadata*")), dtype=str, keep_default_na=False)
    isic = pd.read_csv(next((real_data / "csv" / "isic2019").glob("*Metadata*.csv")), dtype=str, keep_default_na=False)
    table = pd.concat(
        [
            ham.rename(columns={"lesion_id": "group_id"}).assign(split="train", dataset="ham10000"),
            isic.rename(columns={"lesion_id": "group_id", "image": "image_id"}).assign(split="test", dataset="isic2019"),
        ]
    )[["image_id", "group_id", "split", "dataset"]].assign(image="", label="")
    leaks = find_leaks(table)
    assert len(leaks) > 10_000
    remaining, dropped, _ = guard(table, "exclude")
    assert (remaining["split"] == "test").sum() == len(isic)
    assert len(dropped) + (remaining["split"] == "train").sum() == len(ham)


@pytest.fixture(scope="module")
def real_sets(real_data):
    return [read_dataset(name, real_data, check_images=False).table for name in ("isic2016", "isic2017")]


def test_the_80_images_of_two_real_sets(real_sets):
    base, other = real_sets
    table = pd.concat([base.assign(split="test"), other.assign(split="train")]).fillna("")
    leaks = find_leaks(table)
    assert leaks["kind"].tolist() == ["id, file, picture"] * 80
    assert (leaks["distance"] == 0).all()
    remaining, dropped, _ = guard(table, "exclude")
    assert len(dropped) == 80
    assert (remaining["split"] == "test").sum() == len(base) == 718
    with pytest.raises(UserError, match="Leak: 80 pairs of images"):
        guard(table)


def test_the_80_images_are_found_by_their_pictures_alone(real_sets, tmp_path):
    """Ids and groups renamed, files copied under other names, re-encoded at half their size and quality 60."""
    base, other = real_sets
    hidden = other.copy()
    for row, file in enumerate(other["image"]):
        small = cv2.resize(cv2.imread(file), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        path = str(tmp_path / f"picture{row}.jpg")
        cv2.imwrite(path, small, [cv2.IMWRITE_JPEG_QUALITY, 60])
        hidden.loc[row, ["image_id", "group_id", "image"]] = [f"picture{row}", f"picture{row}", path]
    leaks = find_leaks(pd.concat([base.assign(split="test"), hidden.assign(split="validation")]).fillna(""))
    assert leaks["kind"].tolist() == ["picture"] * 80
    real_ids = dict(zip(hidden["image_id"], other["image_id"], strict=True))
    assert leaks["image_id"].map(real_ids).tolist() == leaks["other_image_id"].tolist()

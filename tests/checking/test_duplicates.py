"""Pairs are those that comparing all with all gives, and each is told once, at its worst."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from keras_skin.checking import duplicates
from keras_skin.checking.scan import scan
from keras_skin.data.datasets.records import read_dataset


def frame(rows):
    return pd.DataFrame(rows, columns=["image_id", "label", "split", "group_id", "sha256"]).assign(image="", mask="")


def blank_prints(table):
    return table[["sha256"]].assign(phash=np.zeros(len(table), np.uint64), detail=0.0, thumbnail=b"")


def test_pairs_by_id_and_bytes_are_those_of_a_loop():
    random = np.random.default_rng(0)
    ids = [f"I{number}{suffix}" for number in range(20) for suffix in ("", "_downsampled")]
    table = frame([(name, "", "", name, random.choice(list("abcdefgh"))) for name in random.permutation(ids)])
    expected = set()
    for a in range(len(table)):
        for b in range(a + 1, len(table)):
            one, other = table.iloc[a], table.iloc[b]
            same_id = one["image_id"].split("_")[0] == other["image_id"].split("_")[0]
            if same_id or one["sha256"] == other["sha256"]:
                expected.add((one["image_id"], other["image_id"], same_id, one["sha256"] == other["sha256"]))
    pairs = duplicates.pairs_within(table, blank_prints(table))
    assert set(pairs[["a_image_id", "b_image_id", "same_id", "same_file"]].itertuples(index=False, name=None)) == expected
    assert (pairs["distance"] == -1).all()


def test_re_encoded_and_resized_copies_are_found(scratch):
    folder = scratch / "isic2016" / "ISBI2016_ISIC_Part1_Training_Data"
    image = cv2.imread(str(folder / "ISIC_0000000.jpg"))
    cv2.imwrite(str(folder / "ISIC_0000005.jpg"), cv2.resize(image, None, fx=0.7, fy=0.7), [cv2.IMWRITE_JPEG_QUALITY, 60])
    shutil.copy(folder / "ISIC_0000001.jpg", folder / "ISIC_0000006.jpg")
    table = read_dataset("isic2016", scratch, check_images=False).table
    pairs = duplicates.pairs_within(table, scan(table["image"], table["mask"]))
    names = dict(zip(zip(pairs["a_image_id"], pairs["b_image_id"], strict=True), pairs["same_file"], strict=True))
    assert names[("ISIC_0000000", "ISIC_0000005")] is False
    assert names[("ISIC_0000001", "ISIC_0000006")] is True


def test_each_pair_is_told_once_at_its_worst():
    rows = [
        ("a", "MEL", "", "a", "1"),
        ("b", "NV", "", "b", "1"),
        ("c", "NV", "train", "c", "2"),
        ("d", "NV", "test", "d", "2"),
        ("e", "NV", "", "e", "3"),
        ("f", "NV", "", "e", "3"),
    ]
    table = frame(rows)
    results = duplicates.findings_within(duplicates.pairs_within(table, blank_prints(table)))
    assert [(finding.severity, finding.title, finding.items[0].name) for finding in results] == [
        ("error", "1 pair of identical files with different labels.", "a = b"),
        ("error", "1 pair of equal pictures in two official splits.", "c = d"),
        ("warning", "1 pair of identical files.", "e = f"),
    ]


def test_groups_that_share_a_picture_are_united():
    table = frame([(name, "", "", group, sha) for name, group, sha in zip("abcde", "vwwxy", "12134", strict=True)])
    united = duplicates.repeated_groups(table, duplicates.pairs_within(table, blank_prints(table)))
    assert united[0] == united[1] == united[2]
    assert len(set(united)) == 3


@pytest.fixture
def between(stand_ins):
    records, other = (read_dataset(name, stand_ins, check_images=False) for name in ("isic2016", "isic2017"))
    prints = [scan(side.table["image"], [""] * len(side.table)) for side in (records, other)]
    return records, other, duplicates.pairs_between(records.table, prints[0], other.table, prints[1])


def test_pictures_shared_with_another_data_set_are_found_with_their_labels(between):
    records, other, pairs = between
    shared = sorted(set(records.table["image_id"]) & set(other.table["image_id"]))
    assert sorted(pairs["a_image_id"]) == sorted(pairs["b_image_id"]) == shared
    assert pairs[["same_id", "same_file"]].all(axis=None)
    results = duplicates.findings_between(pairs, records, other, "isic2017")
    assert [(finding.severity, finding.title) for finding in results] == [
        ("warning", f"{len(shared)} images also in isic2017 (5 by id, 5 by their bytes, 5 by sight)."),
        ("warning", "1 image with another label in isic2017."),
    ]
    assert "1 in test here and train there" in results[0].advice
    assert [item.name for item in results[1].items] == ["ISIC_0000002 = isic2017 ISIC_0000002"]


def test_the_eighty_real_images_that_two_sets_share(real_data):
    records, other = (read_dataset(name, real_data, check_images=False) for name in ("isic2016", "isic2017"))
    shared = set(records.table["image_id"]) & set(other.table["image_id"])
    tables = [side.table[side.table["image_id"].isin({*shared, *side.table["image_id"][:30]})] for side in (records, other)]
    tables = [table.reset_index(drop=True) for table in tables]
    prints = [scan(table["image"], [""] * len(table)) for table in tables]
    pairs = duplicates.pairs_between(tables[0], prints[0], tables[1], prints[1])
    assert len(pairs) == 80
    assert pairs["same_file"].all()
    results = duplicates.findings_between(pairs, records, other, "isic2017")
    assert results[0].title.startswith("80 images also in isic2017")
    assert results[-1].title.startswith("971 more ids shared with isic2017")  # 746 + 305 ids in both years' tables

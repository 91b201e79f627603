"""The page: one file that loads nothing, shows the offenders, and lets no file name become markup."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from keras_skin.checking.audit import check_dataset
from keras_skin.checking.findings import Finding, Item
from keras_skin.checking.page import PICTURED, thumbnail, write_page
from keras_skin.checking.places import resolve, siblings


@pytest.fixture(scope="module")
def check(stand_ins):
    place = resolve("isic2016", str(stand_ins))
    return check_dataset(place, siblings(place, str(stand_ins)))


class Tags(HTMLParser):
    """Collects tags and checks that they are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.all = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def written(tmp_path, check):
    write_page(tmp_path / "page.html", check)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_it_is_whole_and_loads_nothing(tmp_path, check):
    text = written(tmp_path, check)
    tags = Tags(text)
    assert tags.open == []
    assert not re.search(r"<script|<link|url\(|@import", text)
    sources = [attributes["src"] for tag, attributes in tags.all if tag == "img"]
    assert len(sources) == 2 * 5 + 2  # five shared pictures side by side, one of them with another label
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    for part in ("SYNTHETIC", "CC-0", "not a medical device", "challenge.isic-archive.com", "Compared with isic2017"):
        assert part in text


def test_names_are_text_not_markup(tmp_path, check):
    evil = '<img src=x onerror=alert(1)>"&'
    finding = Finding("error", evil, evil, (Item(evil, evil),))
    records = replace(check.records, notes=(evil,))
    text = written(tmp_path, replace(check, findings=(finding,), records=records, compared=(evil,), name=evil))
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x onerror") >= 6


def test_pictures_are_bounded_and_the_rest_is_counted(tmp_path, check):
    image = check.records.table["image"].iloc[0]
    items = tuple(Item(f"id{number}", "", (image,)) for number in range(40))
    names = tuple(Item(f"name{number}") for number in range(100))
    text = written(tmp_path, replace(check, findings=(Finding("error", "many", "", items), Finding("info", "more", "", names))))
    assert text.count("<img") == PICTURED
    assert "and 28 more" in text
    assert "name35" in text
    assert "name36" not in text
    assert "and 64 more" in text


def test_thumbnails_show_the_mask_and_survive_bad_files(tmp_path, check):
    row = check.records.table.iloc[0]
    plain, outlined = (
        cv2.imdecode(np.frombuffer(base64.b64decode(address.split(",")[1]), np.uint8), cv2.IMREAD_COLOR).astype(int)
        for address in (thumbnail(row["image"]), thumbnail(row["image"], row["mask"]))
    )
    cyan = (outlined[..., 0] > 180) & (outlined[..., 1] > 180) & (outlined[..., 2] < 110)
    assert cyan.sum() > 100
    assert np.abs(plain - outlined).max() > 60
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    assert thumbnail(str(tmp_path / "bad.jpg")) == ""
    assert thumbnail(row["image"], str(tmp_path / "bad.jpg")) == thumbnail(row["image"])

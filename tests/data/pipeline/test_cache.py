"""The disk cache: bit for bit what is decoded, complete or absent, shared, bounded."""

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_skin.data.images import cache_entry, preprocess
from keras_skin.data.images.cache_folder import CacheFolder
from keras_skin.data.pipeline import cache as cache_module
from keras_skin.data.pipeline.cache import disk_cache
from keras_skin.data.pipeline.samples import Samples, fit_mask

SIZE = (16, 24)
KINDS = {".jpg": {"quality": 90}, ".png": {}, ".bmp": {}}


def make_table(folder, number=9, seed=0):
    """JPEG, PNG and BMP of several sizes, masks of the same or another size."""
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir(exist_ok=True)
    for place in range(number):
        height, width = [(24, 32), (120, 160), (31, 41)][place % 3 if place < 6 else 0]
        suffix = list(KINDS)[(place // 2) % 3]
        image, mask = folder / f"{place}{suffix}", folder / f"{place}_mask.{'bmp' if place % 4 == 1 else 'png'}"
        pixels = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels.resize((width, height), Image.Resampling.BICUBIC).save(image, **KINDS[suffix])
        area = np.zeros((height, width) if place % 2 else (height // 2 + 1, width // 2), np.uint8)
        area[3 : 5 + place, 4:9] = 255
        Image.fromarray(area).save(mask)
        rows.append({"image_id": str(place), "image": str(image), "mask": str(mask), "label": "ab"[place % 2]})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def expected(table):
    """What is decoded without a cache."""
    return read_all(make_samples(table), len(table))


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "cache")


def make_samples(table, outputs=("mask", "label"), size=SIZE, preprocessing=()):
    return Samples(table, ("a", "b"), size, ["image"], list(outputs), preprocessing, None)


def open_cache(table, folder, outputs=("mask", "label"), size=SIZE, preprocessing=(), **options):
    """The cache, and what was noted while it was opened."""
    notes = []
    samples = make_samples(table, outputs, size, preprocessing)
    found = disk_cache(samples, table, title="pictures", folder=folder, note=notes.append, **options)
    return found, notes


def read_all(source, number):
    rows = tf.data.Dataset.range(number).map(source.decode, num_parallel_calls=2)
    return list(rows.as_numpy_iterator())


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for part, wanted in zip(one, other, strict=True):
            assert part.dtype == wanted.dtype
            np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize(("outputs", "fit"), [(("mask", "label"), False), (("mask", "label"), True), (("label",), True)])
def test_bit_identical_when_made_and_when_found_again(table, expected, folder, outputs, fit):
    if "mask" not in outputs:
        expected = [(image, np.zeros((0, 0, 1), np.uint8)) for image, _ in expected]
    elif fit:
        expected = [fit_mask(*pair) for pair in expected]
    for _ in range(2):
        cache, notes = open_cache(table, folder, outputs, fit=fit)
        assert_same(read_all(cache, len(table)), expected)
        assert not notes
        assert not cache.finished
    (entry,) = folder.entries()
    assert (entry.title, entry.images) == ("pictures, decoded for 16x24", len(table))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.integers(0, 8), min_size=1, max_size=14))
def test_any_rows_in_any_order_share_one_entry_with_their_pool(table, expected, tmp_path_factory, rows):
    folder = CacheFolder(tmp_path_factory.getbasetemp() / "shared")
    part = table.iloc[rows].reset_index(drop=True)
    cache, notes = open_cache(part, folder, pool=table)
    found = [tuple(value.numpy() for value in cache.decode(tf.constant(row, tf.int64))) for row in range(len(part))]
    assert_same(found, [expected[row] for row in rows])
    assert not notes
    assert len(folder.entries()) == 1


def test_finished_images_are_those_that_the_model_takes(table, folder):
    steps = [preprocess.get("shades_of_grey").builder(), preprocess.get("clahe").builder()]
    samples = make_samples(table, preprocessing=steps)

    def finish(row):
        inputs, targets = samples.finish(row, *samples.decode(row))
        return inputs["image"], tf.cast(targets["mask"], tf.uint8)

    expected = list(tf.data.Dataset.range(len(table)).map(finish).as_numpy_iterator())
    cache, notes = open_cache(table, folder, preprocessing=steps, finished=True)
    assert_same(read_all(cache, len(table)), expected)
    assert not notes
    assert cache.finished


def test_finished_images_of_unknown_operations_are_refused(table, folder):
    with pytest.raises(ValueError, match="only a dataclass tells its arguments"):
        open_cache(table, folder, preprocessing=[tf.identity], finished=True)


def test_key_depends_on_contents_and_settings_and_on_nothing_else(tmp_path, folder, monkeypatch):
    def build(folder, lease, keeper, *others):  # without the images, which take long
        blank = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 1), np.uint8)
        number = len(keeper.image_ids)
        return cache_entry.write_entry(folder, lease, [blank] * number, number, "blank", lambda done, total: None)

    monkeypatch.setattr(cache_module, "_build", build)
    table = make_table(tmp_path / "one", 4)
    shades = [preprocess.get("shades_of_grey").builder()]
    strong = [preprocess.get("shades_of_grey").builder(power=2.0)]

    def entries(table, **options):
        assert open_cache(table, folder, **options)[0] is not None
        return len(folder.entries())

    assert entries(table) == 1
    assert entries(table.iloc[::-1].reset_index(drop=True)) == 1
    assert entries(make_table(tmp_path / "two", 4)) == 1, "the same files elsewhere"
    assert entries(table, preprocessing=shades) == 1, "decoded images come before any pre-processing"
    assert entries(table, size=(20, 24)) == 2
    assert entries(table, fit=True) == 3
    assert entries(table, outputs=["label"]) == 4
    assert entries(table, finished=True, preprocessing=shades) == 5
    assert entries(table, finished=True, preprocessing=strong) == 6
    Image.fromarray(np.full((24, 32, 3), 77, np.uint8)).save(table["image"][2], format="PNG")
    assert entries(table) == 7, "another content"
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(table["mask"][1], format="PNG")
    assert entries(table) == 8, "another mask"


def test_damaged_entry_is_made_anew_with_a_note(table, expected, folder, monkeypatch):
    open_cache(table, folder)
    (entry,) = folder.entries()
    data = bytearray((entry.path / "pixels.bin").read_bytes())
    data[len(data) // 2] ^= 0x08
    (entry.path / "pixels.bin").write_bytes(data)
    monkeypatch.setattr(cache_entry, "_checked", set())  # as in another process
    cache, notes = open_cache(table, folder)
    assert notes == [f"The disk cache's entry {entry.path.name[:12]} is damaged: it is made anew."]
    assert_same(read_all(cache, len(table)), expected)


def test_waits_for_another_who_makes_the_same_entry(table, expected, folder, monkeypatch):
    monkeypatch.setattr(cache_module, "_POLL_SECONDS", 0.05)
    began, go_on = threading.Event(), threading.Event()

    def hold(done, total):
        began.set()
        assert go_on.wait(60)

    def note(text):
        notes.append(text)
        go_on.set()

    notes, first = [], threading.Thread(target=lambda: open_cache(table, folder, progress=hold))
    first.start()
    assert began.wait(60)
    cache = disk_cache(make_samples(table), table, title="pictures", folder=folder, note=note)
    first.join()
    assert notes == ["Another run is writing the same images to the disk cache: waiting for it."]
    assert_same(read_all(cache, len(table)), expected)


def test_without_room_or_permission_the_run_goes_on_uncached(table, tmp_path):
    cache, notes = open_cache(table, CacheFolder(tmp_path / "small", max_gib=1e-6))
    assert cache is None
    assert "bounded to" in notes[0]
    assert not CacheFolder(tmp_path / "small").entries()
    (tmp_path / "file").write_text("no folder")
    cache, notes = open_cache(table, CacheFolder(tmp_path / "file"))
    assert cache is None
    assert notes[0].startswith("The disk cache is not used:")


def test_full_disk_leaves_nothing_behind(table, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_entry, "sync", full)
    cache, notes = open_cache(table, folder)
    assert cache is None
    assert "No space left" in notes[0]
    assert not folder.entries()


def test_image_that_cannot_be_decoded_fails_as_without_a_cache(tmp_path, folder):
    table = make_table(tmp_path / "one", 3)
    Path(table["image"][1]).write_bytes(b"\xff\xd8\xff no more")
    with pytest.raises(tf.errors.InvalidArgumentError):
        open_cache(table, folder)
    assert not folder.entries()

"""The image store: what it holds, how it survives kills and damage, and who may write it."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin.data.images import cache, store_writer
from keras_skin.data.images.decode import decode_image
from keras_skin.data.images.load import load_mask, model_image
from keras_skin.data.images.preprocess import shades_of_grey
from keras_skin.data.images.store import ImageStore, open_store
from keras_skin.data.images.store_writer import StoreWriter
from keras_skin.registry import UserError

SIZE = (12, 18)  # 216 pixels: 27 bytes of packed bits
N = 2 * store_writer.BLOCK + 5
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder, rng, rows = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3), []
    for number in range(N):
        image, mask = folder / f"{number}.jpg", folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(image)
        Image.fromarray((rng.random((30, 40)) > 0.5).astype(np.uint8) * 255).save(mask)
        rows.append({"dataset": "pictures", "image": str(image), "mask": str(mask)})
    return pd.DataFrame(rows)


@pytest.fixture
def log_lines(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("keras_skin"), "propagate", True)
    caplog.set_level(logging.INFO, "keras_skin")
    return caplog


def only_store(folder):
    (path,) = (folder / cache.STORES).iterdir()
    return path


def read(opened: ImageStore, table, masks=True):
    return opened.read(opened.places(table["image"].tolist(), table["mask"].tolist() if masks else None), masks)


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", [(), (shades_of_grey.ShadesOfGrey(),)])
def test_it_holds_the_models_images_and_masks(table, tmp_path, preprocessing):
    shuffled = table.sample(frac=1.0, random_state=0)
    opened = open_store(shuffled, SIZE, preprocessing, masks="mask", folder=tmp_path)
    assert len(opened) == N
    images, masks = read(opened, shuffled)
    assert images.dtype == masks.dtype == np.uint8
    for row in range(0, N, 29):
        expected = model_image(decode_image(Path(shuffled["image"].iloc[row]).read_bytes(), SIZE), SIZE, preprocessing)
        np.testing.assert_array_equal(images[row], expected)
        np.testing.assert_array_equal(masks[row], load_mask(shuffled["mask"].iloc[row], SIZE)[..., 0])
    only_images, no_masks = read(opened, shuffled, masks=False)
    np.testing.assert_array_equal(only_images, images)
    assert no_masks.shape == (N, 0, 0)


@pytest.mark.slow
def test_it_is_found_again_by_content_and_written_once(table, tmp_path, log_lines):
    open_store(table, SIZE, masks="mask", folder=tmp_path)
    moved = table.iloc[::-1].assign(image=[os.path.relpath(path) for path in table["image"].iloc[::-1]])
    log_lines.clear()
    opened = open_store(moved, SIZE, masks="mask", folder=tmp_path)
    assert not log_lines.records
    only_store(tmp_path)
    np.testing.assert_array_equal(
        read(opened, moved)[0][::-1], read(open_store(table, SIZE, masks="mask", folder=tmp_path), table)[0]
    )
    open_store(table, (12, 16), masks="mask", folder=tmp_path)
    open_store(table, SIZE, folder=tmp_path)
    open_store(table, SIZE, [shades_of_grey.ShadesOfGrey()], masks="mask", folder=tmp_path)
    assert len(list((tmp_path / cache.STORES).iterdir())) == 4


@pytest.mark.slow
def test_a_changed_file_makes_another_store(table, tmp_path):
    few = table.iloc[:3].copy()
    before = read(open_store(few, SIZE, masks="mask", folder=tmp_path), few)[0]
    changed = tmp_path / "changed.jpg"
    Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(changed)
    few["image"] = [str(changed), *few["image"][1:]]
    after = read(open_store(few, SIZE, masks="mask", folder=tmp_path), few)[0]
    assert (after[0] != before[0]).any()
    np.testing.assert_array_equal(after[1:], before[1:])


def test_files_that_are_not_in_it_and_masks_that_were_not_stored_are_not_given(table, tmp_path):
    opened = open_store(table.iloc[:4], SIZE, folder=tmp_path)
    images = table["image"].tolist()
    assert opened.places(images[:4], None) is not None
    assert opened.places(images[:5], None) is None
    assert opened.places(images[:4], table["mask"].tolist()[:4]) is None


def test_a_row_without_a_mask_has_an_empty_one(table, tmp_path):
    few = table.iloc[:3].assign(mask=["", *table["mask"][1:3]])
    masks = read(open_store(few, SIZE, masks="mask", folder=tmp_path), few)[1]
    assert not masks[0].any()
    assert masks[1].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "manifest.json"])
def test_a_damaged_store_is_written_again(table, tmp_path, name, log_lines):
    expected = read(open_store(table, SIZE, masks="mask", folder=tmp_path), table)
    path = only_store(tmp_path) / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 0xFF
    path.write_bytes(data)
    opened = open_store(table, SIZE, masks="mask", folder=tmp_path)
    assert "is damaged: it is written again" in log_lines.text
    for one, other in zip(read(opened, table), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_files_that_cannot_be_decoded_are_all_named(table, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(table["image"][0]).read_bytes()[:200])
    text = tmp_path / "text.png"
    text.write_text("no mask")
    few = table.iloc[:4].assign(image=[str(broken), *table["image"][1:4]], mask=[*table["mask"][:3], str(text)])
    with pytest.raises(UserError) as caught:
        open_store(few, SIZE, masks="mask", folder=tmp_path / "cache")
    assert "2 files cannot be decoded" in str(caught.value)
    (tmp_path / "broken.jpg").write_bytes(Path(table["image"][0]).read_bytes())
    text.write_bytes(Path(table["mask"][3]).read_bytes())
    assert open_store(few, SIZE, masks="mask", folder=tmp_path / "cache") is not None  # fixed, and nothing waits for the failure
    assert f"{broken}: truncated or damaged JPEG" in str(caught.value)
    assert f"{text}: mask: text file, expected JPEG, PNG or BMP" in str(caught.value)


KILLED = """
import os, signal, sys
import pandas as pd
from keras_skin.data.images import store, store_writer
write, table = store_writer.zlib.crc32, pd.read_csv(sys.argv[1])
def checksum(data, count=[0]):
    count[0] += 1
    if count[0] > 2:  # images and masks of the first block are recorded
        os.kill(os.getpid(), signal.SIGKILL)
    return write(data)
store_writer.zlib = type("zlib", (), {"crc32": staticmethod(checksum)})
store.open_store(table, (12, 18), masks="mask", folder=store.Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills by a POSIX signal")
def test_a_killed_writer_is_continued_after_its_last_block(table, tmp_path, log_lines, monkeypatch):
    table.to_csv(tmp_path / "table.csv", index=False)
    folder = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "table.csv", folder], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    partial = only_store(folder)
    assert cache.PARTIAL in partial.name
    with (partial / "journal.jsonl").open("a") as journal:
        journal.write('{"block": 1, "checks')  # the line that a kill cuts short
    decoded, decode = [], StoreWriter._decode
    monkeypatch.setattr(StoreWriter, "_decode", lambda writer, blocks: (decoded.extend(blocks), decode(writer, blocks))[1])
    opened = open_store(table, SIZE, masks="mask", folder=folder)
    assert "Resuming the image store: 1 of 3 blocks are written" in log_lines.text
    assert decoded == [1, 2]
    undisturbed = open_store(table, SIZE, masks="mask", folder=tmp_path / "other")
    for one, other in zip(read(opened, table), read(undisturbed, table), strict=True):
        np.testing.assert_array_equal(one, other)
    assert sorted(path.name for path in opened.path.iterdir()) == ["images.npy", "manifest.json", "masks.npy"]


@pytest.mark.slow
def test_a_block_of_a_dead_writer_that_is_damaged_is_written_again(table, tmp_path):
    expected = read(open_store(table, SIZE, masks="mask", folder=tmp_path), table)
    path = only_store(tmp_path)
    blocks = json.loads((path / "manifest.json").read_text())["blocks"]
    (path / "manifest.json").unlink()
    (path / "journal.jsonl").write_text("".join(json.dumps({"block": i, "checksums": c}) + "\n" for i, c in enumerate(blocks)))
    (path / "owner.json").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    long_ago = time.time() - 2 * store_writer.HEARTBEAT_SECONDS
    os.utime(path / "owner.json", (long_ago, long_ago))
    with (path / "images.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"damage")
    path.rename(path.with_name(f"{path.name}{cache.PARTIAL}dead"))
    for one, other in zip(read(open_store(table, SIZE, masks="mask", folder=tmp_path), table), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_one_of_two_writers_waits_for_the_other(table, tmp_path, monkeypatch, log_lines):
    monkeypatch.setattr(store_writer, "_POLL_SECONDS", 0.02)
    opened = []

    def run():
        opened.append(open_store(table, SIZE, masks="mask", folder=tmp_path))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({item.path for item in opened}) == 1
    assert log_lines.text.count("Stored ") == 1
    only_store(tmp_path)


def test_without_room_or_permission_images_are_decoded_and_the_log_says_why(table, tmp_path, monkeypatch, log_lines):
    monkeypatch.setenv("KERAS_SKIN_CACHE_GIB", "1e-6")
    assert open_store(table, SIZE, folder=tmp_path) is None
    assert "images are decoded in every epoch: the images need 0.1 MiB, but the cache is bounded to 0.0 MiB" in log_lines.text
    assert not any((tmp_path / cache.STORES).iterdir())
    monkeypatch.delenv("KERAS_SKIN_CACHE_GIB")
    (tmp_path / "file").write_text("")
    assert open_store(table, SIZE, folder=tmp_path / "file") is None
    assert "The image store is not used" in log_lines.text
    assert open_store(table, SIZE, [lambda image: image], folder=tmp_path) is None
    assert "is not a dataclass, so its arguments are unknown" in log_lines.text


@pytest.mark.slow
def test_the_least_recently_used_store_makes_room(table, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE_GIB", str(2.2 * N * 12 * 18 * 3 / cache.GIB))
    first = open_store(table, SIZE, folder=tmp_path)
    second = open_store(table, (18, 12), folder=tmp_path)
    assert open_store(table, (12, 17), folder=tmp_path) is None  # both were used within the last hour
    for opened, hours in ((first, 2), (second, 3)):
        moment = time.time() - 3600 * hours
        for path in (*opened.path.iterdir(), opened.path):
            os.utime(path, (moment, moment))
    first.touch()
    third = open_store(table, (12, 17), folder=tmp_path)
    assert {path.name for path in (tmp_path / cache.STORES).iterdir()} == {first.path.name, third.path.name}
    assert second.read(np.arange(3), masks=False)[0].shape == (3, 18, 12, 3)  # a run that has it open goes on


@pytest.mark.slow
def test_a_file_that_a_kill_left_half_made_is_made_again(table, tmp_path):
    expected = read(open_store(table, SIZE, masks="mask", folder=tmp_path), table)
    path = only_store(tmp_path)
    (path / "manifest.json").unlink()
    (path / "images.npy").write_bytes((path / "images.npy").read_bytes()[:50])
    (path / "owner.json").write_text(json.dumps({"host": "elsewhere", "pid": 1, "released": True}))
    path.rename(path.with_name(f"{path.name}{cache.PARTIAL}dead"))
    for one, other in zip(read(open_store(table, SIZE, masks="mask", folder=tmp_path), table), expected, strict=True):
        np.testing.assert_array_equal(one, other)

"""What the cache folder removes and what it leaves alone."""

import os

import pytest

from keras_skin.data.images import cache_folder
from keras_skin.data.images.cache_folder import CacheFolder, NoRoom, age, gib
from keras_skin.registry import UserError

KEYS = [digit * 64 for digit in "abcd"]


def make_entry(folder, key, size=1000):
    lease = folder.acquire(key)
    (lease.path / "pixels.bin").write_bytes(bytes(size))
    folder.publish(lease)
    return lease


def test_entry_is_exclusive_until_published_then_shared(tmp_path):
    folder = CacheFolder(tmp_path)
    lease = folder.acquire(KEYS[0])
    assert not lease.complete
    assert folder.acquire(KEYS[0]) is None
    folder.publish(lease)
    second = folder.acquire(KEYS[0])
    assert second.complete
    assert second.path == lease.path == tmp_path / KEYS[0]
    lease.close()
    assert folder.entries()[0].in_use
    second.close()
    assert not folder.entries()[0].in_use


def test_what_is_left_of_an_unfinished_entry_is_wiped_by_the_next(tmp_path):
    folder = CacheFolder(tmp_path)
    lease = folder.acquire(KEYS[0])
    (lease.path / "pixels.bin").write_bytes(b"half")
    lease.close()
    lease = folder.acquire(KEYS[0])
    assert [path.name for path in lease.path.iterdir()] == ["lock"]


def test_clear_touches_only_what_is_the_caches(tmp_path):
    folder = CacheFolder(tmp_path)
    (tmp_path / "holidays").mkdir()
    (tmp_path / "holidays" / "picture.jpg").write_bytes(b"dear")
    (tmp_path / ("a" * 63)).mkdir()
    make_entry(folder, KEYS[0]).close()
    held = make_entry(folder, KEYS[1])
    folder.acquire(KEYS[2]).close()
    removed, kept = folder.clear()
    assert {entry.path.name for entry in removed} == {KEYS[0], f"{KEYS[2]}.part"}
    assert [entry.path for entry in kept] == [held.path]
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "holidays", "a" * 63, KEYS[1]}


def test_removal_that_was_interrupted_is_finished_by_the_next(tmp_path):
    folder = CacheFolder(tmp_path)
    (tmp_path / ".gone-1").mkdir()
    (tmp_path / ".gone-1" / "pixels.bin").write_bytes(b"x")
    make_entry(folder, KEYS[0]).close()
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_make_room_takes_unfinished_ones_first_and_no_more_than_needed(tmp_path):
    folder = CacheFolder(tmp_path, max_gib=4500 / 2**30)
    for key in KEYS[:2]:
        make_entry(folder, key).close()
    part = folder.acquire(KEYS[2])
    (part.path / "pixels.bin").write_bytes(bytes(1000))
    part.close()
    lease = folder.acquire(KEYS[3])
    folder.make_room(2000, lease)
    assert {entry.path.name for entry in folder.entries()} == {KEYS[0], KEYS[1], f"{KEYS[3]}.part"}
    with pytest.raises(NoRoom, match="bounded to"):
        folder.make_room(4501, lease)
    assert len(folder.entries()) == 3, "nothing is removed in vain"


def test_least_recently_used_goes_first_and_never_what_is_in_use(tmp_path):
    folder = CacheFolder(tmp_path, max_gib=3500 / 2**30)
    held = make_entry(folder, KEYS[0])
    for key, used in ((KEYS[1], 3000), (KEYS[2], 2000)):
        make_entry(folder, key).close()
        os.utime(tmp_path / key / "lock", (used, used))
    os.utime(held.path / "lock", (1000, 1000))
    lease = folder.acquire(KEYS[3])
    folder.make_room(1000, lease)
    assert {entry.path.name for entry in folder.entries()} == {KEYS[0], KEYS[1], f"{KEYS[3]}.part"}
    with pytest.raises(NoRoom, match="of which other runs use"):
        folder.make_room(3000, lease)
    lease.close()
    folder.acquire(KEYS[1]).close()
    assert folder.entries()[0].path.name == KEYS[1], "to use an entry is to renew it"


def test_short_disk_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_folder, "SPARE_BYTES", 2**60)
    folder = CacheFolder(tmp_path)
    with pytest.raises(NoRoom, match="short of it"):
        folder.make_room(1000, folder.acquire(KEYS[0]))


def test_place_and_bound_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("KERAS_SKIN_CACHE_GIB", "1.5")
    folder = CacheFolder()
    assert folder.path == tmp_path / "here"
    assert folder.max_bytes == 1.5 * 2**30
    assert not folder.entries()
    assert not folder.path.exists(), "looking makes nothing"
    monkeypatch.delenv("KERAS_SKIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(cache_folder.sys, "platform", "linux")
    assert CacheFolder().path == tmp_path / "xdg" / "keras_skin"
    for wrong in ("much", "-1", "0", "inf", "nan"):
        monkeypatch.setenv("KERAS_SKIN_CACHE_GIB", wrong)
        with pytest.raises(UserError, match=f"KERAS_SKIN_CACHE_GIB is '{wrong}'"):
            CacheFolder()


def test_numbers_for_people():
    assert [gib(number) for number in (0, 5 * 2**20, 3 * 2**30)] == ["0.0 MiB", "5.0 MiB", "3.0 GiB"]
    assert [age(seconds) for seconds in (3, 61, 7200, 90000)] == ["just now", "1 minute ago", "2 hours ago", "1 day ago"]

"""Entries of the disk cache: complete or absent, checked, whatever happens to the process that writes them."""

import signal
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from keras_skin.data.images import cache_entry
from keras_skin.data.images.cache_entry import EntryReader, checked_index, write_entry
from keras_skin.data.images.cache_folder import CacheFolder, NoRoom

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "a" * 64


def make_pairs(number=7, dtype=np.uint8):
    rng = np.random.default_rng(0)
    for place in range(number):
        height, width = 3 + place, 9 - place
        mask = rng.integers(0, 2, (height, 2 * width, 1), dtype=np.uint8) if place % 3 else np.zeros((0, 0, 1), np.uint8)
        yield rng.uniform(0, 255, (height, width, 3)).astype(dtype), mask


def write(folder, dtype=np.uint8, number=7, progress=lambda done, total: None):
    lease = folder.acquire(KEY)
    return lease, write_entry(folder, lease, make_pairs(number, dtype), number, "pictures", progress)


def check(lease, number=7, progress=lambda done, total: None):
    with ThreadPoolExecutor(2) as threads:
        return checked_index(lease.path, number, threads, progress)


@pytest.fixture(autouse=True)
def as_in_another_process(monkeypatch):
    monkeypatch.setattr(cache_entry, "_checked", set())


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "cache")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_reads_what_was_written(folder, dtype):
    lease, index = write(folder, dtype)
    assert lease.complete
    reader = EntryReader(lease, index, dtype)
    for place, (image, mask) in enumerate(make_pairs(dtype=dtype)):
        found = reader.read(place)
        assert found[0].dtype == dtype
        np.testing.assert_array_equal(found[0], image)
        np.testing.assert_array_equal(found[1], mask)
        assert found[0].flags.writeable
        assert index[place, 5] == zlib.crc32(image.tobytes() + mask.tobytes())


def test_progress_counts_images_when_written_and_when_checked_once(folder, monkeypatch):
    seen = []
    lease, index = write(folder, progress=lambda done, total: seen.append((done, total)))
    expected = [(done, 7) for done in range(1, 8)]
    assert seen == expected
    check(lease, progress=lambda done, total: seen.append((done, total)))
    assert seen == expected, "the process that wrote an entry knows it"
    monkeypatch.setattr(cache_entry, "_checked", set())
    for _ in range(2):
        np.testing.assert_array_equal(check(lease, progress=lambda done, total: seen.append((done, total))), index)
    assert seen == 2 * expected


@pytest.mark.parametrize("name", ["pixels.bin", "index.npy", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "missing"])
def test_damage_is_found(folder, monkeypatch, name, harm):
    lease, _ = write(folder)
    monkeypatch.setattr(cache_entry, "_checked", set())
    path = lease.path / name
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    else:
        data[0 if name == "manifest.json" else len(data) // 2] ^= 0x08
        path.write_bytes({"flip": bytes(data), "cut": path.read_bytes()[:-3], "grow": path.read_bytes() + b"xx"}[harm])
    assert check(lease) is None


def test_entry_of_another_number_of_images_is_refused(folder):
    lease, _ = write(folder)
    assert check(lease, number=6) is None


def test_what_outgrows_the_bound_is_told_by_the_first_images(tmp_path):
    folder, written = CacheFolder(tmp_path, max_gib=2**-10), []
    lease = folder.acquire(KEY)
    pair = np.zeros((4, 4, 3), np.uint8), np.zeros((0, 0, 1), np.uint8)
    with pytest.raises(NoRoom, match=r"need 4\.8 MiB, but the cache is bounded to 1\.0 MiB"):
        write_entry(folder, lease, [pair] * 100_000, 100_000, "pictures", lambda done, total: written.append(done))
    assert len(written) < 40
    assert not lease.complete


WRITE = """
import sys, time
import numpy as np
from keras_skin.data.images.cache_entry import write_entry
from keras_skin.data.images.cache_folder import CacheFolder
folder = CacheFolder(sys.argv[1])
lease = folder.acquire("a" * 64)
def pairs():
    for place in range(5):
        yield np.full((4, 4, 3), place, np.uint8), np.zeros((0, 0, 1), np.uint8)
def progress(done, total):
    if done == 3:
        print("third", flush=True)
        sys.stdin.readline()
write_entry(folder, lease, pairs(), 5, "pictures", progress)
print("done", flush=True)
sys.stdin.readline()
"""


def start_writing(folder):
    command = [sys.executable, "-c", WRITE, str(folder.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline().strip() == "third"
    return process


def test_killed_writer_leaves_nothing_that_could_be_used(folder):
    process = start_writing(folder)
    (entry,) = folder.entries()
    assert entry.in_use
    assert not entry.complete
    assert (entry.title, entry.images) == ("pictures", 5)
    assert folder.acquire(KEY) is None
    assert folder.clear() == ([], [entry])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (entry,) = folder.entries()
    assert not entry.in_use
    assert not entry.complete
    lease, index = write(folder)
    np.testing.assert_array_equal(check(lease), index)


def test_entry_that_another_process_uses_is_kept_until_it_ends(folder):
    process = start_writing(folder)
    print(file=process.stdin, flush=True)
    assert process.stdout.readline().strip() == "done"
    lease = folder.acquire(KEY)
    assert lease.complete
    index = check(lease, 5)
    np.testing.assert_array_equal(EntryReader(lease, index, np.uint8).read(4)[0], np.full((4, 4, 3), 4))
    lease.close()
    removed, kept = folder.clear()
    assert not removed
    assert len(kept) == 1
    process.communicate("\n")
    assert process.returncode == 0
    assert len(folder.clear()[0]) == 1


def test_two_at_once_make_one_entry(folder):
    """Locks belong to open files: two threads with their own are to each other as two processes."""
    made = []

    def run():
        while (lease := folder.acquire(KEY)) is None:
            pass
        if not lease.complete:
            write_entry(folder, lease, make_pairs(), 7, "pictures", lambda done, total: None)
            made.append(lease)
        assert check(lease) is not None

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1

"""Pictures are known again after re-encoding and resizing, others are not, and near hashes are found fast and all."""

import time
from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_skin.data.splits import fingerprints as module
from keras_skin.data.splits.fingerprints import (
    DISTANCE,
    MIN_DETAIL,
    fingerprint,
    fingerprints,
    near_duplicates,
    perceptual_hash,
    same_pictures,
)
from keras_skin.registry import UserError

RNG = np.random.default_rng(0)


def landscape(seed, size=(300, 400)):
    """A picture of soft random blobs, RGB."""
    cells = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC)


def save(path, pixels, *parameters):
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), list(parameters))
    return path


def slow_hash(grey):
    """By the definition of the transform; `grey` is a multiple of 32 both ways."""
    height, width = grey.shape
    small = grey.astype(float).reshape(32, height // 32, 32, width // 32).mean(axis=(1, 3)).round()
    values = []
    for u in range(1, 9):
        for v in range(1, 9):
            total = 0.0
            for y in range(32):
                for x in range(32):
                    total += small[y, x] * np.cos((2 * y + 1) * u * np.pi / 64) * np.cos((2 * x + 1) * v * np.pi / 64)
            values.append(total)
    median = np.median(values)
    return sum(1 << (63 - place) for place, value in enumerate(values) if value > median)


def brute_force(hashes, distance):
    return [
        (i, j, (int(a) ^ int(b)).bit_count())
        for (i, a), (j, b) in combinations(enumerate(hashes), 2)
        if (int(a) ^ int(b)).bit_count() <= distance
    ]


def test_the_hash_is_that_of_a_slow_loop():
    grey = cv2.cvtColor(landscape(1, (96, 160)), cv2.COLOR_RGB2GRAY)
    assert perceptual_hash(grey) == slow_hash(grey)


def test_colour_is_read_as_rgb():
    picture = landscape(2)
    assert perceptual_hash(picture) == perceptual_hash(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    assert perceptual_hash(picture) != perceptual_hash(picture[..., ::-1])


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)])
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError, match="uint8, got"):
        perceptual_hash(wrong)


def test_copies_are_known_again_and_other_pictures_are_not(tmp_path):
    paths = []
    for seed in range(6):
        picture = landscape(seed, (600, 800))
        paths += [
            save(tmp_path / f"{seed}.png", picture),
            save(tmp_path / f"{seed}_60.jpg", picture, cv2.IMWRITE_JPEG_QUALITY, 60),
            save(tmp_path / f"{seed}_half.bmp", cv2.resize(picture, (400, 300), interpolation=cv2.INTER_AREA)),
            save(tmp_path / f"{seed}_square.jpg", cv2.resize(picture, (224, 224)), cv2.IMWRITE_JPEG_QUALITY, 30),
        ]
    table = fingerprints(paths)
    assert table["sha256"].nunique() == len(paths)
    pairs = same_pictures(table)
    assert [(i, j) for i, j, _ in pairs] == [(i, j) for i, j in combinations(range(24), 2) if i // 4 == j // 4]
    assert pairs[:, 2].max() <= DISTANCE


def test_blank_and_broken_files_are_no_copies_of_each_other(tmp_path):
    flat = np.full((64, 64, 3), 200, np.uint8)
    noise = flat - RNG.integers(0, 3, flat.shape, np.uint8)
    paths = [save(tmp_path / name, pixels) for name, pixels in (("a.png", flat), ("b.jpg", noise), ("c.png", flat * 0))]
    (tmp_path / "d.jpg").write_text("no picture")
    (tmp_path / "e.jpg").write_text("no picture")
    table = fingerprints([*paths, tmp_path / "d.jpg", tmp_path / "e.jpg"])
    assert (table["detail"] < MIN_DETAIL).all()
    assert len(same_pictures(table)) == 0
    assert table["sha256"][3] == table["sha256"][4]
    assert not fingerprint(tmp_path / "d.jpg").has_picture


def test_near_hashes_of_other_pictures_are_told_apart(tmp_path):
    table = fingerprints([save(tmp_path / f"{seed}.png", landscape(seed)) for seed in (1, 2)])
    table["phash"] = table["phash"].iloc[0]
    assert len(near_duplicates(table["phash"].to_numpy())) == 1
    assert len(same_pictures(table)) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_count(tmp_path, orientation):
    upright = Image.fromarray(landscape(3, (512, 768)))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpose method that the tag undoes
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    stored.save(tmp_path / "turned.png", exif=exif)
    expected = perceptual_hash(np.asarray(upright))
    assert (fingerprint(tmp_path / "turned.jpg").phash ^ expected).bit_count() <= 2
    # only JPEG is turned, as on the way to the model
    assert fingerprint(tmp_path / "turned.png").phash == perceptual_hash(np.asarray(stored))


@pytest.mark.parametrize("size", [(256, 300), (600, 450), (1024, 900), (2100, 2500)])
def test_reduced_decoding_gives_the_hash_of_the_full_one(tmp_path, size):
    path = save(tmp_path / "large.jpg", landscape(4, size))
    full = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert (fingerprint(path).phash ^ perceptual_hash(full)).bit_count() <= 2


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path, calls = save(tmp_path / "a.png", landscape(5)), []
    first = fingerprints([path, path], lambda *counts: calls.append(counts))
    assert calls == [(1, 2), (2, 2)]
    monkeypatch.setattr(module, "fingerprint", lambda name: pytest.fail(f"read {name} again"))
    assert fingerprints([path]).iloc[0].equals(first.iloc[0])
    monkeypatch.undo()
    save(path, landscape(6, (301, 400)))
    assert fingerprints([path])["sha256"][0] != first["sha256"][0]


def test_files_that_cannot_be_read_are_all_named(tmp_path):
    with pytest.raises(UserError, match=r"(?s)2 files cannot be read:.*gone1\.jpg: No such file.*gone2\.jpg"):
        fingerprints([tmp_path / "gone1.jpg", save(tmp_path / "a.png", landscape(7)), tmp_path / "gone2.jpg"])


def test_no_files_at_all():
    table = fingerprints([])
    assert table.columns.tolist() == ["path", "sha256", "phash", "detail", "thumbnail"]
    assert table["phash"].dtype == np.uint64
    assert same_pictures(table).shape == (0, 3)


hash64 = st.integers(0, 2**64 - 1)


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.lists(hash64, max_size=12),
    copies=st.lists(st.tuples(st.integers(0, 11), st.lists(st.integers(0, 63), max_size=9)), max_size=25),
    distance=st.integers(0, 8),
)
def test_all_near_pairs_and_no_others(seeds, copies, distance):
    hashes = list(seeds)
    for seed, flips in copies:
        if seed < len(seeds):
            hashes.append(seeds[seed] ^ sum(1 << bit for bit in set(flips)))
    pairs = near_duplicates(np.array(hashes, np.uint64), distance)
    assert pairs.dtype == np.int64
    assert [tuple(row) for row in pairs.tolist()] == brute_force(hashes, distance)


@pytest.mark.parametrize("count", [300, 20_000, 100_000])
def test_planted_pairs_are_found_among_many_fast(count):
    hashes = np.random.default_rng(1).integers(0, 2**64, count, dtype=np.uint64)
    for place in range(100):
        flips = RNG.choice(64, place % (DISTANCE + 1), replace=False)
        hashes[count - 1 - place] = hashes[place] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    start = time.process_time()
    pairs = near_duplicates(hashes)
    assert time.process_time() - start < 8  # comparing all of 100,000 with all takes a minute
    assert pairs.tolist() == [[place, count - 1 - place, place % (DISTANCE + 1)] for place in range(100)]


def test_ten_times_as_many_hashes_take_far_less_than_a_hundred_times(monkeypatch):
    """Counts the comparisons, which do not depend on the machine."""
    compared = []
    real = np.bitwise_count
    monkeypatch.setattr(module.np, "bitwise_count", lambda bits: compared.append(bits.size) or real(bits))
    totals = []
    for count in (5_000, 50_000):
        compared.clear()
        near_duplicates(np.random.default_rng(2).integers(0, 2**64, count, dtype=np.uint64))
        totals.append(sum(compared))
    assert totals[0] < 5_000**2 / 100
    assert totals[1] < 30 * totals[0]


def test_many_hashes_that_share_their_blocks_are_compared_right():
    low = np.random.default_rng(3).integers(0, 2**20, 600, dtype=np.uint64)
    assert near_duplicates(low, 3).tolist() == [list(row) for row in brute_force(low, 3)]


def test_thousands_of_copies_of_one_picture_are_an_error():
    with pytest.raises(UserError, match="20 million pairs of near-equal pictures among 8000"):
        near_duplicates(np.zeros(8_000, np.uint64))


def test_the_distance_is_bounded():
    with pytest.raises(ValueError, match="distance is 17"):
        near_duplicates(np.zeros(2, np.uint64), 17)


@pytest.mark.slow
def test_real_copies_are_told_from_other_lesions(real_data, tmp_path):
    """848 different pictures, 80 of them twice; every 20th re-encoded at half its size: all are found, nothing else."""
    paths = sorted(path for name in ("isic2016", "isic2017") for path in (real_data / name).glob("*_Data/*.jpg"))
    copies = []
    for path in paths[::20]:
        pixels = cv2.imread(str(path))
        small = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        copies.append(tmp_path / path.name)
        cv2.imwrite(str(copies[-1]), small, [cv2.IMWRITE_JPEG_QUALITY, 60])
    names = [path.name for path in [*paths, *copies]]
    pairs = same_pictures(fingerprints([*paths, *copies]))
    assert {(i, j) for i, j, _ in pairs} == {(i, j) for i, j in combinations(range(len(names)), 2) if names[i] == names[j]}
    assert pairs[:, 2].max() <= DISTANCE

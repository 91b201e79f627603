"""Fingerprints of image files: the SHA-256 of the bytes, and a 64-bit hash of the picture itself.

The hash recognises a picture that was resized, re-encoded or stored in another format, but not one that was cropped, rotated or
mirrored. A hash alone is no proof: of 848 different ISIC images four pairs are as near as re-encoded copies are (all of them
different lesions of a similar shape in a similar place), and their number grows with the square of the number of images. So
`same_pictures` also compares small grey copies.

Measured on these 848 images (long side at most 1024), hash and 16 x 16 grey copy of the original against those of a copy:

    copy                                              bits that differ (mean, most)   least correlation   recognised
    JPEG quality 60                                   0.3, 4                          0.999               all
    half the size, quality 60                         0.5, 4                          0.998               all
    600 x 450 (other proportions), quality 75         0.5, 4                          0.999               all
    224 x 224 (other proportions), quality 30         1.2, 6                          0.975               all
    37 % of the size by nearest neighbour             1.2, 6                          0.979               all
    2 % cropped on each side                          4.9, 16                         0.815               77 %

No different image was mistaken for a copy. Of 359,128 pairs of different images 1 is at most 4 bits apart, 4 are 6, 19 are 8 and
52 are 10 (mean: 31.4); the greatest correlation is 0.904 up to 6 bits, and 0.960 up to 12.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from keras_skin.data.images.digests import file_state, remember_digest
from keras_skin.data.images.files import BadImage, ImageHeader, read_header
from keras_skin.registry import UserError, shorten

DISTANCE = 6
"""Bits in which the hashes of one picture may differ: the largest difference of hard re-encodings."""

MIN_CORRELATION = 0.97
"""Least correlation of the small grey copies of one picture: below all hard re-encodings, above all different images."""

MIN_DETAIL = 2.0
"""Pictures whose grey levels have a smaller standard deviation have no hash: a blank one's bits are noise (ISIC: 7 at least)."""

MAX_PAIRS = 20_000_000
_BITS = 64
_REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_LEAST_SIDE = 256  # eight pixels per cell of 32 x 32; decoded at 1/8 of 1024 x 768, up to 8 bits differ from the full decoding


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a file.

    Attributes:
        sha256: of its bytes, in hexadecimal digits.
        phash: `perceptual_hash` of the picture, upright; 0 where `has_picture` is false.
        detail: standard deviation of the grey levels of `thumbnail`; 0 for a file that does not decode.
        thumbnail: 16 x 16 grey levels, row by row; empty for a file that does not decode.
    """

    sha256: str
    phash: int = 0
    detail: float = 0.0
    thumbnail: bytes = b""

    @property
    def has_picture(self) -> bool:
        """Whether the picture has enough detail to be recognised."""
        return self.detail >= MIN_DETAIL


def perceptual_hash(pixels: np.ndarray) -> int:
    """64-bit hash of a picture from its low spatial frequencies.

    The picture is converted to grey and reduced to 32 x 32 (area means). Of its two-dimensional discrete cosine transform (type
    II, orthonormal), the frequencies 1 to 8 of each axis are compared with their median, row by row, the first in the highest
    bit. Frequency 0 is left out: the mean is the exposure and always above the median, and variation along one axis only is
    mostly the vignette, which all images of a dermatoscope share (with frequencies 0 to 7, 17 pairs of different ISIC images are
    within 6 bits, not 4).

    Args:
        pixels: (H, W, 3) RGB or (H, W) grey, uint8. The order of the channels matters: skin is red.

    Returns:
        0 to 2^64 - 1. Meaningless for a blank picture: see `Fingerprint.has_picture`.

    Source: C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1 (pHash). As in
    pHash, without frequency 0; its 7 x 7 mean filter is left out, because area means do not alias.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or not pixels.size:
        raise ValueError(f"expected (H, W, 3) or (H, W) uint8, got {pixels.shape} {pixels.dtype}")
    return _hash(_small(pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)))


def fingerprint(path: str | os.PathLike[str]) -> Fingerprint:
    """Fingerprint of a JPEG, PNG or BMP file; for a file that does not decode, of its bytes alone.

    A JPEG is turned as its EXIF orientation says, and decoded at a reduced size that leaves 256 pixels at least both ways: its
    hash is at most four bits off the full decoding's (848 ISIC images; 0.3 on average).

    Raises:
        OSError: if the file cannot be read.
    """
    data = Path(path).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        header = read_header(data)
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), _mode(header))
    except (BadImage, cv2.error):
        grey = None
    if grey is None:
        return Fingerprint(digest)
    small = _small(grey)
    thumbnail = np.rint(cv2.resize(small, (16, 16), interpolation=cv2.INTER_AREA)).astype(np.uint8)
    detail = float(thumbnail.std())
    return Fingerprint(digest, _hash(small) if detail >= MIN_DETAIL else 0, detail, thumbnail.tobytes())


# by path, size and time of the last change, since commands ask for the same files more than once
_cache: dict[tuple[str, int, int], Fingerprint] = {}


def fingerprints(paths: Iterable[str | os.PathLike[str]], progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """Fingerprints of many files, computed in a thread pool. Unchanged files are read once per process.

    Args:
        paths: image files.
        progress: called with (files done, files in all).

    Returns:
        One row per path, in order: `path` (text), `sha256` (text), `phash` (uint64), `detail` (float), `thumbnail` (bytes).

    Raises:
        UserError: if files cannot be read; with their names.
    """
    names = [os.fspath(path) for path in paths]
    results: list[Fingerprint] = []
    problems: list[str] = []

    def one(name: str) -> Fingerprint | str:
        try:
            state = file_state(name)
            if state not in _cache:
                _cache[state] = fingerprint(name)
                remember_digest(state, _cache[state].sha256)
            return _cache[state]
        except OSError as error:
            return f"  {name}: {error.strerror or error}"

    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for done, result in enumerate(pool.map(one, names), 1):
            if isinstance(result, str):
                problems.append(result)
            else:
                results.append(result)
            if progress is not None:
                progress(done, len(names))
    finally:  # Ctrl-C must not wait for the files that are still in the queue
        pool.shutdown(cancel_futures=True)
    if problems:
        raise UserError("\n".join([f"{len(problems)} files cannot be read:", *shorten(problems)]))
    table = pd.DataFrame({"path": names, "sha256": [item.sha256 for item in results]}, dtype=object)
    table["phash"] = np.array([item.phash for item in results], np.uint64)
    table["detail"] = np.array([item.detail for item in results], np.float64)
    table["thumbnail"] = pd.Series([item.thumbnail for item in results], dtype=object)
    return table


def same_pictures(prints: pd.DataFrame) -> np.ndarray:
    """Finds pairs of files that show the same picture: near hashes, and small grey copies that correlate.

    Args:
        prints: table as from `fingerprints`.

    Returns:
        (P, 3) int64, sorted: rows (position, later position, Hamming distance). Blank pictures and files that do not decode are
        in no pair.
    """
    usable = np.flatnonzero(prints["detail"].to_numpy() >= MIN_DETAIL)
    pairs = near_duplicates(prints["phash"].to_numpy()[usable])
    if not len(pairs):
        return pairs
    copies = np.frombuffer(b"".join(prints["thumbnail"].iloc[usable]), np.uint8).reshape(len(usable), -1).astype(np.float32)
    copies -= copies.mean(axis=1, keepdims=True)
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    step = 100_000  # bounds the memory of the gathered copies
    agree = [
        np.einsum("pc,pc->p", copies[pairs[start : start + step, 0]], copies[pairs[start : start + step, 1]]) >= MIN_CORRELATION
        for start in range(0, len(pairs), step)
    ]
    pairs = pairs[np.concatenate(agree)]
    return np.column_stack([usable[pairs[:, 0]], usable[pairs[:, 1]], pairs[:, 2]])


def near_duplicates(hashes: np.ndarray, distance: int = DISTANCE) -> np.ndarray:
    """Finds all pairs of hashes that differ in at most `distance` bits, without comparing all with all.

    The 64 bits are divided into B blocks. Two hashes that differ in at most d bits agree in at least B - d blocks: for every
    choice of B - d blocks the hashes are sorted by those bits, and only neighbours that agree in all of them are compared. B
    grows with the number N of hashes so that the chosen bits are more than log2 N: runs of equal keys then are short, and the
    time is O(C(B, d) N log N). Many hashes that agree in the chosen bits cost time, not memory. On one core, random hashes:
    10,000 in 0.05 s, 100,000 in 0.6 s, 300,000 in 4.5 s.

    Args:
        hashes: (N,) uint64.
        distance: 0 to 16.

    Returns:
        (P, 3) int64, sorted: rows (i, j, Hamming distance), i < j.

    Raises:
        UserError: if there are more than 20 million pairs.

    Source: G. S. Manku, A. Jain, A. Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007, section 3.
    """
    if not 0 <= distance <= 16:
        raise ValueError(f"distance is {distance}, expected 0 to 16")
    unique, inverse, counts = np.unique(np.asarray(hashes, np.uint64), return_inverse=True, return_counts=True)
    near = [np.column_stack([np.arange(len(unique))] * 2 + [np.zeros(len(unique), np.int64)])[counts > 1]]
    if distance:
        blocks = _blocks(len(unique), distance)
        for chosen in combinations(range(len(blocks)), len(blocks) - distance):
            near.append(_near_in(unique, blocks, chosen, distance))
    pairs = _of_all(np.concatenate(near), np.argsort(inverse, kind="stable"), counts)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _near_in(hashes: np.ndarray, blocks: Sequence[np.uint64], chosen: Sequence[int], distance: int) -> np.ndarray:
    """Near pairs whose first equal blocks are the chosen ones, so that each pair is found for one choice only."""
    key = np.bitwise_or.reduce([blocks[block] for block in chosen])
    different = [blocks[block] for block in range(chosen[-1]) if block not in chosen]
    keys = hashes & key
    order = np.argsort(keys)
    keys, sorted_hashes = keys[order], hashes[order]
    first, step, pairs = np.arange(len(hashes)), 0, [np.empty((0, 3), np.int64)]
    while len(first):  # compares each hash with its next neighbour, its next but one, ... while any has the same key
        step += 1
        first = first[first + step < len(keys)]
        first = first[keys[first] == keys[first + step]]
        bits = sorted_hashes[first] ^ sorted_hashes[first + step]
        near = np.flatnonzero(np.bitwise_count(bits) <= distance)
        for block in different:
            near = near[bits[near] & block != 0]
        if len(near):
            ends = np.sort(np.column_stack([order[first[near]], order[first[near] + step]]), axis=1)
            pairs.append(np.column_stack([ends, np.bitwise_count(bits[near]).astype(np.int64)]))
    return np.concatenate(pairs)


@cache
def _blocks(count: int, distance: int) -> tuple[np.uint64, ...]:
    """Bit masks of the blocks; each takes every B-th bit, since neighbouring frequencies are correlated."""
    blocks = distance + 1
    wanted = np.log2(max(count, 2)) + 3
    while (blocks - distance) * (_BITS // blocks) < wanted and comb(blocks + 1, distance) <= 3003:
        blocks += 1
    return tuple(np.uint64(sum(1 << bit for bit in range(start, _BITS, blocks))) for start in range(blocks))


def _of_all(pairs: np.ndarray, order: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Expands pairs of distinct hashes to pairs of all; `order` lists the members of each hash one after another."""
    starts = np.cumsum(counts) - counts
    left, right = pairs[:, 0], pairs[:, 1]
    each = counts[left] * counts[right]
    if each.sum() > MAX_PAIRS:
        raise UserError(
            f"There are more than {MAX_PAIRS // 1_000_000} million pairs of near-equal pictures among {len(order)}: "
            "one picture occurs thousands of times. Remove the copies."
        )
    row = np.repeat(np.arange(len(pairs)), each)
    place = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    width = counts[right][row]
    ends = np.column_stack([order[starts[left][row] + place // width], order[starts[right][row] + place % width]])
    whole = np.column_stack([np.sort(ends, axis=1), pairs[row, 2]])
    return whole[(left != right)[row] | (ends[:, 0] < ends[:, 1])]


def _small(grey: np.ndarray) -> np.ndarray:
    return cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)


def _hash(small: np.ndarray) -> int:
    low = cv2.dct(small)[1:9, 1:9].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def _mode(header: ImageHeader) -> int:
    """OpenCV's mode to decode a file in grey, upright as `images.decode_image` does (which turns JPEG only)."""
    if header.format != "JPEG":
        return cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    side = min(header.height, header.width)
    return _REDUCED[max(ratio for ratio in _REDUCED if ratio == 1 or side >= ratio * _LEAST_SIDE)]

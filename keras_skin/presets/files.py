"""The files of a preset: those of a small finished run with weights in half precision, and `preset.json` with their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_skin.registry import UserError
from keras_skin.run_folder import BEST_WEIGHTS, METADATA, PRESET, SEGMENTER

FORMAT = 1
"""Number of the format that `preset.json` describes."""
CARD = "README.md"
WEIGHTS = f"checkpoints/{BEST_WEIGHTS}"
RUN_FILES = ("experiment.json", "run.json", "metrics.json", "splits.csv", WEIGHTS)
"""The files of a run that every preset holds, and that a chained preset holds of its segmenter, too."""
SEGMENTER_FILES = tuple(f"{SEGMENTER}/{name}" for name in (*RUN_FILES, "record.json"))
FILES = frozenset((*RUN_FILES, CARD, METADATA, *SEGMENTER_FILES))
"""Every file that a preset may hold beside `preset.json`."""

_MOST_GROUPS = 100_000
_NUMBERS = "fiu"  # kinds of NumPy dtypes: float, int, unsigned


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes `preset.json`: the format, `facts`, and size and SHA-256 of every file in the folder."""
    files = {name: _describe(folder / name) for name in sorted(FILES) if (folder / name).is_file()}
    content = {"format": FORMAT, **facts, "files": files}
    (folder / PRESET).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_preset(folder: Path) -> dict[str, Any]:
    """Compares the files of a preset with `preset.json`.

    Returns:
        The content of `preset.json`.

    Raises:
        UserError: naming the file, if one is missing, has changed, or does not belong to a preset; or if the preset has a newer
            format.
    """
    manifest = _read_manifest(folder)
    files = manifest["files"]
    is_chained = not set(files).isdisjoint(SEGMENTER_FILES)
    expected = {*RUN_FILES, CARD, *(SEGMENTER_FILES if is_chained else ())}
    missing = sorted(name for name in expected | set(files) & FILES if name not in files or not (folder / name).is_file())
    if missing:
        raise UserError(f"The preset in '{folder}' is not complete: {', '.join(missing)} is missing. Get it again.")
    foreign = sorted(set(files) - FILES)
    if foreign:
        raise UserError(f"{folder / PRESET} names {', '.join(foreign)}; a preset has no such files.")
    unlisted = sorted(name for name in FILES - set(files) if (folder / name).is_file())
    if unlisted:
        raise UserError(f"The preset in '{folder}' holds {', '.join(unlisted)}, which its {PRESET} does not name. Get it again.")
    for name, description in files.items():
        if _describe(folder / name) != description:
            raise UserError(
                f"{folder / name} is not the file that the preset was made with: its size or SHA-256 differs from {PRESET}. "
                "Get the preset again."
            )
    return manifest


def halve_weights(source: Path, target: Path) -> None:
    """Copies a `.weights.h5` file with its kernels in float16, which Keras reads into float32 variables.

    Vectors (biases, statistics of a normalization) and kernels with numbers that float16 cannot hold stay as they are.
    """
    import h5py
    import numpy as np

    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                copied = new.require_group(name)
            else:
                values = item[()]
                is_kernel = values.dtype == np.float32 and values.ndim > 1
                fits = is_kernel and bool(np.all(np.abs(values) <= np.finfo(np.float16).max))
                copied = new.create_dataset(name, data=values.astype(np.float16) if fits else values)
            copied.attrs.update(item.attrs)

        new.attrs.update(old.attrs)
        old.visititems(copy)


def check_weights(path: Path) -> None:
    """Checks a weights file that was made elsewhere, without reading its numbers.

    Raises:
        UserError: if it is no HDF5 file, refers to other files, or would need more memory than its own size.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            problem = _find_problem(file, path.stat().st_size)
    except OSError as error:
        raise UserError(f"{path} is not a weights file: {error}.") from None
    if problem:
        raise UserError(f"{path} is not a weights file of a preset: {problem}.")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / PRESET
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from None
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise UserError(f"{path} has format {number}, this version of keras_skin reads up to {FORMAT}. Install a newer version.")
    if number != FORMAT or not isinstance(manifest.get("files"), dict):
        raise UserError(f"{path}: expected an object with 'format': {FORMAT} and 'files'; is this the file of a preset?")
    return manifest


def _find_problem(file: Any, size: int) -> str:
    """Why the numbers of an HDF5 file must not be read, "" if they may."""
    import h5py

    groups, total, count = [file], 0, 0
    while groups:
        group = groups.pop()
        count += 1
        if count > _MOST_GROUPS:  # hard links can form circles
            return f"it has more than {_MOST_GROUPS:,} groups"
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                return f"{where} is a link"
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif item.external or item.is_virtual or item.dtype.kind not in _NUMBERS:
                return f"{where} is not a plain array of numbers"
            else:
                total += item.nbytes
                if total > size:
                    return f"its arrays need more than its {size:,} bytes"
    return ""

"""Finds a preset: by the name of one that the package ships, as a folder, a `.zip` file or an `https://` address."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import logging
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from keras_skin.data.images.cache import PRESETS, cache_path, describe_bytes
from keras_skin.presets.files import FILES, WEIGHTS, check_preset, check_weights, sha256_of
from keras_skin.registry import UserError, atomic_path, did_you_mean
from keras_skin.run_folder import PRESET, SEGMENTER

log = logging.getLogger("keras_skin")

MOST_BYTES = 2**30
"""Largest size of a preset, packed or unpacked."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""The names that a preset may have."""
FORMS = "the name of a preset, a folder, a .zip file, or https://...zip#sha256=..."
MODEL_HELP = (
    "a preset (its name, a folder, a .zip file, or https://...zip#sha256=...), the folder of a finished run, or its SavedModel"
)
RUN_HELP = "a preset (its name, a folder, a .zip file, or https://...zip#sha256=...), or the folder of a finished run"

_SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")
_SECONDS = 30.0  # without any answer
_BLOCK = 2**20


def list_presets() -> list[str]:
    """Names of the presets that come with the package, sorted."""
    folder = _shipped_folder()
    return sorted(item.name for item in folder.iterdir() if (item / PRESET).is_file()) if folder.is_dir() else []


def locate(source: str) -> Path:
    """The folder of what a user names where a run is expected.

    Args:
        source: the name of a preset of the package; the folder of a preset, a run or an export; a preset as a `.zip` file; or its
            address, `https://HOST/NAME.zip#sha256=CHECKSUM`. A name without a slash that is a preset means the preset, even if
            there is a folder of that name; write `./NAME` for the folder.

    Returns:
        The folder. If it holds a preset, its files have been compared with its `preset.json`. An address is downloaded once, and
        unpacked into the user's cache, as a `.zip` is.

    Raises:
        UserError: if there is no such preset, or it cannot be downloaded, unpacked or trusted.
    """
    if "://" in source:
        return _unpacked(*_downloaded(source))
    path = Path(source).expanduser()
    if source in list_presets():
        if path.exists():
            log.warning("'%s' is taken as the preset. To take the folder of the same name, write ./%s", source, source)
        path = _shipped_folder() / source
    elif path.suffix.lower() == ".zip" and path.is_file():
        return _unpacked(path, sha256_of(path))
    elif not path.exists() and NAME.fullmatch(source):
        names = list_presets()
        raise UserError(
            f"There is neither a folder nor a preset '{source}'.{did_you_mean(source, names)} "
            f"Presets: {', '.join(names) or 'none in this installation'}. Expected {FORMS}."
        )
    if (path / PRESET).is_file():
        check_preset(path)
    return path


def locate_preset(source: str) -> Path:
    """The folder of a preset, see `locate`.

    Raises:
        UserError: also if there is something else.
    """
    path = locate(source)
    if not (path / PRESET).is_file():
        raise UserError(f"'{source}' is no preset: it has no {PRESET}. Expected {FORMS}.")
    return path


def _shipped_folder() -> Path:
    return Path(str(importlib.resources.files("keras_skin").joinpath("presets")))


def _downloaded(address: str) -> tuple[Path, str]:
    """The file of an address in the cache, and its SHA-256."""
    parts = urlsplit(address)
    checksum = _SHA256.fullmatch(parts.fragment)
    if parts.scheme != "https" or not parts.hostname:
        raise UserError(f"{address}: only addresses that start with https:// are downloaded.")
    if checksum is None:
        raise UserError(
            f"{address}: the checksum is missing or invalid. Expected https://...zip#sha256= and 64 hexadecimal digits, which "
            "the preset's publisher states; `sha256sum FILE.zip` prints them."
        )
    digest = checksum[1].lower()
    target = cache_path() / PRESETS / "downloads" / f"{digest}.zip"
    if not target.is_file() or sha256_of(target) != digest:
        log.warning("Downloading %s", parts._replace(fragment="").geturl())
        try:
            with atomic_path(target) as temporary:
                actual = _fetch(parts._replace(fragment="").geturl(), temporary)
                if actual != digest:
                    raise UserError(
                        f"{address}: the file has SHA-256 {actual}. It is not the file of this checksum and was not opened. "
                        "Compare the address and the checksum with those of the publisher."
                    )
        except UserError:
            raise
        except (OSError, ValueError, HTTPException) as error:  # a URLError is an OSError
            raise UserError(f"{address} cannot be downloaded: {getattr(error, 'reason', None) or error}.") from None
    return target, digest


def _fetch(address: str, target: Path) -> str:
    """Writes the file of an address, and returns its SHA-256."""
    from urllib.request import urlopen

    digest, size = hashlib.sha256(), 0
    with urlopen(address, timeout=_SECONDS) as answer, target.open("wb") as file:
        if not answer.geturl().startswith("https://"):
            raise UserError(f"{address} leads to {answer.geturl()}, which is not encrypted. Nothing was downloaded.")
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > MOST_BYTES:
                raise UserError(f"{address}: the file is larger than {describe_bytes(MOST_BYTES)}, too large for a preset.")
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _unpacked(archive: Path, digest: str) -> Path:
    """The folder of a `.zip` in the cache, unpacked there if it is not yet."""
    try:
        with zipfile.ZipFile(archive) as opened:
            name, members = _check_members(archive, opened.infolist())
            folder = cache_path() / PRESETS / "files" / digest / name
            if folder.is_dir():
                with contextlib.suppress(UserError):  # changed or incomplete: unpacked again
                    check_preset(folder)
                    return folder
                shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                unfinished = Path(temporary) / name
                for member, file in members.items():
                    (unfinished / file).parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as packed, (unfinished / file).open("wb") as target:
                        shutil.copyfileobj(packed, target, _BLOCK)
                check_preset(unfinished)
                for weights in (WEIGHTS, f"{SEGMENTER}/{WEIGHTS}"):
                    if (unfinished / weights).is_file():
                        check_weights(unfinished / weights)
                with contextlib.suppress(OSError):  # another process was faster
                    unfinished.rename(folder)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}.") from None
    except OSError as error:
        raise UserError(
            f"{archive} cannot be unpacked into the cache {cache_path()}: {error}. Name another folder with KERAS_SKIN_CACHE."
        ) from None
    check_preset(folder)
    return folder


def _check_members(archive: Path, members: Iterable[zipfile.ZipInfo]) -> tuple[str, dict[zipfile.ZipInfo, str]]:
    """Checks the names and sizes in a `.zip` before anything is unpacked.

    Returns:
        The name of the preset, and for each member its file in the preset.
    """
    files: dict[zipfile.ZipInfo, str] = {}
    roots: set[str] = set()
    for member in members:
        if member.is_dir():
            continue
        parts = PurePosixPath(member.filename).parts
        file = "/".join(parts[1:])
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if len(parts) < 2 or not NAME.fullmatch(parts[0]) or file not in FILES | {PRESET} or is_link or file in files.values():
            raise UserError(
                f"{archive} holds '{member.filename}', which does not belong to a preset. Nothing was unpacked. Expected one "
                f"folder NAME/ with {PRESET} and the files that it names."
            )
        if member.flag_bits & 0x1:
            raise UserError(f"{archive} is encrypted. Unpack it yourself, and name the folder.")
        files[member] = file
        roots.add(parts[0])
    size = sum(member.file_size for member in files)
    if size > MOST_BYTES:
        raise UserError(f"{archive} unpacks to {describe_bytes(size)}, more than the {describe_bytes(MOST_BYTES)} of a preset.")
    if len(roots) != 1 or PRESET not in files.values():
        listed = ", ".join(f"{root}/" for root in sorted(roots)) or "nothing"
        raise UserError(f"{archive} holds no preset: expected one folder NAME/ with {PRESET}, found {listed}.")
    return roots.pop(), files

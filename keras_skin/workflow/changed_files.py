"""Notices image files that vanish or change while a run uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd

from keras_skin.data.images.digests import file_state, is_same_content
from keras_skin.registry import UserError, shorten
from keras_skin.training.errors import TrainingInterrupted

_FILE_COLUMNS = ("image", "mask", "lesion")


class FilesChanged(UserError):
    """Image files of a run vanished or changed. The folder of the run is kept, so that it can be resumed."""


@contextmanager
def unchanged_files(table: pd.DataFrame) -> Iterator[None]:
    """Raises an error of the block as a sentence, if image files have vanished or changed meanwhile.

    Files that changed are an error of a block that ends well, too: nobody knows which content it used. Files that vanished
    are not: the block did not need them any more.

    Args:
        table: records; the files of the columns `image`, `mask` and `lesion` are watched.

    Raises:
        FilesChanged: naming the files.
    """
    paths = dict.fromkeys(path for name in _FILE_COLUMNS if name in table for path in table[name] if path)
    states = {path: _state(path) for path in paths}
    try:
        yield
    except (UserError, TrainingInterrupted):
        raise
    except Exception as error:
        vanished, changed = _differences(states)
        if vanished or changed:
            raise _error(vanished, changed) from error
        raise
    _, changed = _differences(states)
    if changed:
        raise _error([], changed)


def _state(path: str) -> tuple[str, int, int] | None:
    try:
        return file_state(path)
    except OSError:
        return None


def _differences(states: dict[str, tuple[str, int, int] | None]) -> tuple[list[str], list[str]]:
    """Files that cannot be read any more, and files with another content."""
    vanished, changed = [], []
    for path, before in states.items():
        now = _state(path)
        if now is None:
            vanished.append(path)
        elif now != before and (before is None or not is_same_content(before, now)):
            changed.append(path)
    return vanished, changed


def _error(vanished: list[str], changed: list[str]) -> FilesChanged:
    lines = [f"  {path}: it cannot be read any more" for path in vanished]
    lines += [f"  {path}: its content changed" for path in changed]
    count = f"{len(lines)} image file{'' if len(lines) == 1 else 's'}"
    advice = "Put the original files back and resume the run."
    return FilesChanged("\n".join([f"{count} vanished or changed while the run used them:", *shorten(lines), advice]))

"""What differs between two experiments, and whether the numbers that a paper prints for one belong to the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TEXTS = ("$schema", "extends", "title", "description", "paper", "demo", "changes")
"""Parts of an experiment that set nothing."""
SILENT = (*TEXTS, "explain", "export")
"""Parts of an experiment that change no measured number."""
SAME_NUMBERS = (
    "data.leak_guard",
    "data.on_bad_image",
    "split.protocol",
    "train.deterministic",
    "train.precision",
    "train.save_every_seconds",
    "train.seed",
)
"""Settings that leave the experiment that of the paper."""
ABSENT = "-"
"""Stands for a setting that only the other experiment has."""
_PLACES = ("folder", "optional", "without")
"""Arguments of a data set that do not change its images."""
_FOLDERS = re.compile(r'(?:~|\.{0,2})/[^"\s]*/')
_NAMED = 3
_DATE = re.compile(r"-\d{8}-\d{6}(-\d+)?$")


def flattened(values: Any, skip: tuple[str, ...] = SILENT, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields `(dotted key, value as text)` of every setting of an experiment, without the parts in `skip`."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            if path or key not in skip:
                yield from flattened(value, skip, f"{path}.{key}" if path else key)
    else:
        yield path, values if isinstance(values, str) else json.dumps(values)


def without_places(values: Any) -> Any:
    """Settings without the folders of the data sets, with the name of a segmenter's run instead of its folder, and without a
    segmenter that only excludes images."""
    if isinstance(values, Mapping):
        if {"run", "masks"} <= values.keys():
            return None if values.get("exclude_only") else _segmenter(values)
        return {key: without_places(value) for key, value in values.items() if key not in _PLACES}
    return [without_places(value) for value in values] if isinstance(values, list) else values


def without_date(name: str) -> str:
    """The name that `RunFolder.create` was given for a folder of this name: without date, time and number."""
    return _DATE.sub("", name)


def _segmenter(values: Mapping[str, Any]) -> dict[str, Any]:
    run = values["run"]
    return {"run": run and without_date(Path(run).name), "preset": values.get("preset"), "masks": values["masks"]}


def differences(
    settings: Mapping[str, Any], base: Mapping[str, Any], skip: tuple[str, ...] = SILENT
) -> dict[str, tuple[str, str]]:
    """`{dotted key: (value, value in base)}` of the settings that differ."""
    flat, flat_base = dict(flattened(settings, skip)), dict(flattened(base, skip))
    keys = [key for key in dict.fromkeys([*flat, *flat_base]) if flat.get(key) != flat_base.get(key)]
    return {key: (flat.get(key, ABSENT), flat_base.get(key, ABSENT)) for key in keys}


def why_not_published(settings: Mapping[str, Any], published: Mapping[str, Any]) -> str:
    """A sentence that names the settings because of which printed numbers belong to another experiment; "" if they belong to it.

    Args:
        settings: the resolved experiment.
        published: the resolved experiment of the file that holds the printed numbers.
    """
    differing = differences(without_places(settings), without_places(published))
    other = {key: values for key, values in differing.items() if key not in SAME_NUMBERS}
    if not other:
        return ""
    texts = [f"{key} is {value} (published: {printed})" for key, (value, printed) in other.items()]
    more = f" and {len(texts) - _NAMED} more settings differ" if len(texts) > _NAMED else ""
    return f"{', '.join(texts[:_NAMED])}{more}"


def without_folders(text: str) -> str:
    """A value with the last part of every path alone: reports, cards and records name no folder of the machine."""
    return _FOLDERS.sub("", text)


def changed_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """`{dotted key: "1 (file: 50)"}` of the settings that differ from the experiment's file."""
    flat = dict(flattened(settings, TEXTS))
    changes: Mapping[str, str] = settings.get("changes") or {}
    return {key: without_folders(f"{flat.get(key, ABSENT)} (file: {before})") for key, before in changes.items()}


def headline(settings: Mapping[str, Any], *marks: str) -> str:
    """The title of an experiment with the marks of a run, such as `dry run`, and the settings that were changed."""
    flat = dict(flattened(settings, TEXTS))
    changes = [f"{key}={without_folders(flat.get(key, ABSENT))}" for key in settings.get("changes") or {}]
    if len(changes) > _NAMED:
        changes = [*changes[:_NAMED], f"{len(changes) - _NAMED} more settings"]
    texts = [*filter(None, marks), *([f"changed: {', '.join(changes)}"] if changes else [])]
    return f"{settings.get('title', '')} ({'; '.join(texts)})" if texts else str(settings.get("title", ""))

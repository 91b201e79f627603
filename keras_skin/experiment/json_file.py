"""Reads JSON that people write: its size is bounded, and every mistake is a sentence that names its place."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from keras_skin.registry import UserError, clipped, listed

MOST_BYTES = 4 * 2**20
"""Largest size of a file. The largest shipped one has 60 kB."""
MOST_VALUES = 10_000
"""Most values, nested ones included. The largest shipped file has 300."""
DEEPEST = 32
"""Deepest nesting of objects and lists."""
DIGITS = 18
"""Longest integer; every integer of this length fits into 64 bits."""
_TOO_DEEP = f"lists or objects are nested deeper than {DEEPEST} levels. Expected the settings of an experiment"


def read_json(path: Any) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Args:
        path: a path, or a file of the installed package.

    Raises:
        UserError: naming the place of the mistake, if the file cannot be read, exceeds the bounds of this module, is no JSON
            object, repeats a key, or holds a number or a text that no setting can have.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions.") from None
    if len(content) > MOST_BYTES:
        raise UserError(
            f"{path}: larger than {MOST_BYTES / 2**20:.0f} MiB. Expected the settings of an experiment, not its data."
        )
    try:
        values = _parse(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, got a {type(values).__name__}.")
    check_values(values, str(path))
    return values


def parse_value(text: str, source: str) -> Any:
    """The value of a command-line text: JSON, or the text itself.

    Raises:
        UserError: starting with `source`, as in `read_json`.
    """
    try:
        value = _parse(text)
    except json.JSONDecodeError:
        value = text
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    check_values(value, source)
    return value


def check_values(values: Any, source: str) -> None:
    """Refuses values that no setting can have, in linear time.

    Raises:
        UserError: starting with `source`, at the first value that is too deep, not a finite number, or a text that is no Unicode;
            or if there are more than `MOST_VALUES`.
    """
    remaining: list[tuple[Any, tuple[Any, ...]]] = [(values, ())]
    count = 0
    while remaining:
        value, path = remaining.pop()
        count += 1
        problem = "" if len(path) <= DEEPEST else _TOO_DEEP
        if isinstance(value, str):
            problem = problem or _text_problem(value)
        elif isinstance(value, float) and not math.isfinite(value):
            problem = problem or f"not a number that can be used. Expected a finite one of at most {DIGITS} digits"
        elif isinstance(value, dict):
            problem = problem or next(filter(None, map(_text_problem, value)), "")
            remaining += [(item, (*path, key)) for key, item in reversed(value.items())] if not problem else []
        elif isinstance(value, list):
            remaining += [(item, (*path, position)) for position, item in reversed(list(enumerate(value)))] if not problem else []
        if problem:
            where = f"{clipped('.'.join(map(str, path)))}: " if path else ""
            raise UserError(f"{source}: {where}{problem}.".encode("utf-8", "backslashreplace").decode())
        if count + len(remaining) > MOST_VALUES:
            raise UserError(f"{source}: more than {MOST_VALUES:,} values. Expected the settings of an experiment, not its data.")


def _parse(text: str) -> Any:
    """JSON with each key once; integers that are too long become infinite, which `check_values` reports with their place."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=lambda digits: int(digits) if len(digits.lstrip("-")) <= DIGITS else math.inf,
        )
    except RecursionError:
        raise ValueError(f"{_TOO_DEEP}.") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        repeats = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"repeated key in one object: {listed(repeats)}.")
    return values


def _text_problem(text: str) -> str:
    """Why a text is no Unicode, "" if it is."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"the text {clipped(text)!a} holds \\u{ord(text[error.start]):04x}, half of a character (a lone surrogate). "
            "Expected complete characters"
        )
    return ""

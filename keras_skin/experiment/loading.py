"""Reads an experiment file: inheritance, overrides, and a message for every mistake."""

from __future__ import annotations

import importlib.resources
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from keras_skin.experiment.changes import ABSENT, TEXTS, differences, flattened, why_not_published
from keras_skin.experiment.components import Settings
from keras_skin.experiment.fields import Experiment
from keras_skin.experiment.json_file import DEEPEST, DIGITS, check_values, parse_value, read_json
from keras_skin.experiment.paper import PRINTED
from keras_skin.registry import UserError, clipped, did_you_mean

log = logging.getLogger("keras_skin")

_NAMED = 50
"""Most problems that a message explains."""
_MOST_PARENTS = 32


class UnknownExperiment(UserError):
    """There is no experiment of this name; the first line suggests the nearest, the second lists all."""


def shipped_experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(
        item.name[:-5] for item in shipped_folder().iterdir() if item.name.endswith(".json") and item.name != "schema.json"
    )


def load_experiment(source: str | os.PathLike[str], overrides: Iterable[str] = (), demo: bool = False) -> Experiment:
    """Reads an experiment, applies inheritance and overrides, and validates it.

    Args:
        source: path of a JSON file, or the bare name of a shipped experiment.
        overrides: `"KEY=VALUE"` texts; KEY is a dotted path, VALUE is JSON (a bare word is a string).
        demo: whether to apply the file's `demo` overrides, before `overrides`.

    Returns:
        The experiment. Its `changes` list what the overrides changed. The numbers of its paper are dropped if they belong to
        other settings: those of the file that names them.

    Raises:
        UserError: with every problem: its JSON path, the value, and the nearest valid key.
    """
    path = _locate(source)
    values, published = _inherit(path, ())
    file, published = deepcopy(values), deepcopy(published)
    demo_values = values.get("demo")
    if demo and isinstance(demo_values, dict):  # validation refuses another type
        for key, value in list(demo_values.items()):
            _assign(values, key, value, f"{path}: demo")
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes KEY=VALUE, for example train.epochs=2; got '{clipped(text)}'.")
        check_values(key, "--set")
        _assign(values, key, parse_value(raw, f"--set {clipped(key)}"), "--set")
    experiment = validate(values, f"{path}")
    if values != file:
        experiment = experiment.model_copy(update={"changes": _changes(experiment, file)})
    return _without_numbers_of_others(experiment, published)


def _changes(experiment: Experiment, file: Mapping[str, Any]) -> dict[str, str]:
    """The settings that differ from those of the file; a file that is itself a changed experiment keeps its own list."""
    resolved = _resolved(file)
    before = {
        **{key: before for key, (_, before) in differences(json.loads(experiment.to_json()), resolved, TEXTS).items()},
        **experiment.changes,
    }
    flat = dict(flattened(json.loads(experiment.to_json()), TEXTS))
    return {key: value for key, value in before.items() if flat.get(key, ABSENT) != value}


def _without_numbers_of_others(experiment: Experiment, published: Mapping[str, Any] | None) -> Experiment:
    """Drops the printed numbers if the settings are not those of `published`, the file that names them."""
    paper = experiment.paper
    if paper is None or published is None or not paper.has_numbers:
        return experiment
    reason = why_not_published(json.loads(experiment.to_json()), _resolved(published))
    return experiment.model_copy(update={"paper": paper.without_numbers(reason)}) if reason else experiment


def _resolved(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a file with all defaults; a file that is valid only with overrides stays as it is."""
    try:
        resolved: Mapping[str, Any] = json.loads(Experiment.model_validate(values).to_json())
    except ValidationError:
        return values
    return resolved


def validate(values: Mapping[str, Any], source: str) -> Experiment:
    """Validates the values of an experiment; a UserError lists every problem at once."""
    train = values.get("train")
    if isinstance(train, Mapping) and "cache" in train:
        log.warning("%s: train.cache is ignored; every run uses the image store instead. Remove the key.", source)
        values = {**values, "train": {key: value for key, value in train.items() if key != "cache"}}
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise invalid(error, source, "experiment", Experiment) from None


def invalid(error: ValidationError, source: str, kind: str, root: type[Settings]) -> UserError:
    """The error that lists every problem of a file of this kind; `root` is the type of the whole file."""
    problems = error.errors(include_url=False)
    lines = [f"  - {_explain(problem, root)}" for problem in problems[:_NAMED]]
    lines += [f"  ... and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return UserError(f"{source}: {count} in the {kind}:\n" + "\n".join(lines))


def shipped_folder() -> Any:
    """The folder of the shipped experiments."""
    installed = importlib.resources.files("keras_skin").joinpath("experiments")
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "experiments"


def _locate(source: str | os.PathLike[str]) -> Any:
    path = Path(source)
    if _is_file(path):
        return path
    if path.name == str(source):
        candidate = shipped_folder().joinpath(f"{path.name.removesuffix('.json')}.json")
        if _is_file(candidate):
            return candidate
    names = shipped_experiments()
    raise UnknownExperiment(
        f"There is no experiment file '{clipped(str(source))}'.{did_you_mean(path.name.removesuffix('.json'), names)}\n"
        f"Shipped experiments (usable by name): {', '.join(names)}."
    )


def _is_file(path: Any) -> bool:
    """Whether the file exists; False for a name that no file can have."""
    try:
        return bool(path.is_file())
    except (OSError, ValueError):
        return False


def _inherit(path: Any, children: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The values of a file with those that it inherits, and the values of the file that names the printed numbers of a paper: the
    file itself or a parent; None if no file does."""
    name = str(Path(str(path)).resolve())  # the same file has one name, whatever path leads to it
    if name in children:
        raise UserError(
            f"'extends' forms a circle: {' -> '.join((*children[children.index(name) :], name))}. Remove one of them."
        )
    if len(children) == _MOST_PARENTS:
        raise UserError(f"{children[0]}: 'extends' leads through more than {_MOST_PARENTS} files. Expected a few: merge some.")
    values = read_json(path)
    parent = values.get("extends")
    own = values.get("paper")
    has_numbers = isinstance(own, dict) and any(name in own for name in PRINTED)
    if parent is None:
        return values, values if has_numbers else None
    if not isinstance(parent, str):
        raise UserError(f"{path}: 'extends' must be a file name, got {clipped(repr(parent))}.")
    sibling = Path(name).parent / parent
    try:
        source = sibling if _is_file(sibling) else _locate(parent)
    except UnknownExperiment as error:
        raise UnknownExperiment(f"{path}: extends: {error}") from None
    inherited, published = _inherit(source, (*children, name))
    if has_numbers and isinstance(inherited.get("paper"), dict):
        paper = {key: value for key, value in inherited["paper"].items() if key not in PRINTED}
        inherited = {**inherited, "paper": paper}
    values = _merge(inherited, values)
    return values, values if has_numbers else published


def _merge(parent: Any, child: Any) -> Any:
    """Merges a child's values into its parent's key by key; a component with another name replaces the parent's."""
    if not (isinstance(parent, dict) and isinstance(child, dict)):
        return child
    if "name" in child and child["name"] != parent.get("name"):
        return child
    return {**parent, **{key: _merge(parent.get(key), value) for key, value in child.items()}}


def _assign(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Sets the value at the dotted path `key`; numbers in the path are list positions."""
    *parents, last = key.split(".")
    if len(parents) > DEEPEST:
        raise UserError(f"{source} {clipped(key)}: {len(parents) + 1:,} keys deep. Expected a path such as train.epochs.")
    container: Any = values
    for depth, part in enumerate(parents):
        if isinstance(container, list):
            container = container[_list_index(container, part, f"{source} {key}")]
        else:
            if container.get(part) is None:
                container[part] = {}
            container = container[part]
        if not isinstance(container, dict | list):
            raise UserError(
                f"{source} {key}: '{'.'.join(parents[: depth + 1])}' is {clipped(repr(container))}, expected an object or a list."
            )
    if isinstance(container, list):
        container[_list_index(container, last, f"{source} {key}")] = value
    elif isinstance(value, dict) and isinstance(container.get(last), dict):
        container[last] = _merge(container[last], value)
    else:
        container[last] = value


def _list_index(items: list[Any], part: str, source: str) -> int:
    if not part.isdecimal() or len(part) > DIGITS or int(part) >= len(items):
        raise UserError(f"{source}: '{clipped(part)}' is not a position in a list of {len(items)} items (the first is 0).")
    return int(part)


def _explain(problem: Any, root: type[Settings]) -> str:
    location = [part for part in problem["loc"] if part != "[key]"]
    where = clipped(".".join(map(str, location))) or "(whole file)"
    value = clipped(json.dumps(problem["input"], default=str))
    if problem["type"] == "extra_forbidden":
        valid = _keys_at(location[:-1], root)
        return f"{where} = {value}: unknown key.{did_you_mean(str(location[-1]), valid)} Valid here: {', '.join(valid)}."
    if problem["type"] == "missing":
        return f"{where}: missing, and it has no default."
    if problem["type"] in ("dict_type", "model_type"):
        return f'{where} = {value}: expected an object, {{"key": value}}.'
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if problem["type"] == "value_error":
        return f"{where}: {message}{'' if message.endswith('?') else '.'}"
    hint = did_you_mean(str(problem["input"]), re.findall("'([^']+)'", message)) if problem["type"] == "literal_error" else ""
    return f"{where} = {value}: {message[:1].lower() + message[1:]}.{hint}"


def _keys_at(location: list[Any], root: type[Settings]) -> list[str]:
    block: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        field = block.model_fields.get(part) if isinstance(block, type) and issubclass(block, Settings) else None
        block = _settings_in(field.annotation) if field is not None else block
        if block is None:
            return []
    return sorted(field.alias or name for name, field in block.model_fields.items())


def _settings_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next((block for part in getattr(annotation, "__args__", ()) if (block := _settings_in(part)) is not None), None)

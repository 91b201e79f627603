"""Registries of named components, and helpers that the whole package shares.

A registry reads the names of its components from the source text of its package, so that `--help`, the experiment schema and
error messages can list them without importing TensorFlow. Only the requested component is imported.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.resources
import inspect
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

_LONGEST = 80
"""Most characters of one value in a message."""
_DECORATOR = re.compile(r'^@register\(\s*"([A-Za-z0-9_]+)"', re.MULTILINE)


_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class UserError(ValueError):
    """A mistake that the user can fix; commands print its message without a traceback and exit with code 2."""


@dataclass(frozen=True)
class Entry:
    """A registered component: its name, its function or class, and the keyword arguments of its registration."""

    name: str
    builder: Callable[..., Any]
    info: dict[str, Any] = field(default_factory=dict)


_registered: dict[str, dict[str, Entry]] = {}
"""Components registered in this process, by package; all registries of one package share them."""


class Registry:
    """Components of one kind that live in the modules of one package.

    Args:
        kind: name of the kind of component in messages, for example `"model"`.
        package: dotted name of the package (or module) whose source registers them with `@register("name", ...)` at the start
            of a line.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries = _registered.setdefault(package, {})

    @cached_property
    def _modules(self) -> dict[str, str]:
        """Maps each name to the module that registers it, read from the source text."""
        modules: dict[str, str] = {}
        for module, text in self._sources.items():
            for name in _DECORATOR.findall(text):
                if name in modules:
                    raise ValueError(f"{self.kind} '{name}' is registered twice: in {modules[name]} and in {module}.")
                modules[name] = module
        return modules

    @cached_property
    def _sources(self) -> dict[str, str]:
        """Maps each module of the package to its source text."""
        parent, _, leaf = self.package.rpartition(".")
        root = importlib.resources.files("keras_skin").joinpath(*parent.split(".")[1:])
        single = root.joinpath(f"{leaf}.py")
        if single.is_file():
            return {self.package: single.read_text(encoding="utf-8")}
        files = sorted(root.joinpath(leaf).iterdir(), key=lambda entry: entry.name)
        return {
            f"{self.package}.{item.name[:-3]}": item.read_text(encoding="utf-8")
            for item in files
            if item.name.endswith(".py") and item.name != "__init__.py"
        }

    def names(self) -> list[str]:
        """All registered names, sorted; imports nothing."""
        return sorted(set(self._modules) | set(self._entries))

    def parameters(self, name: str) -> dict[str, list[str]]:
        """The arguments of a component, read from its source: `{argument: allowed strings}`, empty if any value is allowed."""
        if name in self._parameters:
            return self._parameters[name]
        if name in self._entries:  # registered outside the package
            return {key: [] for key in inspect.signature(self._entries[name].builder).parameters}
        return {}

    @cached_property
    def _parameters(self) -> dict[str, dict[str, list[str]]]:
        """For each name in the source text the arguments of its component."""
        return {
            name: _parameters(node)
            for name, module in self._modules.items()
            for node in self._trees[module].body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and any(_registers(item, name) for item in node.decorator_list)
        }

    @cached_property
    def builders(self) -> dict[str, str]:
        """For the function or class of each component its module within the package, read from the source text."""
        return {
            node.name: module.removeprefix(f"{self.package}.")
            for module, tree in self._trees.items()
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and any(map(_registers, node.decorator_list))
        }

    @cached_property
    def _trees(self) -> dict[str, ast.Module]:
        return {module: ast.parse(text) for module, text in self._sources.items()}

    def register(self, name: str, **info: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator that registers a function or class under `name`, with `info`.

        Raises:
            ValueError: if the name is taken.
        """

        def decorate(builder: Callable[..., Any]) -> Callable[..., Any]:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is already registered.")
            self._entries[name] = Entry(name, builder, info)
            return builder

        return decorate

    def get(self, name: str) -> Entry:
        """Returns the component called `name`, importing its module if necessary.

        Raises:
            UserError: if the name is unknown; the message suggests the nearest.
        """
        if name not in self._entries:
            if name not in self._modules:
                raise UserError(
                    f"There is no {self.kind} '{name}'.{did_you_mean(name, self.names())} Known: {', '.join(self.names())}."
                )
            importlib.import_module(self._modules[name])
        return self._entries[name]


def _registers(decorator: ast.expr, name: str | None = None) -> bool:
    """Whether the decorator registers a component (of this name)."""
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "register"
        and isinstance(decorator.args[0], ast.Constant)
        and name in (None, decorator.args[0].value)
    )


def _parameters(node: ast.FunctionDef | ast.ClassDef) -> dict[str, list[str]]:
    if isinstance(node, ast.ClassDef):
        inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if not inits:  # a dataclass: its fields are its arguments
            return {
                item.target.id: _choices(item.annotation)
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_")
            }
        node = inits[0]
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {item.arg: _choices(item.annotation) for item in arguments if item.arg != "self"}


def _choices(annotation: ast.expr | None) -> list[str]:
    """The strings of a `Literal[...]` annotation."""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name) and annotation.value.id == "Literal":
        items = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return [str(item.value) for item in items if isinstance(item, ast.Constant)]
    return []


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with the known word nearest to `word`, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5) if len(word) <= _LONGEST else []
    return f" Did you mean '{matches[0]}'?" if matches else ""


def clipped(text: str, longest: int = _LONGEST) -> str:
    """A text in a message, without the end of a very long one."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def shorten(lines: Sequence[str], limit: int = 20) -> list[str]:
    """The first `limit` lines of a list in a message, and how many more there are."""
    return [*lines[:limit], *([f"  ... and {len(lines) - limit} more"] if len(lines) > limit else [])]


def listed(names: Sequence[str], limit: int = 20) -> str:
    """The first `limit` names of a list in a sentence, and how many more there are."""
    return ", ".join(map(clipped, names[:limit])) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package that imports its public names on first use.

    Args:
        package: dotted name of the package.
        modules: for each public name the module of the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            hint = did_you_mean(name, sys.modules[package].__all__)
            raise AttributeError(f"module {package!r} has no attribute {name!r}.{hint}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get


def escape_cell(cell: Any) -> Any:
    """Returns a cell of a CSV file that no spreadsheet runs as a formula; `unescape_cell` gives the text back.

    A text that starts with `=`, `+`, `-`, `@`, a tab or a line end gets an apostrophe before it, which spreadsheets take as the
    mark of a text. So does a text that already has apostrophes before such a character. Numbers stay as they are.
    """
    is_formula = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def unescape_cell(cell: Any) -> Any:
    """Returns the text that `escape_cell` was given."""
    return cell[1:] if isinstance(cell, str) and _ESCAPED.match(cell) else cell


def escape_table(table: Any) -> Any:
    """Applies `escape_cell` to the headings and texts of a DataFrame."""
    return _map_texts(table, escape_cell)


def unescape_table(table: Any) -> Any:
    """Applies `unescape_cell` to the headings and texts of a DataFrame that was read."""
    return _map_texts(table, unescape_cell)


def _map_texts(table: Any, change: Callable[[Any], Any]) -> Any:
    texts = {name: table[name].map(change) for name in table.columns if table[name].dtype.kind == "O"}
    return table.assign(**texts).rename(columns=change)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there is renamed to `path` only if the block succeeds."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{_process_mark(os.getpid())}{_base36(uuid.uuid4().int, 3)}-{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, recursive: bool = True) -> list[Path]:
    """Removes what `atomic_path` of killed processes has left in a folder; returns the removed paths.

    The name of a temporary file begins with a mark of its process. Those of a process that still runs on this machine stay. Call
    it before this process writes into the folder: in a container, every process may have the same number.
    """
    removed = []
    for path in sorted((folder.rglob if recursive else folder.glob)(".*-*")):
        match = _TEMPORARY.match(path.name)
        if match is None or _runs(match[1]) or not path.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


_MARK = 5  # characters of a process number
_TEMPORARY = re.compile(rf"\.([0-9a-z]{{{_MARK}}})[0-9a-z]{{3}}-.")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _process_mark(number: int) -> str:
    return _base36(number, _MARK)


def _base36(number: int, length: int) -> str:
    return "".join(_DIGITS[number // 36**place % 36] for place in reversed(range(length)))


def _runs(mark: str) -> bool:
    """Whether another process of this mark runs."""
    number = int(mark, 36)
    if number == os.getpid():
        return False
    if os.name != "posix":  # no way to ask without a library
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True

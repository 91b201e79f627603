"""Generates pages of the documentation site from the code and from other files of the repository. A hook of mkdocs.yml.

The pages of commands and experiments are generated from the argument parsers and from the experiment's types, so they always
agree with the code.
"""

from __future__ import annotations

import importlib
import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from keras_skin.console import quiet_import
from keras_skin.experiment import Experiment, load_experiment, shipped_experiments
from keras_skin.experiment.components import REGISTRIES
from keras_skin.experiment.tables import PaperTable, table_titles

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = "experiments/colab"
COMMANDS = {
    "run": "keras_skin.run",
    "check": "keras_skin.check",
    "compare": "keras_skin.compare",
    "reproduce": "keras_skin.reproduce",
    "predict": "keras_skin.predict",
    "explain": "keras_skin.explain.__main__",
    "serve": "keras_skin.serve",
    "export": "keras_skin.export.__main__",
    "report": "keras_skin.report",
    "cache": "keras_skin.cache",
}
PACKAGES = ("models", "layers", "losses", "metrics", "explain")
DATA_MODULES = ("keras_skin.data.datasets.records", "keras_skin.data.splits.splits")
COPIES = {  # file of the repository: page
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "docker/README.md": "docker.md",
    **{
        f"experiments/colab/{path.name}": f"notebooks/{path.stem}.md" for path in (ROOT / "experiments" / "colab").glob("*.ipynb")
    },
}
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {"commands.md": commands_page(), "experiments.md": experiments_page()}
    pages |= {page: _text(ROOT / source) for source, page in COPIES.items()}
    pages |= {f"api/{name}.md": module_page(f"keras_skin.{name}") for name in PACKAGES}
    pages |= {"api/keras_skin.md": package_page(), "api/data.md": data_page()}
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between pages."""
    sources = {page: source for source, page in COPIES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target.startswith("docs/"):
            uri = target.removeprefix("docs/")
        elif f"{target}/README.md" in COPIES:
            uri = COPIES[f"{target}/README.md"]
        elif target == NOTEBOOKS:
            uri = "notebooks/01_quickstart.md"
        else:
            uri = COPIES.get(target, target)
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(link, markdown)


def commands_page() -> str:
    """The help of every command."""
    os.environ["COLUMNS"] = "100"  # the width that argparse wraps at
    lines = ["# Commands", "", "Every command prints this text with `--help`.", ""]
    for name, module in COMMANDS.items():
        text = importlib.import_module(module).parser().format_help().rstrip()
        lines += [f"## python -m keras_skin.{name}", "", "```text", text, "```", ""]
    return "\n".join(lines)


def experiments_page() -> str:
    """The shipped experiments, and every option of an experiment file with its type and default."""
    lines = [
        "# Experiments",
        "",
        "An experiment is a JSON file. `python -m keras_skin.run NAME` runs a shipped experiment, "
        "`python -m keras_skin.run FILE.json` runs your own. A file may name one parent with `extends`; its values are laid over "
        "the parent's. `--set KEY=VALUE` overrides any option, for example `--set train.epochs=10`.",
        "",
        "## Shipped experiments",
        "",
        "| name | title | model | training data |",
        "|---|---|---|---|",
    ]
    for name in shipped_experiments():
        experiment = load_experiment(name)
        lines.append(_row(f"`{name}`", experiment.title, f"`{experiment.model.name}`", f"`{experiment.data.train.name}`"))
    lines += ["", "## Tables", "", "`python -m keras_skin.reproduce NAME` trains the rows of a table.", ""]
    lines += ["| name | title |", "|---|---|", *(_row(f"`{name}`", title) for name, title in table_titles().items())]
    lines += ["", "## Options", "", *_blocks(Experiment.model_json_schema(by_alias=True))]
    lines += ["## Options of a table", "", *_blocks(PaperTable.model_json_schema(by_alias=True))]
    lines += ["## Components", "", "A component is an object with a `name` and arguments of its own.", ""]
    for kind, (registry, reserved) in REGISTRIES.items():
        lines += [f"### {kind.capitalize()}", "", "| name | description | arguments |", "|---|---|---|"]
        for name in registry.names():
            with quiet_import():
                entry = registry.get(name)
            description = entry.info.get("title") or str(entry.builder.__doc__).splitlines()[0]
            arguments = [
                f"`{key}`" + (f" ({', '.join(f'`{choice}`' for choice in choices)})" if choices else "")
                for key, choices in registry.parameters(name).items()
                if key not in reserved
            ]
            lines.append(_row(f"`{name}`", description, ", ".join(arguments)))
        lines.append("")
    return "\n".join(lines)


def _blocks(schema: dict[str, Any]) -> list[str]:
    """A table of options for the file itself and for each block inside it, under every path where the block stands."""
    blocks: dict[str, tuple[dict[str, Any], list[str]]] = {"": (schema, [""])}
    queue = [""]
    while queue:
        block, paths = blocks[queue.pop(0)]
        for key, option in block["properties"].items():
            for name in re.findall(r"#/\$defs/(\w+)", json.dumps(option)):
                if name not in blocks:
                    blocks[name] = schema["$defs"][name], []
                    queue.append(name)
                blocks[name][1].extend(f"{path}.{key}".lstrip(".") for path in paths)
    lines: list[str] = []
    for block, paths in blocks.values():
        heading = ", ".join(f"`{path}`" for path in paths) if paths != [""] else "The file"
        lines += [f"### {heading}", "", " ".join(block["description"].split()), ""]
        described = any("description" in option for option in block["properties"].values())
        lines += [_row("option", "type", "default", *["meaning"] * described), "|---" * (3 + described) + "|"]
        for key, option in block["properties"].items():
            default = "required" if key in block.get("required", ()) else _default(option)
            meaning = [option.get("description", "")] * described
            lines.append(_row(f"`{key}`", _type(option), default, *meaning))
        lines.append("")
    return lines


def _default(option: dict[str, Any]) -> str:
    if "default" not in option or ("$ref" in option and option["default"]):
        return "see the block"
    return f"`{json.dumps(option['default'])}`"


def _type(option: dict[str, Any]) -> str:
    """The type of a JSON Schema, in words."""
    if "$ref" in option:
        return "block"
    if "anyOf" in option:
        return " or ".join(map(_type, option["anyOf"]))
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if "const" in option:
        return f"`{option['const']}`"
    if option.get("type") == "array":
        return f"list of {_type(option['items'])}" if "items" in option else f"({', '.join(map(_type, option['prefixItems']))})"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {option[bound]:g}" for bound, sign in bounds.items() if bound in option]
    return " ".join([option["type"], ", ".join(limits)]).rstrip()


def module_page(module: str) -> str:
    """The reference of a package whose public names are imported when they are first used."""
    package = importlib.import_module(module)
    lines = [f"# {module}", "", str(package.__doc__), ""]
    for name in package.__all__:
        with quiet_import():
            target = getattr(package, name)
        lines += [f"::: {target.__module__}.{target.__qualname__}", "    options:", f"      heading: {name}", ""]
    return "\n".join(lines)


def package_page() -> str:
    """The reference of keras_skin itself."""
    package = importlib.import_module("keras_skin")
    lines = ["# keras_skin", "", str(package.__doc__), "", "`keras_skin.__version__` is the version, a text.", ""]
    for name in package.__all__:
        if name != "__version__":
            lines += [f"::: keras_skin.{name}", ""]
    return "\n".join(lines)


def data_page() -> str:
    """The reference of the modules that read and split data sets."""
    lines = ["# keras_skin.data", ""]
    for module in DATA_MODULES:
        lines += [f"::: {module}", "    options:", f"      heading: {module}", ""]
    return "\n".join(lines)


def _text(path: Path) -> str:
    """A Markdown file, or the cells of a notebook as Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        cells.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(cells)


def _row(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in cells)} |"

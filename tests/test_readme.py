"""The README and the guides agree with the code: commands parse, experiments exist, imports are public, links lead somewhere."""

import ast
import configparser
import fnmatch
import importlib
import re
import shlex
from pathlib import Path

import pytest

from keras_skin import list_presets
from keras_skin.experiment import load_experiment, shipped_experiments
from keras_skin.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
GUIDES = ["README.md", "docs/getting_started.md", "docs/your_own_data.md", "docs/presets.md", "docs/reproduce.md"]
DOCUMENTS = [*GUIDES, "CONTRIBUTING.md", "docs/serving.md", "docs/architecture.md", "docs/performance.md", "docker/README.md"]
PUBLIC = {f"keras_skin{name}" for name in ("", ".models", ".layers", ".losses", ".metrics", ".explain")}
DOCUMENTED = {"keras_skin.data.datasets.records"}  # in the guides: modules of the reference


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """Every `python -m keras_skin.X ...` of a document, as words."""
    shell = [line.partition("#")[0] for block in blocks(text, "(?:bash)?") for line in block.splitlines()]
    inline = re.findall(r"`(python -m keras_skin\.[^`]+)`", text)
    for line in [*shell, *inline]:
        for command in line.split("&&"):
            if command.strip().startswith("python -m keras_skin."):
                words = shlex.split(command)
                yield words[2].removeprefix("keras_skin."), words[3:]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_parses(document):
    for name, arguments in commands(read(document)):
        package = (ROOT / "keras_skin" / name / "__main__.py").is_file()
        parser = importlib.import_module(f"keras_skin.{name}.__main__" if package else f"keras_skin.{name}").parser()
        if arguments and arguments[0] not in ("NAME", "FILE.json", "RUN"):
            options = parser.parse_args(arguments)  # a wrong option exits, and pytest reports it
            if name == "run" and options.experiment and options.experiment != "my_images.json":
                load_experiment(Path(options.experiment).stem, options.overrides, demo=options.demo)


def test_the_readme_shows_every_command():
    shown = {name for name, _ in commands(read("README.md"))}
    assert shown == {"run", "check", "compare", "reproduce", "predict", "serve", "export", "explain", "cache", "report"}


def test_every_experiment_in_the_readme_exists():
    systems = read("README.md").partition("## Systems")[2].partition("## ")[0]
    rows = [row.split("|")[3] for row in systems.splitlines() if row.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`([a-z0-9_*]+)`", row) if not name.startswith("_")]
    assert len(names) > 15
    for name in names:
        assert fnmatch.filter(shipped_experiments(), name), name


def test_the_numbers_of_a_preset_in_the_readme_are_those_of_its_run():
    rows = re.findall(
        r"^\| `(\w+)` \|.*?([\d,]+) images.*?(\d+) validation images.*\| (.+?) \| (.+?) \| (.+?) \|$", read("README.md"), re.M
    )
    assert [row[0] for row in rows] == list_presets()
    for name, trained, validated, *numbers in rows:
        folder = RunFolder(ROOT / "keras_skin" / "presets" / name)
        splits = folder.splits["split"].value_counts()
        assert (int(trained.replace(",", "")), int(validated)) == (splits["train"], splits["validation"])
        measured = folder.metrics["validation"]
        metrics = [measured["segmentation"]["dsc"], measured["classification"]["auc"], measured["classification"]["f1_weighted"]]
        assert numbers == [f"{metric['value']:.3f}" for metric in metrics]


@pytest.mark.parametrize("document", GUIDES)
def test_imports_are_public(document):
    imported = []
    for block in blocks(read(document), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_skin"):
                imported += [(node.module, alias.name) for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "keras_skin":
                imported.append(("keras_skin", node.attr))
    inline = re.findall(r"from (keras_skin[\w.]*) import (\w+)", read(document))
    allowed = PUBLIC if document == "README.md" else PUBLIC | DOCUMENTED
    for module, name in [*imported, *inline]:
        assert module in allowed, f"{document} imports from {module}"
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document):
    for link in re.findall(r"\]\(([^)#:\s]+)[)#]", read(document)):
        if link not in ("experiments.md", "api/models.md"):  # pages that the site is built with
            assert ((ROOT / document).parent / link).exists(), f"{document}: {link}"


def test_the_table_of_dependencies_is_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = dict(re.findall(r"^([\w-]+)(\S+)$", config["options"]["install_requires"], re.MULTILINE))
    table = read("README.md").partition("## Dependencies")[2].partition("## ")[0]
    shown = {}
    for row in re.findall(r"^\| ([\w, -]+) \| (>=[^|]+) \|", table, re.MULTILINE):
        shown |= dict(zip(row[0].split(", "), row[1].split("; "), strict=True))
    assert shown == required

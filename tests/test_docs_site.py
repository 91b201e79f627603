"""The documentation site builds without a warning and without a network, is complete, and has no dead link."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from keras_skin.experiment import Experiment, shipped_experiments
from keras_skin.experiment.components import REGISTRIES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("models", "layers", "losses", "metrics", "explain")
NO_NETWORK = """
import socket, sys

def refuse(*arguments, **options):
    raise OSError("no network in this test")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--quiet", "--site-dir", sys.argv[1]])
"""


class Page(HTMLParser):
    """Links, ids and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids, self.words = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]
        self.ids.add(attributes.get("id"))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_every_public_name_has_an_entry(pages, package):
    module = importlib.import_module(f"keras_skin.{package}".rstrip("."))
    page = pages[f"api/{package or 'keras_skin'}.html"]
    for name in module.__all__:
        assert re.search(rf"\b{name}\b", page.text), f"{module.__name__}.{name} is not in the reference"
        target = getattr(module, name)
        if name != "__version__":
            assert f"{target.__module__}.{target.__qualname__}" in page.ids, f"{module.__name__}.{name} has no entry"


def test_every_command_is_shown(pages):
    commands = [path.stem for path in (ROOT / "keras_skin").glob("*.py") if "ArgumentParser" in path.read_text(encoding="utf-8")]
    commands += [path.parent.name for path in (ROOT / "keras_skin").glob("*/__main__.py")]
    assert len(commands) >= 8
    for command in commands:
        assert f"usage: python -m keras_skin.{command} " in pages["commands.html"].text


def test_every_experiment_and_option_is_shown(pages):
    text = pages["experiments.html"].text
    schema = Experiment.model_json_schema(by_alias=True)
    options = {key for block in (schema, *schema["$defs"].values()) for key in block["properties"]}
    components = {name for registry, _ in REGISTRIES.values() for name in registry.names()}
    missing = (options | components | set(shipped_experiments())) - set(re.findall(r"[\w$+]+", text))
    assert not missing
    assert "train.optimizer" in text
    assert "`" not in text, "Markdown that was not rendered"


def test_no_link_is_dead(site, pages):
    count = 0
    for name, page in pages.items():
        if name == "404.html":  # its links are absolute: it is shown at any address
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{name}: {link}"
            if parts.fragment and target.suffix == ".html":
                key = target.resolve().relative_to(site.resolve()).as_posix()
                assert unquote(parts.fragment) in pages[key].ids, f"{name}: {link}"
            count += 1
    assert count > 500


def test_nothing_is_loaded_from_the_network(site):
    for path in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", path.read_text(encoding="utf-8"))
        assert not loaded, path


def test_the_page_of_own_data_names_every_column(pages):
    from keras_skin.data.datasets.readers import csv_folder

    text = pages["your_own_data.html"].text
    for column in re.findall(r"\w+", csv_folder.TREE.splitlines()[-1].partition("metadata.csv")[2]):
        if "_" in column or column in csv_folder.METADATA or column in ("label", "mask", "split"):
            assert column in text, column


def test_every_attack_has_its_test():
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines() if ".py` |" in line]
    files = [name for line in rows for name in re.findall(r"`((?:tests|tools)/[\w/]+\.py)`", line)]
    assert len(rows) > 25
    assert [name for name in files if not (ROOT / name).is_file()] == []

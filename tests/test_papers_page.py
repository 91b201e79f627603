"""docs/papers.md names what makes each table row, figure and claim of the papers."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from keras_skin.experiment import shipped_experiments
from keras_skin.experiment.tables import shipped_tables
from keras_skin.registry import UserError

ROOT = Path(__file__).resolve().parent.parent
NO_FIGURES = ("__init__", "style")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("papers_page", ROOT / "tools" / "papers_page.py")
    module = sys.modules["papers_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def papers(tool):
    return json.loads(tool.LIST.read_text())


def test_the_page_is_current(tool, papers):
    assert tool.PAGE.read_text() == tool.papers_page(papers), "run: python tools/papers_page.py"


def test_every_experiment_table_and_figure_is_on_it(tool, papers):
    text = tool.PAGE.read_text()
    assert [name for name in shipped_experiments() if f"| `{name}` |" not in text] == []
    assert [name for name in shipped_tables() if f"keras_skin.reproduce {name}`" not in text] == []
    sources = {file for paper in papers for item in paper["items"] for file in item.get("source", [])}
    modules = [path for path in sorted((ROOT / "keras_skin" / "figures").glob("*.py")) if path.stem not in NO_FIGURES]
    assert [path.name for path in modules if str(path.relative_to(ROOT)) not in sources] == []


def test_commands_and_experiments_of_items_exist(papers):
    """Names in backquotes that look like experiments or commands are real ones."""
    names, tables = shipped_experiments(), shipped_tables()
    for item in (item for paper in papers for item in paper["items"]):
        text = item.get("made_by", "") + item.get("why_not", "")
        for name in re.findall(r"`((?:jrl|dual_task|msfa|tdbn|deep_unet|dualrefnet|unet|resnet50)_[a-z0-9_]+)`", text):
            assert name in names, f"{item['item']}: {name}"
        for name in re.findall(r"`(_[a-z0-9_]+)`", text):
            assert any(experiment.endswith(name) for experiment in names), f"{item['item']}: {name}"
        for name in re.findall(r"keras_skin\.(\w+)", text):
            assert name in ("explain", "compare") or (ROOT / "keras_skin" / f"{name}.py").is_file(), name
        for name in re.findall(r"reproduce (\w+)", text):
            assert name in tables, f"{item['item']}: {name}"
        for file in re.findall(r"`(keras_skin/[\w/]+\.py)`", text):
            assert (ROOT / file).is_file(), file


def test_every_problem_is_reported_at_once(tool, papers):
    first = papers[0]
    first["items"] += [
        {"item": "Figure 99", "content": "x"},
        {"item": "Figure 98", "content": "x", "made_by": "y", "source": ["keras_skin/figures/nothing.py"]},
    ]
    first["tables"] = ["jrl", "jrll"]
    papers[1]["citation"] = "Nobody"
    with pytest.raises(UserError) as error:
        tool.papers_page(papers)
    text = str(error.value)
    assert "Figure 99: expected either made_by or why_not." in text
    assert "Figure 98: keras_skin/figures/nothing.py does not exist." in text
    assert "there is no table 'jrll'" in text
    assert "experiments/tables/jrl_lite.json: named 0 times in docs/papers.json, expected once." in text
    assert "experiments/tdbn_ham10000.json: its paper.citation is none of docs/papers.json: 'Atiq, Fattah" in text

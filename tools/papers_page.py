"""Writes docs/papers.md: every table row, figure and claim of the five papers with what makes it here, or why nothing does.

    python tools/papers_page.py

The rows come from the experiment files (`paper.row`) and from the tables in experiments/tables, the figures and the other claims
from docs/papers.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_skin.experiment import Experiment, load_experiment, shipped_experiments
from keras_skin.experiment.tables import PaperTable, load_table, shipped_tables
from keras_skin.registry import UserError, atomic_path

ROOT = Path(__file__).resolve().parent.parent
LIST, PAGE = ROOT / "docs" / "papers.json", ROOT / "docs" / "papers.md"
INTRODUCTION = """<!-- Made by tools/papers_page.py from docs/papers.json and the files in experiments/. Do not edit. -->

# The papers, item by item

Every table row, figure and testable claim of the five papers, with the file or command that makes it here, or the reason why
nothing does. `python -m keras_skin.run NAME` trains an experiment, `python -m keras_skin.reproduce TABLE` all rows of a table.
[What they reach on real images](results.md).
"""
SOURCE = "source"
"""Key of an item: the files of the package that make it."""


def papers_page(papers: Sequence[Mapping[str, Any]]) -> str:
    """The text of docs/papers.md.

    Args:
        papers: content of docs/papers.json: `heading`, `citation` (the start of `paper.citation`), `tables` (their names), and
            `items` with `item`, `content` and either `made_by` or `why_not`.

    Raises:
        UserError: if an experiment or a table belongs to none of the papers, or a source file of an item does not exist.
    """
    experiments = {name: load_experiment(name) for name in shipped_experiments()}
    tables = {name: load_table(name) for name in shipped_tables()}
    problems = list(_problems(papers, experiments, tables))
    if problems:
        raise UserError("\n".join(problems))
    sections = ["\n".join(_section(paper, experiments, tables)) for paper in papers]
    others = {name: experiment for name, experiment in experiments.items() if experiment.paper is None}
    return "\n".join([INTRODUCTION, *sections, "## In none of the papers\n", *_experiments(others)])


def _problems(
    papers: Sequence[Mapping[str, Any]], experiments: Mapping[str, Experiment], tables: Mapping[str, PaperTable]
) -> Iterator[str]:
    for name, experiment in experiments.items():
        if experiment.paper and not any(_is_of(experiment, paper) for paper in papers):
            yield f"experiments/{name}.json: its paper.citation is none of docs/papers.json: '{experiment.paper.citation}'."
    named = [name for paper in papers for name in paper["tables"]]
    for name in tables:
        if named.count(name) != 1:
            yield f"experiments/tables/{name}.json: named {named.count(name)} times in docs/papers.json, expected once."
    yield from (f"docs/papers.json: there is no table '{name}'." for name in named if name not in tables)
    for paper in papers:
        for item in paper["items"]:
            where = f"docs/papers.json, {paper['heading']}, {item['item']}"
            if ("made_by" in item) == ("why_not" in item):
                yield f"{where}: expected either made_by or why_not."
            for file in item.get(SOURCE, []):
                if not (ROOT / file).is_file():
                    yield f"{where}: {file} does not exist."


def _is_of(experiment: Experiment, paper: Mapping[str, Any]) -> bool:
    return experiment.paper is not None and experiment.paper.citation.startswith(paper["citation"])


def _section(paper: Mapping[str, Any], experiments: Mapping[str, Experiment], tables: Mapping[str, PaperTable]) -> Iterator[str]:
    own = {name: experiment for name, experiment in experiments.items() if _is_of(experiment, paper)}
    yield f"## {paper['heading']}\n"
    yield f"{next(item.paper.citation for item in own.values() if item.paper)}.\n"
    yield "### Experiments\n"
    yield from _experiments(own)
    for name in paper["tables"]:
        table = tables[name]
        yield f"### {table.title}\n"
        yield f"`python -m keras_skin.reproduce {name}`\n"
        yield "| row | experiment | settings |"
        yield "|---|---|---|"
        for row in table.rows:
            settings = ", ".join(f"`{key}={json.dumps(value)}`" for key, value in row.overrides.items())
            yield _line(row.label, f"`{row.experiment}`", settings or "as in its file")
        yield ""
        if table.claims:
            yield "Claims that it decides:\n"
            yield from (f"- {claim.text}" for claim in table.claims)
            yield ""
    yield "### Figures, other tables and claims\n"
    yield "| in the paper | content | here |"
    yield "|---|---|---|"
    for item in paper["items"]:
        files = ", ".join(f"`{file}`" for file in item.get(SOURCE, []))
        made_by = item.get("made_by") or f"Not here: {item['why_not']}"
        yield _line(item["item"], item["content"], f"{made_by}{f' ({files})' if files else ''}")
    yield ""


def _experiments(experiments: Mapping[str, Experiment]) -> Iterator[str]:
    yield "| in the paper | experiment | what it is | printed numbers |"
    yield "|---|---|---|---|"
    for name, experiment in experiments.items():
        row = experiment.paper.row if experiment.paper else None
        yield _line(row or "not in the paper", f"`{name}`", experiment.title, _printed(experiment))
    yield ""


def _printed(experiment: Experiment) -> str:
    """How many numbers of the paper stand in an experiment file, by kind."""
    paper = experiment.paper
    if paper is None or not paper.has_numbers:
        return "none"
    blocks = {"": [paper.results], " of another evaluation": list(paper.other_results.values())}
    counts = {
        kind: sum(len(metrics) for block in results for tasks in block.values() for metrics in tasks.values())
        for kind, results in blocks.items()
    }
    cited = sum(len(metrics) for item in paper.cited for tasks in item.results.values() for metrics in tasks.values())
    counts |= {" of size and speed": len(paper.efficiency), " of heat maps": len(paper.explanations), " cited": cited}
    return ", ".join(f"{count}{kind}" for kind, count in counts.items() if count)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="FILE", type=Path, default=PAGE, help="page to write")
    options = parser.parse_args(arguments)
    try:
        text = papers_page(json.loads(LIST.read_text(encoding="utf-8")))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with atomic_path(options.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A reproduced table as a page that loads nothing from anywhere, as a CSV file, and as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from keras_skin.evaluation.comparison_report import format_difference
from keras_skin.evaluation.report import NOTHING, cited_rows, format_published, format_value, page_templates
from keras_skin.evaluation.reproduction import Line, RowResult, Verdict
from keras_skin.evaluation.seeds import RESAMPLES
from keras_skin.registry import atomic_path
from keras_skin.run_folder import SYNTHETIC_BANNER


@dataclass(frozen=True)
class Reproduction:
    """A reproduced table.

    Attributes:
        title: of the table.
        paper: where it was printed.
        description: a paragraph below the title.
        splits: those that are compared.
        results: one per row, in the table's order.
        verdicts: one per claim.
    """

    title: str
    paper: str
    description: str
    splits: Sequence[str]
    results: Sequence[RowResult]
    verdicts: Sequence[Verdict]

    @property
    def synthetic(self) -> bool:
        """Whether any image was drawn by a program."""
        return any(result.synthetic for result in self.results)

    @property
    def has_protocol(self) -> bool:
        """Whether any row is repeated under the image-level protocol."""
        return any(result.row.has_protocol for result in self.results)


def write_page(path: Path, table: Reproduction) -> None:
    """Writes the page.

    Args:
        path: HTML file to write.
        table: what it shows.
    """
    text = (
        page_templates()
        .get_template("reproduction.html.j2")
        .render(
            table=table,
            runs=[(result.row.label, path) for result in table.results for path in (*result.row.runs, *result.row.protocol_runs)],
            cited=cited_rows(result.row.paper for result in table.results),
            lines_of=lambda result, split: [line for line in result.lines if line.split == split],
            folder=path.parent,
            banner_text=SYNTHETIC_BANNER if table.synthetic else "",
            signed=format_difference,
            resamples=RESAMPLES,
            nothing=NOTHING,
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: Reproduction) -> None:
    """Writes one row per split, row and metric. Rows without a finished run have one line that gives the reason."""
    rows = [
        {
            "row": result.row.label,
            "experiment": result.row.experiment,
            "overrides": " ".join(result.row.overrides),
            "training": result.row.length,
            "departures": "; ".join(departure.text for departure in result.row.departures),
            **_numbers(line),
            "missing": "; ".join(f"{name}: {reason}" for name, reason in result.row.missing.items()),
        }
        for result in table.results
        for line in (*result.lines, *([] if result.lines else [None]))
    ]
    with atomic_path(path) as temporary:
        pd.DataFrame(rows).astype({"n": "Int64", "image_level_n": "Int64"}).to_csv(temporary, index=False)


def format_table(table: Reproduction) -> str:
    """The table as lines of plain ASCII text."""
    lines: list[tuple[str, ...]] = [("row", "metric", "published", "measured", "95 % interval", "seeds", "difference")]
    if table.has_protocol:
        lines[0] += ("image-level", "price of the leak")
    for split in table.splits:
        lines.append((f"[{split}]", *[""] * (len(lines[0]) - 1)))
        for result in table.results:
            label = result.row.label
            for line in (line for line in result.lines if line.split == split):
                lines.append((label, *_cells(line))[: len(lines[0])])
                label = ""
            if result.row.missing:
                lines.append((label, "not finished: " + ", ".join(result.row.missing), *[""] * (len(lines[0]) - 2)))
    widths = [max(len(line[column]) for line in lines if not (column == 1 and line[2] == "")) for column in range(len(lines[0]))]
    lines.insert(1, tuple("-" * width for width in widths))
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, "", *(verdict.sentence for verdict in table.verdicts)]).rstrip()


def _cells(line: Line) -> tuple[str, ...]:
    measured, protocol, price = line.measured, line.protocol, line.price
    limits = measured.ci95 if measured else None
    seeds = "" if measured is None else str(len(measured.values))
    if measured and measured.spread is not None:
        seeds += f" (sd {measured.spread:.4f})"
    leak = NOTHING
    if price is not None:
        leak = format_difference(price.value)
        if price.ci95:
            leak += f" ({format_difference(price.ci95[0])} .. {format_difference(price.ci95[1])})"
    return (
        line.label,
        format_published(line.published),
        format_value(measured.value) if measured else NOTHING,
        f"{format_value(limits[0])} .. {format_value(limits[1])}" if limits else NOTHING,
        seeds or NOTHING,
        NOTHING if line.difference is None else format_difference(line.difference),
        format_value(protocol.value) if protocol else NOTHING,
        leak,
    )


def _numbers(line: Line | None) -> dict[str, object]:
    measured, protocol, price = (line.measured, line.protocol, line.price) if line else (None, None, None)
    low, high = (measured.ci95 if measured else None) or (None, None)
    protocol_low, protocol_high = (protocol.ci95 if protocol else None) or (None, None)
    price_low, price_high = (price.ci95 if price else None) or (None, None)
    return {
        "split": line.split if line else "",
        "task": line.task if line else "",
        "metric": line.metric if line else "",
        "published": line.published if line else None,
        "measured": measured.value if measured else None,
        "ci95_low": low,
        "ci95_high": high,
        "n": measured.n if measured else None,
        "seeds": len(measured.values) if measured else 0,
        "seed_sd": measured.spread if measured else None,
        "seed_values": " ".join(f"{value:.6f}" for value in measured.values) if measured else "",
        "difference": line.difference if line else None,
        "image_level": protocol.value if protocol else None,
        "image_level_ci95_low": protocol_low,
        "image_level_ci95_high": protocol_high,
        "image_level_n": protocol.n if protocol else None,
        "image_level_difference": line.protocol_difference if line else None,
        "leak_price": price.value if price else None,
        "leak_price_ci95_low": price_low,
        "leak_price_ci95_high": price_high,
    }

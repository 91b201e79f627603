"""Formats a check for a terminal, the most severe findings first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from keras_skin.checking.audit import Check
from keras_skin.checking.findings import Finding, counted, rows_of
from keras_skin.checking.shortcuts import Shortcut

WIDTH, INDENT = 100, 10
NAMED = 4
"""Items named below each finding; the page shows more."""


def summary(check: Check) -> str:
    """The result of a check for a terminal, at most about sixty lines."""
    lines = [*_head(check), ""]
    for finding in check.findings:
        lines += _finding(finding)
    if not check.findings:
        lines.append("No findings.")
    lines += ["", *_classes(check)]
    if len(check.complete):
        lines += ["", *_metadata(check)]
    lines += ["", "How well the class is predicted without the lesion (cross-validated by group; 95 % intervals):"]
    for shortcut in check.shortcuts:
        lines += textwrap.wrap(describe(shortcut), WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*lines, "", verdict(check)])


def verdict(check: Check) -> str:
    """One sentence with the result and the numbers of errors and warnings."""
    counts = f"{counted(check.count('error'), 'error')}, {counted(check.count('warning'), 'warning')}"
    return f"{'Passed' if check.passed else 'Failed'}: {counts}. Research software, not a medical device."


def describe(shortcut: Shortcut) -> str:
    """Describes a shortcut in one sentence."""
    if shortcut.not_measured:
        return f"{shortcut.what}: not measured: {shortcut.not_measured}."
    low, high = shortcut.auc_interval
    worst, best = shortcut.accuracy_interval
    scores = (
        f"{shortcut.what}: AUC {shortcut.auc:.2f} ({low:.2f} to {high:.2f}; chance 0.50), "
        f"balanced accuracy {shortcut.accuracy:.2f} ({worst:.2f} to {best:.2f}; chance {shortcut.chance:.2f})"
    )
    strongest = ", ".join(f"{name} (AUC -{drop:.2f})" for name, drop in shortcut.strongest)
    judgement = "well above chance" if shortcut.above_chance else "not well above chance"
    return f"{scores}: {judgement}{f'; strongest: {strongest}' if strongest else ''}."


def _head(check: Check) -> Iterator[str]:
    table = check.records.table
    note = " SYNTHETIC stand-in, not compared with published counts." if check.synthetic else ""
    yield f"{check.name}: {check.info['title']}.{note}"
    yield f"  in {check.folder}"
    masks, groups = int((table["mask"] != "").sum()), table["group_id"].nunique()
    yield f"  {counted(len(table), 'image')}, {counted(masks, 'mask')}, {counted(groups, 'group')} (by patient, lesion or image)"
    yield f"  compared with: {', '.join(check.compared) or 'no other data set'}"
    for sentence in check.records.notes[1:]:
        yield from textwrap.wrap(sentence, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _finding(finding: Finding) -> Iterator[str]:
    first, *rest = textwrap.wrap(finding.title, WIDTH - INDENT)
    yield f"{finding.severity.upper():<{INDENT}}{first}"
    yield from (" " * INDENT + line for line in rest)
    if finding.items and finding.severity != "info":
        names = [item.name + (f": {item.text}" if item.text else "") for item in finding.items[:NAMED]]
        more = f"; and {len(finding.items) - NAMED:,} more" if len(finding.items) > NAMED else ""
        yield from textwrap.wrap("; ".join(names) + more, WIDTH, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT)


def _classes(check: Check) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("split", "class", "here", "share", "in tables", "published")]
    for split, name, count, share, total, official in check.classes.itertuples(index=False):
        percent = "" if name == "all" else f"{share:.1%}"
        rows.append((split, name, f"{count:,}", percent, f"{total:,}", f"{official:,}" if official >= 0 else "-"))
    has_splits = any(row[0] for row in rows[1:])
    yield from _aligned(rows if has_splits else [row[1:] for row in rows], text_columns=2 if has_splits else 1)


def _metadata(check: Check) -> Iterator[str]:
    text = "Metadata: " + "; ".join(
        f"{row['field']} {row['known']:,} known"
        + (f", {row['unknown']:,} unknown" if row["unknown"] else "")
        + (f", {row['blank']:,} blank" if row["blank"] else "")
        for row in rows_of(check.complete)
    )
    yield from textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def _aligned(rows: list[tuple[str, ...]], text_columns: int) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()

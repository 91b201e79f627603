"""`python -m keras_skin.reproduce TABLE --data DIR`: trains the rows of a paper's table, measures them and compares.

Exit codes: 0 every run of the table is finished; 2 a mistake the user can fix (message, no traceback); 3 a run failed (the page
gives the reason); 130 interrupted, with everything saved that the same command needs to continue.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from keras_skin.console import end_program, exit_code, quiet_import
from keras_skin.registry import UserError


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.reproduce",
        description="Train the rows of a paper's table one after the other, and show published beside measured numbers. "
        "The same command continues where it stopped. Research software, not a medical device.",
        epilog="examples:  python -m keras_skin.reproduce --list\n"
        "           python -m keras_skin.reproduce jrl_lite --data ~/skin\n"
        "           python -m keras_skin.reproduce jrl --data ~/skin --seeds 3 --out runs/jrl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", nargs="?", metavar="TABLE", help="table file, or the bare name of a shipped table")
    parser.add_argument("--list", action="store_true", help="list the shipped tables (also without TABLE)")
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("KERAS_SKIN_DATA"),
        help="folder of the data sets, each under its usual name (default: $KERAS_SKIN_DATA)",
    )
    parser.add_argument("--seeds", metavar="N", type=int, help="number of trainings of every row (default: the table's)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the runs, the page and the CSV (default: runs/TABLE)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _reproduce(options), "Interrupted. The same command continues.")


def _reproduce(options: argparse.Namespace) -> int:
    from keras_skin.experiment.tables import load_table, table_titles

    if options.list or options.table is None:
        titles = table_titles()
        width = max(map(len, titles))
        print("\n".join(f"{name:<{width}}  {title}" for name, title in titles.items()))
        return 0
    if options.data is None:
        raise UserError("Where are the data sets? Give --data DIR, or set $KERAS_SKIN_DATA.")
    if options.seeds is not None and options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: expected a number of trainings, at least 1.")
    with quiet_import():
        from keras_skin import workflow
        from keras_skin.evaluation.report import TASKS
        from keras_skin.workflow.reproduction import reproduce
    table = load_table(options.table, TASKS)
    out = options.out or Path("runs") / Path(options.table).stem
    try:
        return 0 if reproduce(table, out, options.data, options.seeds) else 3
    except workflow.RunInterrupted as interruption:
        print(f"{interruption}\nOr continue the whole table: the same command.", file=sys.stderr)
        return interruption.exit_code


if __name__ == "__main__":
    end_program(main())

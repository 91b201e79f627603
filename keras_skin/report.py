"""`python -m keras_skin.report RUN`: writes report.html of a finished run again, from the files of its folder.

Exit codes: 0 done; 2 the folder is no finished run (message, no traceback).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_skin.console import end_program, exit_code


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.report",
        description="Write the report of a finished run again, for example with a newer version of keras_skin.",
        epilog="example:  python -m keras_skin.report runs/jrl_ph2-20260131-101500",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run, or of one fold of a cross-validation")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _write(options.run), "Interrupted; the report is as it was.")


def _write(path: Path) -> None:
    from keras_skin.evaluation.run_report import write_run_report
    from keras_skin.run_folder import RunFolder

    print(f"Report: {write_run_report(RunFolder.open_finished(path))}")


if __name__ == "__main__":
    end_program(main())

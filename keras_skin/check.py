"""`python -m keras_skin.check DATASET --data DIR`: finds the errors in a data set on disk.

Exit codes: 0 no error; 1 an error was found; 2 the check could not run (message, no traceback); 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from keras_skin.console import ProgressBar, end_program, exit_code
from keras_skin.registry import UserError

_EPILOG = """\
severities:
  error     the data are contradictory or incomplete: rows without an image, unreadable files, masks that are empty or of another
            size, conflicting labels, an official split that leaks. Exit code 1.
  warning   usable, but results may mislead: coarse, full or full-frame masks, masks that are not binary, near-duplicates,
            pictures that are also in another data set, a split without images, shortcuts to the class. Exit code 0.
  info      good to know: missing splits, blank metadata, specks and holes in masks.
exit codes: 0 no error; 1 an error; 2 the check could not run (no such data set, a table that cannot be read); 130 interrupted

examples:  python -m keras_skin.check isic2016 --data ~/skin
           python -m keras_skin.check ph2_sample --data ~/skin --html ph2.html
           python -m keras_skin.check ISIC2018 --as isic2018_task1 --data ~/skin --against ham10000"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.check",
        description="Check a data set: files, masks, duplicates, labels, metadata, and how well the class can be predicted "
        "without the lesion. Changes nothing. Research software, not a medical device.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET", help="name of a known data set, or a folder with the layout of one")
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("KERAS_SKIN_DATA"),
        help="folder of the data sets, each under its usual name (default: $KERAS_SKIN_DATA)",
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a self-contained page with pictures of the problems")
    parser.add_argument("--as", metavar="NAME", dest="reader", help="read the folder DATASET as this known data set")
    parser.add_argument(
        "--against",
        metavar="NAME",
        action="append",
        help="look for the same pictures in this data set or folder (may be repeated; default: all data sets in DIR; "
        "'none': compare with no other)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _check(options), "Interrupted; no page was written.")


def _check(options: argparse.Namespace) -> int:
    from keras_skin.checking.places import resolve, same, siblings

    if options.html and options.html.is_dir():
        raise UserError(f"--html {options.html} is a folder, expected a file to write.")
    place = resolve(options.dataset, options.data, options.reader)
    others = [resolve(word, options.data) for word in options.against or () if word != "none"]
    if options.against is None:
        others = siblings(place, options.data)
    elif any(same(other, place) for other in others):
        raise UserError(f"--against {place.reader.name}: a data set is always compared with itself. Name another one.")

    from keras_skin.checking.audit import check_dataset
    from keras_skin.checking.text import summary

    progress = ProgressBar()
    try:
        check = check_dataset(place, others, progress)
    finally:
        progress.clear()
    _print(summary(check))
    if options.html:
        from keras_skin.checking.page import write_page

        try:
            write_page(options.html, check)
        except OSError as error:
            raise UserError(f"--html {options.html} cannot be written: {error.strerror or error}.") from error
        _print(f"Page with pictures: {options.html}")
    return 0 if check.passed else 1


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # head or less has closed the pipe; the page must still be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    end_program(main())

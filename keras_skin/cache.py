"""`python -m keras_skin.cache`: lists and clears the image stores, the predicted masks and unpacked presets.

Exit codes: 0 done; 2 a mistake the user can fix (message, no traceback); 130 interrupted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from keras_skin.console import end_program, exit_code
from keras_skin.data.images.cache import Entry, cache_path, describe_age, describe_bytes, entries, max_bytes, remove
from keras_skin.registry import UserError


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.cache",
        description="List or remove image stores, predicted masks, and unpacked and exported presets. They are created again "
        "when they are needed.",
        epilog="examples:  python -m keras_skin.cache\n           python -m keras_skin.cache --clear",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clear", action="store_true", help="remove everything except what a run is using")
    parser.add_argument(
        "--dir", metavar="DIR", help="the cache folder (default: $KERAS_SKIN_CACHE, else the user's cache folder)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _run(options), "Interrupted.")


def _run(options: argparse.Namespace) -> None:
    folder = Path(options.dir).expanduser() if options.dir else cache_path()
    try:
        stored = entries(folder)
        if not stored:
            print(f"The cache {folder} is empty.")
        elif options.clear:
            _clear(folder, stored)
        else:
            total = describe_bytes(sum(entry.bytes for entry in stored))
            print(f"The cache {folder} holds {total} (image stores: at most {describe_bytes(max_bytes())}):")
            for entry in stored:
                print(f"  {_describe(entry)}")
    except OSError as error:
        raise UserError(f"The cache folder cannot be used: {error}.") from error


def _clear(folder: Path, stored: list[Entry]) -> None:
    freed = 0
    for entry in stored:
        removed = remove(entry)
        freed += entry.bytes if removed else 0
        print(f"{'removed' if removed else 'in use '}  {_describe(entry)}")
    print(f"{describe_bytes(freed)} freed in {folder}.")


def _describe(entry: Entry) -> str:
    images = "" if entry.images is None else f"{entry.images} image{'' if entry.images == 1 else 's'}"
    age = f"used {describe_age(time.time() - entry.last_used)}"
    state = "" if entry.is_complete else "incomplete"
    return f"{entry.path.name[:12]}  {describe_bytes(entry.bytes):>10}  {images:>13}  {age:<20}  {entry.title}  {state}".rstrip()


if __name__ == "__main__":
    end_program(main())

"""`python -m keras_skin.cache`: what the disk cache holds, and emptying it.

Exit codes: 0 done; 2 a mistake the user can mend (message, no traceback).
"""

from __future__ import annotations

import argparse
import sys
import time

from keras_skin.data.images.cache_folder import CacheFolder, Entry, age, gib
from keras_skin.registry import UserError


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.cache",
        description="List the disk cache of decoded images, or empty it. All that it holds can be made again from the data sets.",
        epilog="examples:  python -m keras_skin.cache\n           python -m keras_skin.cache --clear",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clear", action="store_true", help="remove every entry that no run is using")
    parser.add_argument(
        "--dir", metavar="DIR", help="folder of the cache (default: $KERAS_SKIN_CACHE, else the user's cache folder)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        folder = CacheFolder(options.dir)
        if options.clear:
            _clear(folder)
        else:
            _list(folder)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The cache folder cannot be used: {error}.", file=sys.stderr)
        return 2
    return 0


def _list(folder: CacheFolder) -> None:
    entries = folder.entries()
    if not entries:
        print(f"The cache {folder.path} is empty.")
        return
    total = gib(sum(entry.bytes for entry in entries))
    print(f"The cache {folder.path} holds {total} of at most {gib(folder.max_bytes)}:")
    for entry in entries:
        print(f"  {_line(entry)}")


def _clear(folder: CacheFolder) -> None:
    removed, kept = folder.clear()
    if not removed and not kept:
        print(f"The cache {folder.path} is empty already.")
        return
    for entry in removed:
        print(f"removed  {_line(entry)}")
    for entry in kept:
        print(f"kept     {_line(entry)}")
    print(f"{gib(sum(entry.bytes for entry in removed))} freed in {folder.path}.")


def _line(entry: Entry) -> str:
    images = f"{entry.images} image{'' if entry.images == 1 else 's'}"
    used = f"used {age(time.time() - entry.last_used)}"
    state = (
        ("" if not entry.in_use else "in use by a run") if entry.complete else ("half made" if not entry.in_use else "being made")
    )
    return f"{entry.path.name[:12]}  {gib(entry.bytes):>10}  {images:>13}  {used:<20}  {entry.title}  {state}".rstrip()


if __name__ == "__main__":
    sys.exit(main())

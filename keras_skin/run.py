"""`python -m keras_skin.run EXPERIMENT.json`: trains, evaluates, explains and exports one experiment.

Exit codes: 0 done; 2 a mistake the user can fix (message, no traceback); 3 the run failed (the loss is not
finite, a disk is full or read-only, or there is not enough memory); 130 interrupted. After 3 and 130, everything is saved that
--resume needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from keras_skin.console import end_program, exit_code, quiet_import


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.run",
        description="Train, evaluate, explain and export one experiment. Research software, not a medical device.",
        epilog="examples:  python -m keras_skin.run jrl_ph2 --demo\n"
        "           python -m keras_skin.run experiments/jrl_ph2.json --data ~/skin --set train.epochs=10\n"
        "           python -m keras_skin.run --resume runs/jrl_ph2-20260131-101500",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "experiment", nargs="?", metavar="EXPERIMENT.json", help="experiment file, or the bare name of a shipped experiment"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("KERAS_SKIN_DATA"),
        help="folder of the data sets, each under its usual name (default: $KERAS_SKIN_DATA)",
    )
    parser.add_argument(
        "--demo", action="store_true", help="use small synthetic stand-ins for the data sets (no download, takes minutes)"
    )
    parser.add_argument("--out", metavar="DIR", default="runs", help="where to create the run's folder (default: runs)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override one field of the experiment, e.g. train.epochs=2 (may be repeated)",
    )
    parser.add_argument("--dry-run", action="store_true", help="run two batches of every step, including the export")
    parser.add_argument("--resume", metavar="RUN", help="resume the run in this folder after a kill or Ctrl-C")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    problem = _misuse(options)
    if problem:
        print(f"{problem}\nTry: python -m keras_skin.run --help", file=sys.stderr)
        return 2
    # for Ctrl-C during imports; later the workflow handles it
    return exit_code(lambda: _start(options), "Interrupted before the run started.")


def _start(options: argparse.Namespace) -> int:
    from keras_skin.experiment import load_experiment

    if options.resume:
        return _run(lambda workflow: workflow.resume(Path(options.resume), data_dir=options.data))
    experiment = load_experiment(options.experiment, options.overrides, demo=options.demo)
    name = Path(options.experiment).stem
    return _run(
        lambda workflow: workflow.start(
            experiment, name, Path(options.out), data_dir=options.data, demo=options.demo, dry_run=options.dry_run
        )
    )


def _misuse(options: argparse.Namespace) -> str:
    if options.resume:
        flags = [
            flag
            for flag, value in (
                ("EXPERIMENT.json", options.experiment),
                ("--set", options.overrides),
                ("--demo", options.demo),
                ("--dry-run", options.dry_run),
            )
            if value
        ]
        return f"--resume continues a run as it was started; it cannot be combined with {', '.join(flags)}." if flags else ""
    if not options.experiment:
        return "Which experiment? Give a file or the name of a shipped one, for example: python -m keras_skin.run jrl_ph2 --demo"
    if options.demo and options.data and options.data != os.environ.get("KERAS_SKIN_DATA"):
        return "--demo renders its own data; it cannot be combined with --data."
    return ""


def _run(step: Callable[[ModuleType], object]) -> int:
    with quiet_import():
        from keras_skin import workflow
        from keras_skin.training.fit import NonFiniteLoss

    try:
        step(workflow)
    except (workflow.RunInterrupted, workflow.RunFailed) as end:
        print(end, file=sys.stderr)
        return end.exit_code
    except NonFiniteLoss as failure:
        print(failure, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    end_program(main())

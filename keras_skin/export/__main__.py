"""`python -m keras_skin.export MODEL`: exports a finished run or a preset in further editions or as a new version.

Exit codes: 0 done; 2 the run cannot be exported (message, no traceback); 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from keras_skin.console import end_program, exit_code, quiet_import
from keras_skin.export.contract import EDITIONS
from keras_skin.presets.sources import RUN_HELP, locate
from keras_skin.registry import UserError, did_you_mean
from keras_skin.run_folder import PRESET

_EPILOG = """\
editions:
  float32    SavedModel for TensorFlow Serving (every run writes one: saved_model/1)
  bfloat16   the same, computing in bfloat16: faster where the processor supports it
  litert     LiteRT (TensorFlow Lite) with float16 weights, for phones and small computers
  images     SavedModel without strings, for converters such as OpenVINO's
Each edition goes into a folder of its own, as its next version. Its agreement with the trained model is measured on validation
images (test images, if the run has none) and written to its model_card.md.

examples:  python -m keras_skin.export runs/jrl_ph2-20260131-101500 --editions bfloat16 litert
           python -m keras_skin.export jrl_isic_lite --editions litert --out for_phones"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.export",
        description="Export a finished run or a preset. Research software, not a medical device.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="MODEL", help=RUN_HELP)
    parser.add_argument("--editions", nargs="+", metavar="EDITION", required=True, help="editions to write")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder of the editions (default: the run's folder; of a preset ./NAME-export)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _export(options), "Interrupted; unfinished editions were not written.")


def _export(options: argparse.Namespace) -> None:
    unknown = [name for name in options.editions if name not in EDITIONS]
    if unknown:
        problems = [
            f"--editions {name}: unknown edition.{did_you_mean(name, EDITIONS)} Known: {', '.join(EDITIONS)}." for name in unknown
        ]
        raise UserError("\n".join(problems))

    with quiet_import():
        from keras_skin.export.about import describe_agreement
        from keras_skin.workflow.exporting import export_finished
    run = locate(options.run)
    out = options.out or (Path(f"{run.name}-export") if (run / PRESET).is_file() else None)
    for edition, folder, not_measured in export_finished(run, dict.fromkeys(options.editions), out):
        print(f"{edition}: {folder}")
        if not_measured is not None:
            print(f"  agreement not measured: {not_measured}")
        else:
            about = json.loads((folder / "assets" / "model.json").read_text(encoding="utf-8"))
            print(f"  against the trained model: {describe_agreement(about['agreement'])}")


if __name__ == "__main__":
    end_program(main())

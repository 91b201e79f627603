"""`python -m keras_skin.predict MODEL IMAGES...`: writes predictions, masks and overlays for images.

Exit codes: 0 done; 1 done, but some files could not be read; 2 a mistake the user can fix (message, no traceback); 130
interrupted, finished images are saved.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from keras_skin.console import ProgressBar, end_program, exit_code, owner_only, quiet_import
from keras_skin.presets.sources import MODEL_HELP, locate
from keras_skin.registry import UserError, escape_cell

if TYPE_CHECKING:
    import pandas as pd

    from keras_skin.workflow.prediction import ExportedModel, Picture

_LISTED = 20


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.predict",
        description="Predict with a preset or with the exported model of a run. Research software, not a medical device.",
        epilog="writes to a new folder: predictions.csv (class, probabilities, share of the lesion, quality of the picture),\n"
        "masks/ at the size of each upright image, overlays/, skipped.csv with the unreadable files, and\n"
        "metadata_unused.csv with the rows and cells of --metadata that no prediction uses.\n\n"
        "examples:  python -m keras_skin.predict jrl_isic_lite photographs/\n"
        "           python -m keras_skin.predict runs/jrl_ph2-20260131-101500 photographs/\n"
        "           python -m keras_skin.predict runs/tdbn_ham10000-1/saved_model/1 a.jpg b.jpg --metadata patients.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES_OR_FOLDER", type=Path, help="JPEG, PNG or BMP files, or folders of them"
    )
    parser.add_argument(
        "--metadata",
        metavar="FILE.csv",
        type=Path,
        help="clinical fields: a column 'image' and one column per field. An image is named by its path below the named folder "
        "or by the end of that path (a.jpg, patient_7/a.jpg), with or without .jpg; ./a.jpg is the path below the folder only, "
        "and patient_7/ stands for all images of that folder. A row that could mean two images is refused",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="a new folder (default: predictions-DATE-TIME)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _predict(options), "Interrupted before anything was predicted.")


def _predict(options: argparse.Namespace) -> int:
    out = options.out or Path(f"predictions-{datetime.now():%Y%m%d-%H%M%S}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: the folder exists and is not empty, and nothing is overwritten. Name a new folder.")

    with quiet_import():
        from keras_skin.workflow import answers, prediction
    pictures, notes = prediction.find_pictures(options.images)
    model = prediction.open_exported(locate(options.model))
    metadata = answers.read_answers(options.metadata, model, pictures) if options.metadata else None
    if metadata is not None:
        notes += metadata.notes
    elif model.fields:
        notes.append(f"No --metadata: {', '.join(model.fields)} are unknown for all images.")
    if model.about.get("synthetic"):
        notes.insert(0, "SYNTHETIC: this model was trained on synthetic images; its predictions mean nothing.")
    elif model.about.get("banner"):
        notes.insert(0, model.about["banner"])
    for note in notes:
        print(_printable(note))
    try:
        with owner_only():
            out.mkdir(parents=True, exist_ok=True)
            if metadata is not None and metadata.unused:
                _write_rows(out / answers.UNUSED, [answers.UnusedCell._fields, *metadata.unused])
            done, skipped, finished = _write(out, model, pictures, metadata.table if metadata else None, ProgressBar())
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror or error}.") from error
    for name, reason in skipped[:_LISTED]:
        print(_printable(f"skipped {name}: {reason}"), file=sys.stderr)
    if len(skipped) > _LISTED:
        print(f"... and {len(skipped) - _LISTED} more, see {out / 'skipped.csv'}", file=sys.stderr)
    print(f"{done} of {len(pictures)} images predicted, {len(skipped)} skipped: {out / 'predictions.csv'}")
    if not finished:
        print("Interrupted: finished images are saved.", file=sys.stderr)
        return 130
    return 1 if skipped else 0


def _write(
    out: Path, model: ExportedModel, pictures: Sequence[Picture], answers: pd.DataFrame | None, progress: ProgressBar
) -> tuple[int, list[tuple[str, str]], bool]:
    """Predicts and writes batch by batch.

    Returns:
        The number of predicted images, the skipped files with their reasons, and whether the last batch was reached.
    """
    from keras_skin.workflow import prediction

    done, skipped, finished = 0, list[tuple[str, str]](), False
    with _open_table(out / "predictions.csv") as file:
        table = csv.DictWriter(file, prediction.columns(model), extrasaction="ignore")
        table.writerow({name: escape_cell(name) for name in table.fieldnames})
        try:
            for rows in prediction.predict_files(model, pictures, answers, out):
                predictions = [row for row in rows if not row["problem"]]
                table.writerows({key: escape_cell(cell) for key, cell in row.items()} for row in predictions)
                file.flush()
                done += len(predictions)
                skipped += [(row["file"], row["problem"]) for row in rows if row["problem"]]
                progress("Predicting", done + len(skipped), len(pictures))
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            progress.clear()
    if skipped:
        _write_rows(out / "skipped.csv", [("file", "reason"), *skipped])
    return done, skipped, finished


def _write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with _open_table(path) as file:
        csv.writer(file).writerows(map(escape_cell, row) for row in rows)


def _open_table(path: Path) -> TextIO:
    """A new CSV file; bytes of file names that are not UTF-8 are written as `\\udc..`."""
    return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


if __name__ == "__main__":
    end_program(main())

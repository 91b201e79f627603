"""`python -m keras_skin.compare RUN RUN...`: compares finished runs on the same test images.

Exit codes: 0 done; 2 the runs cannot be compared (message, no traceback); 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from keras_skin.console import end_program, exit_code, quiet_import
from keras_skin.registry import UserError

if TYPE_CHECKING:
    import numpy as np

    from keras_skin.data.datasets.originals import Originals
    from keras_skin.evaluation.measured_run import MeasuredRun
    from keras_skin.figures.comparison import LoadOriginal

_EPILOG = """\
what is compared with what:
  RUN RUN...               each run with the first one; runs that differ only in their seed are averaged
  RUN... --against RUN...  the mean of the first runs with the mean of the runs after --against: two recipes, several seeds each
intervals: paired bootstrap over patients, lesions or images, with the same resamples for every run, and over the runs of a side.

examples:  python -m keras_skin.compare runs/unet_isic2016-* runs/jrl_isic2016-* --html compared.html
           python -m keras_skin.compare runs/msfa-1 runs/msfa-2 runs/msfa-3 --against runs/plain-1 runs/plain-2 runs/plain-3
           python -m keras_skin.compare runs/a runs/b --split external/ph2 --out compared"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.compare",
        description="Compare finished runs on the same images: differences with intervals, box plots, curves, outlines. "
        "Research software, not a medical device.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument("--against", nargs="+", metavar="RUN", type=Path, default=[], help="runs to compare the first runs with")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a self-contained page with figures")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for comparison.json, comparison.html and figures/")
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        default=os.environ.get("KERAS_SKIN_DATA"),
        help="folder of the data sets, for pictures of the images (default: $KERAS_SKIN_DATA, else the folder of the first run)",
    )
    parser.add_argument("--split", metavar="SPLIT", default="test", help="test (default), validation or external/NAME")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _compare(options), "Interrupted.")


def _compare(options: argparse.Namespace) -> None:
    from keras_skin.evaluation import comparison_report
    from keras_skin.evaluation.comparison import compare, group_by_seed, name_sides
    from keras_skin.evaluation.measured_run import read_runs
    from keras_skin.figures.comparison import draw_figures

    if options.html and options.html.is_dir():
        raise UserError(f"--html {options.html} is a folder, expected a file to write.")
    if options.out:
        comparison_report.require_new(options.out)
    runs = read_runs([*options.runs, *options.against], options.split)
    if options.against:
        count = len(options.runs)
        sides, reference = name_sides([runs[:count], runs[count:]]), 1
    else:
        sides, reference = group_by_seed(runs), 0
    comparison = compare(sides, reference)
    originals = _originals(runs[0], options.data)
    has_figures = bool(options.html or options.out)
    notes = [
        f"Outlines are not drawn: {problem}" for problem in originals.problems if has_figures and "dsc" in runs[0].predictions
    ]
    comparison = comparison_report.with_notes(comparison, notes, originals.synthetic)
    print(comparison_report.format_comparison(comparison))
    load = None if originals.problems else _loader(originals)
    try:
        if options.out:
            comparison_report.write_folder(options.out, comparison, lambda sides, folder: draw_figures(sides, folder, load))
        if options.html:
            with tempfile.TemporaryDirectory() as folder:
                pictures = draw_figures(comparison, Path(folder), load)
                comparison_report.write_page(options.html, comparison, pictures)
    except OSError as error:
        raise UserError(f"{error.filename or options.html or options.out}: {error.strerror or error}.") from error
    for kind, path in (("Page", options.html), ("Folder", options.out)):
        if path:
            print(f"{kind}: {path}")


def _originals(run: MeasuredRun, data_dir: Path | None) -> Originals:
    from keras_skin.data.datasets.originals import find_originals

    images = run.predictions[["dataset", "image_id"]].itertuples(index=False, name=None)
    return find_originals(run.settings, images, run.folder.data_dir if run.folder.synthetic else data_dir or run.folder.data_dir)


def _loader(originals: Originals) -> LoadOriginal:
    import numpy as np

    def load(dataset: str, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        with quiet_import():  # only pictures need TensorFlow
            from keras_skin.data.images.load import load_image, load_mask
        image, mask = originals.files[dataset, image_id]
        picture = load_image(image).numpy().astype("uint8")
        return picture, load_mask(mask).numpy()[..., 0] > 0.5 if mask else np.zeros(picture.shape[:2], bool)

    return load


if __name__ == "__main__":
    end_program(main())

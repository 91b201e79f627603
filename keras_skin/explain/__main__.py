"""`python -m keras_skin.explain MODEL IMAGE...`: writes a page about one patient, with predictions and their explanations.

Exit codes: 0 done; 2 failed (message, no traceback); 130 interrupted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from keras_skin.console import end_program, exit_code, owner_only, quiet_import
from keras_skin.presets.sources import RUN_HELP, locate

METHODS = (
    "grad_cam",
    "grad_cam++",
    "score_cam",
    "integrated_gradients",
    "smoothgrad",
    "occlusion",
    "class_masks",
    "metadata_shap",
)
DEFAULT = ("grad_cam", "class_masks", "metadata_shap")

_EPILOG = """\
methods:
  grad_cam, grad_cam++, score_cam                 where a feature layer holds evidence for a class
  integrated_gradients, smoothgrad, occlusion     which pixels or patches matter
  class_masks                                     which part of the lesion speaks for each class (models with masks)
  metadata_shap                                   what each clinical field adds (models with metadata)
The page explains the predicted class and those that the run's experiment names. Clinical fields without an answer count as
unknown.

examples:  python -m keras_skin.explain jrl_isic_lite mole.jpg
           python -m keras_skin.explain runs/jrl_ph2-20260131-101500 mole.jpg
           python -m keras_skin.explain runs/tdbn_ham10000-1 mole.jpg --metadata age=54 --metadata site=back --html mole.html
           python -m keras_skin.explain runs/msfa_ham10000-1 a.jpg b.jpg --methods grad_cam occlusion
           python -m keras_skin.explain runs/dual_task_ham10000-1 mole.jpg --out mole"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.explain",
        description="Write a page about one patient: images, masks, probabilities, heat maps, and what clinical metadata add. "
        "Research software, not a medical device.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="MODEL", help=RUN_HELP)
    parser.add_argument("images", nargs="+", metavar="IMAGE", type=Path, help="JPEG, PNG or BMP files of one patient")
    parser.add_argument(
        "--metadata",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="a clinical field, for example site=back (may be repeated)",
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", default=None, help=f"explanations to write (default: {' '.join(DEFAULT)})"
    )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, default=Path("explained.html"), help="the page to write (default: explained.html)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="a new folder that keeps the page's pictures, the raw maps, and the mask of each class (default: none is kept)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _explain(options), "Interrupted; nothing was written.")


def _explain(options: argparse.Namespace) -> None:
    answers = _check(options)
    from keras_skin.registry import UserError

    with quiet_import():
        from keras_skin.evaluation.patient_page import write_patient_page
        from keras_skin.workflow.patient import explain_patient
    with owner_only(), tempfile.TemporaryDirectory() as temporary:
        pictures = options.out or Path(temporary)
        page = explain_patient(locate(options.run), options.images, answers, options.methods or DEFAULT, pictures)
        try:
            write_patient_page(options.html, page)
        except OSError as error:
            raise UserError(f"--html {options.html} cannot be written: {error.strerror or error}.") from error
    for image in page.images:
        chances = sorted(image.probabilities.items(), key=lambda item: -item[1])
        print(f"{image.name}: {', '.join(f'{name} {value:.3f}' for name, value in chances) or 'no classes'}")
    for note in page.notes:
        print(note)
    print(f"Page: {options.html}")
    if options.out:
        print(f"Pictures, maps and masks: {options.out}")


def _check(options: argparse.Namespace) -> dict[str, str]:
    """Returns the clinical answers; reports every mistake of the command line at once, before the heavy imports."""
    from keras_skin.registry import UserError, did_you_mean

    problems, answers = [], {}
    for text in options.metadata:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            problems.append(f"--metadata {text}: expected FIELD=VALUE, for example site=back.")
        elif name.strip() in answers:
            problems.append(f"--metadata {name.strip()} is given twice.")
        answers[name.strip()] = value.strip()
    for method in options.methods or ():
        if method not in METHODS:
            problems.append(f"--methods {method}: no such method.{did_you_mean(method, METHODS)} Valid: {', '.join(METHODS)}.")
    problems += [f"{path}: no such file." for path in options.images if not path.is_file()]
    if options.out and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        problems.append(
            f"--out {options.out}: the folder exists and is not empty, and nothing is overwritten. Name a new folder."
        )
    if options.html.is_dir():
        problems.append(f"--html {options.html} is a folder, expected a file name.")
    if problems:
        raise UserError("\n".join([*problems, "Try: python -m keras_skin.explain --help"]))
    return answers


if __name__ == "__main__":
    end_program(main())

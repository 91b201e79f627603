"""Makes a preset from a finished run: its weights in half precision, its experiment, its numbers and a card.

    python tools/make_preset.py runs/jrl_isic_lite-20260131-101500 jrl_isic_lite

It refuses runs that were trained on images whose terms forbid it, or on a test image of ISIC 2016. docs/presets.md describes
the files. Exit codes: 0 done; 2 refused (message, no traceback).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from keras_skin.console import exit_code, quiet_import
from keras_skin.experiment import Experiment, load_experiment, shipped_experiments
from keras_skin.experiment.changes import differences
from keras_skin.presets.files import CARD, RUN_FILES, WEIGHTS, check_preset, halve_weights, write_manifest
from keras_skin.presets.sources import NAME
from keras_skin.registry import UserError, atomic_path, shorten
from keras_skin.run_folder import METADATA, SEGMENTER, RunFolder
from keras_skin.training.monitor import LAST
from keras_skin.version import __version__

ROOT = Path(__file__).resolve().parent.parent
TEST_IDS = ROOT / "tools" / "isic2016_test_ids.txt"
"""The numbers of the 379 test images of ISIC 2016. Some of them are training images of ISIC 2017."""
COPIED = tuple(name for name in RUN_FILES if name not in ("run.json", WEIGHTS))
IMAGES = 16
"""Images on which the rounding of the weights is measured."""
MOST_ROUNDING = 0.02
"""Largest change of a probability by rounding the weights that a preset may have."""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument("name", metavar="NAME", help="name of the preset, for example jrl_isic_lite")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=ROOT / "keras_skin" / "presets",
        help="where the folder NAME is made (default: among those of the package)",
    )
    parser.add_argument(
        "--own-data", action="store_true", help="the images of csv_folder are yours, and the model may be passed on"
    )
    parser.add_argument("--for-tests", action="store_true", help="accept a demo or a dry run; its predictions mean nothing")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _make(options), "Interrupted; nothing was written.")


def _make(options: argparse.Namespace) -> None:
    folder = make_preset(options.run, options.name, options.out, options.own_data, options.for_tests)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"Preset: {folder} ({size / 1e6:.1f} MB). Read its card: {folder / CARD}")
    print(f"To pass it on: python -m zipfile -c {folder.name}.zip {folder}; sha256sum {folder.name}.zip")


def make_preset(path: Path, name: str, out: Path, own_data: bool = False, for_tests: bool = False) -> Path:
    """Makes the preset `out/name` from a finished run.

    Args:
        path: folder of the run.
        name: of the preset.
        out: the folder of presets.
        own_data: whether the images of `csv_folder` belong to the user.
        for_tests: whether a demo or a dry run is accepted.

    Returns:
        The preset's folder.

    Raises:
        UserError: listing every reason why the run cannot become a preset.
    """
    target = out / name
    if not NAME.fullmatch(name):
        raise UserError(f"The name '{name}' is invalid: expected letters, digits, '_', '-' and '.', for example jrl_isic_lite.")
    if target.exists():
        raise UserError(f"{target} exists, and nothing is overwritten. Remove it, or choose another name.")
    run = RunFolder.open_finished(path)
    problems = [*_problems(run, own_data, for_tests)]
    if problems:
        raise UserError("\n".join([f"'{path}' cannot become a preset:", *(f"  - {problem}" for problem in problems)]))

    with quiet_import():
        from keras_skin.workflow.exporting import card_facts
        from keras_skin.workflow.opened_run import load_run
    with atomic_path(target) as temporary:
        copy_run(run, temporary)
        if (run / METADATA).is_file():
            shutil.copyfile(run / METADATA, temporary / METADATA)
        if run.experiment.cuts_lesions:
            copy_run(RunFolder(run / SEGMENTER), temporary / SEGMENTER)
            digest = RunFolder(temporary / SEGMENTER).weights_sha256
            record = {**run.segmenter_record, "weights_sha256": digest}
            RunFolder(temporary).write_json(f"{SEGMENTER}/record.json", record)
        original, rounded = load_run(path), load_run(temporary)
        rounding = measure_rounding(original, rounded)
        if max(rounding["differences"].values()) > MOST_ROUNDING:
            raise UserError(
                f"Half precision changes the predictions too much: {describe_rounding(rounding)}. At most {MOST_ROUNDING} is "
                "accepted. Is a weight not finite, or a normalization without statistics?"
            )
        experiment = run.experiment
        facts = {
            "name": name,
            "title": experiment.title,
            "made_with": {"keras_skin": __version__, **run.read_json("environment.json").get("packages", {})},
            "run": run.path.resolve().name,
            "classes": list(run.classes),
            "image_size": list(experiment.image_size),
            "model": {"name": experiment.model.name, **experiment.model.arguments},
            "inputs": list(rounded.model.input),
            "outputs": list(rounded.model.output),
            "parameters": rounded.model.count_params(),
            "rounding": rounding,
        }
        from_run = card_facts(original)
        (temporary / CARD).write_text(write_card(run, facts, from_run), encoding="utf-8")
        write_manifest(temporary, {**facts, "trained_on": from_run["trained_on"], "terms": from_run["terms"]})
        check_preset(temporary)
    return target


def copy_run(run: RunFolder, target: Path) -> None:
    """Copies the files of a run that a preset needs: without paths of this machine, and with weights in half precision."""
    (target / WEIGHTS).parent.mkdir(parents=True)
    for name in COPIED:
        shutil.copyfile(run / name, target / name)
    if run.experiment.model.init:  # a preset depends on no other model, and lists all images that it was fitted on
        from keras_skin.workflow.segmenter import fitted_images

        settings = json.loads(run.experiment.to_json())
        settings["model"]["init"] = None
        settings.get("changes", {}).pop("model.init", None)
        RunFolder(target).write_json("experiment.json", settings)
        own = run.splits
        others = fitted_images(run).assign(split="train")
        RunFolder(target).write_table("splits.csv", pd.concat([own, others]).drop_duplicates(["dataset", "image_id"]))
    halve_weights(run.best_weights, target / WEIGHTS)
    RunFolder(target).write_json("run.json", {**run.record, "data_dir": None})


def measure_rounding(original: Any, rounded: Any) -> dict[str, Any]:
    """The largest differences between the predictions of a run and of its preset.

    Returns:
        `images`: their number and kind; `differences`: for `label` and `mask` the largest difference of a probability.
    """
    import keras
    import numpy as np

    images, kind = _images(original)
    generator = np.random.default_rng(0)
    inputs = {
        name: images if len(tensor.shape) == 4 else generator.random((len(images), tensor.shape[1]), dtype=np.float32)
        for name, tensor in original.model.input.items()
    }
    before, after = (run.model.predict(inputs, batch_size=4, verbose=0) for run in (original, rounded))
    functions = {"label": keras.ops.softmax, "mask": keras.ops.sigmoid}
    differences = {}
    for output, function in functions.items():
        if output in before:
            one, other = (np.asarray(function(logits[output])) for logits in (before, after))
            differences[output] = float(np.max(np.abs(one - other)))
    return {"images": len(images), "kind": kind, "differences": differences}


def describe_rounding(rounding: Mapping[str, Any]) -> str:
    """One sentence about `measure_rounding`, without a full stop."""
    parts = [f"{name} probabilities by at most {value:.1g}" for name, value in rounding["differences"].items()]
    return f"{' and '.join(parts)}, on {rounding['images']} {rounding['kind']} images"


def write_card(run: RunFolder, facts: Mapping[str, Any], from_run: Mapping[str, Any]) -> str:
    """The card: what the model is, what it was trained on and under which terms, its measured numbers and its limits."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from keras_skin.data.datasets import readers

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    trained = run.splits.query("split == 'train'")
    return environment.get_template("preset_card.md.j2").render(
        facts=facts,
        run=from_run,
        experiment=run.experiment,
        marks=_marks(run),
        warning=run.warning,
        training=describe_training(run),
        changes=describe_changes(run.experiment),
        class_counts={name: int((trained["label"] == name).sum()) for name in run.classes},
        rounding=describe_rounding(facts["rounding"]),
        licences=[readers.get(name).info.get("licence") for name in from_run["trained_on"]],
        fields=[field["name"] for field in run.read_json(METADATA)["fields"]] if (run / METADATA).is_file() else [],
    )


def describe_training(run: RunFolder) -> str:
    """How long the run was trained."""
    history, train = run.history, run.experiment.train
    splits = run.splits["split"].value_counts()
    steps = f" of {train.steps_per_epoch} batches" if train.steps_per_epoch else ""
    monitors = " and ".join([train.monitor] if isinstance(train.monitor, str) else train.monitor)
    minutes = float(history["seconds"].sum()) / 60 if "seconds" in history else 0.0
    initial = run.record.get("init")
    start = f", from the weights of {initial['name']}" if initial else ""
    chosen = f"the best epoch was chosen by {monitors} on {splits.get('validation', 0)} validation images"
    if train.monitor == LAST:
        chosen = "the last epoch was kept"
    return f"{len(history)} of {train.epochs} epochs{steps} of {train.batch_size} images ({minutes:.0f} minutes){start}; {chosen}"


def describe_changes(experiment: Experiment) -> list[str]:
    """The settings that differ from the shipped experiment of the same title; one sentence if there is none."""
    for name in shipped_experiments():
        shipped = load_experiment(name)
        if shipped.title == experiment.title:
            differing = differences(*(json.loads(item.to_json()) for item in (experiment, shipped)))
            differing.pop("model.init", None)  # `describe_training` names the initial weights
            changes = [f"`{key}`: {now} (shipped: {before})" for key, (now, before) in sorted(differing.items())]
            return [f"The experiment is `{name}`{', as shipped' if not changes else ', with other settings'}.", *changes]
    return ["The experiment is not one that the package ships."]


def _problems(run: RunFolder, own_data: bool, for_tests: bool) -> Iterator[str]:
    if run.folds:
        yield "it is a cross-validation; a preset has one model. Name one of its folds, or another run."
    marks = _marks(run)
    if marks and not for_tests:
        yield f"it is {' and '.join(marks)}: its predictions mean nothing. Train on images, or add --for-tests."
    settings = run.experiment.segmenter
    if settings is not None and settings.masks:
        yield "its lesions are cut out with the data set's own masks, which a user's image has not. Train it with a segmenter."
    folders = [run, *([RunFolder(run / SEGMENTER)] if run.experiment.cuts_lesions and (run / SEGMENTER).is_dir() else [])]
    if settings is not None and settings.has_model and len(folders) == 1:
        yield f"its folder lacks {SEGMENTER}/, the model that cuts out the lesions."
    for folder in folders:
        if not folder.synthetic:
            what = "it" if folder is run else "its segmenter"
            yield from (f"{what} {problem}" for problem in _forbidden(folder, own_data))


def _forbidden(run: RunFolder, own_data: bool) -> Iterator[str]:
    """Why the terms of the images that a run was fitted on, or the test images of ISIC 2016, forbid a preset."""
    from keras_skin.data.datasets import readers
    from keras_skin.data.datasets.records import bare_id
    from keras_skin.workflow.segmenter import fitted_images

    fitted = fitted_images(run)
    for dataset in sorted(fitted["dataset"].unique()):
        info = readers.get(dataset).info
        licence = info.get("licence", readers.Licence.OWN)
        if licence == readers.Licence.NON_COMMERCIAL:
            yield f"was trained on {dataset}, whose terms forbid it: {info['terms']}. Train on other data sets."
        if licence == readers.Licence.OWN and not own_data:
            yield f"was trained on {dataset}: only you know its terms. If the images are yours, add --own-data."
    numbers = TEST_IDS.read_text(encoding="utf-8").split()
    test_ids = {f"ISIC_{int(number):07d}" for number in numbers}
    tested = sorted(test_ids & {bare_id(image_id) for image_id in fitted["image_id"]})
    if tested:
        listed = ", ".join(shorten(tested, 5))
        yield f"was fitted on {len(tested)} test images of ISIC 2016 ({listed}). Keep them out of training and validation."


def _marks(run: RunFolder) -> list[str]:
    marks = (("a SYNTHETIC demo", run.synthetic), ("a dry run", run.options.dry_run))
    return [text for text, is_set in marks if is_set]


def _images(run: Any) -> tuple[Any, str]:
    """Images of the model's size: of the validation split, or the first tested one, where the data are still here, drawn ones
    otherwise."""
    import numpy as np

    from keras_skin.data.datasets.stand_ins import drawing
    from keras_skin.data.images.load import load_image
    from keras_skin.evaluation.evaluate import tested_splits
    from keras_skin.workflow.prepare import read_rows

    size, table = run.experiment.image_size, run.splits
    split = tested_splits(table)[0]
    try:
        rows = read_rows(run.experiment, run.data_dir, table[table["split"] == split].head(IMAGES))
    except UserError:
        rows = table[:0]
    if len(rows):
        return np.stack([load_image(file, size).numpy() for file in rows["image"]]), split
    generator = np.random.default_rng(0)
    pictures = [drawing.draw_lesion(generator, size, float(number % 2))[0] for number in range(IMAGES)]
    return np.stack(pictures).astype(np.float32), "drawn"


if __name__ == "__main__":
    sys.exit(main())

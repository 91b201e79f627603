"""Images of one patient and a finished run: predictions, and explanations of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.data.images.decode import decode_image
from keras_skin.data.images.files import BadImage, check_image
from keras_skin.data.images.load import model_image, segmented_image
from keras_skin.data.metadata import MetadataEncoder
from keras_skin.evaluation.explanations import doubts
from keras_skin.evaluation.patient_page import PatientImage, PatientPage
from keras_skin.evaluation.report import Picture
from keras_skin.explain.attribution_files import write_waterfall
from keras_skin.explain.callback import CAMS, SHAP_BACKGROUND, ExplainCallback
from keras_skin.explain.class_specific import CLASS_MASK
from keras_skin.explain.overlay import overlay, write_png
from keras_skin.explain.saliency import TITLES
from keras_skin.explain.samples import ExplainSample, file_name, folder_names, stack_inputs, write_bytes
from keras_skin.explain.shap_values import MetadataShap
from keras_skin.explain.views import predict
from keras_skin.registry import UserError, did_you_mean
from keras_skin.workflow.explaining import EXPLAIN
from keras_skin.workflow.lesions import lesion_masks
from keras_skin.workflow.opened_run import Run, load_run

SHAP = "metadata_shap"
CLASS_MASKS = "class_masks"
NO_BACKGROUND = f"No attributions of the metadata: the run has no training images for them ({EXPLAIN}/{SHAP_BACKGROUND})."


def explain_patient(
    folder: Path, files: Sequence[Path], answers: Mapping[str, str], methods: Sequence[str], pictures: Path
) -> PatientPage:
    """Predicts and explains the images of one patient.

    Args:
        folder: a finished run.
        files: images of the patient.
        answers: clinical field -> value; fields that are not named are not known.
        methods: kinds of maps, those of `CAMS` and of tf-explain, `class_masks` and `metadata_shap`.
        pictures: a folder for the page's pictures.

    Raises:
        UserError: if the run, an image or the metadata cannot be used.
    """
    _readable(files)
    run = load_run(folder)
    metadata = _metadata(run.metadata, answers)
    contents = [path.read_bytes() for path in files]
    inputs_and_lesions = [model_inputs(run, content, metadata) for content in contents]
    samples = [
        ExplainSample(path.stem, inputs, image=decode_image(content).numpy(), metadata=metadata)
        for path, content, (inputs, _) in zip(files, contents, inputs_and_lesions, strict=True)
    ]
    predictions = predict(run.predictor, stack_inputs(samples))
    outlines = list(predictions["mask"]) if "mask" in predictions else [lesion for _, lesion in inputs_and_lesions]
    shown = [[_outlined(sample, outlines[row], pictures / f"{row}.png")] for row, sample in enumerate(samples)]
    for maps in _maps(run, samples, methods, pictures):
        for of_image, more in zip(shown, maps, strict=True):
            of_image += more
    names = folder_names([sample.image_id for sample in samples])
    notes = []
    if metadata is not None:
        unknown = [name for name, answer in metadata.items() if not answer]
        notes += [f"Not known of this patient: {', '.join(unknown)}."] if unknown else []
        explainer = metadata_explainer(run) if SHAP in methods else None
        if explainer is not None:
            for of_image, picture in zip(shown, _attributions(run, explainer, samples, pictures / SHAP), strict=True):
                of_image.append(picture)
        elif SHAP in methods:
            notes.append(NO_BACKGROUND)
    images = [
        PatientImage(
            path.name,
            of_image,
            dict(zip(run.classes, map(float, predictions["label"][row]), strict=True)) if "label" in predictions else {},
            _class_masks(run, names[row], pictures),
        )
        for row, (path, of_image) in enumerate(zip(files, shown, strict=True))
    ]
    return PatientPage(run.headline, run.path.name, images, metadata, notes, doubts(run.metrics), run.banner)


def model_inputs(
    run: Run, contents: bytes, metadata: Mapping[str, str] | None
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The inputs of the run's model for one image.

    Args:
        run: a finished run.
        contents: of a JPEG, PNG or BMP file.
        metadata: every clinical field with its answer, "" where it is unknown; None for a model without metadata.

    Returns:
        inputs: of the model, without the batch axis.
        lesion: the segmenter's mask, (h, w, 1) of 0 and 1; None if the model takes no segmented image.

    Raises:
        UserError: if nothing can cut the lesion out.
    """
    image, lesion = _preprocessed(run, contents), None
    inputs = {"image": image}
    if "segmented_image" in run.model.input:
        lesion = _lesion(run, contents)
        inputs["segmented_image"] = segmented_image(image, lesion).numpy()
    if run.metadata is not None and metadata is not None:
        inputs["metadata"] = run.metadata.transform(pd.DataFrame([metadata]))[0]
    return {name: inputs[name] for name in run.model.input}, lesion


def metadata_explainer(run: Run, by_column: bool = False) -> MetadataShap | None:
    """Attributes the logits of the run's model to the clinical fields, relative to training images that the run saved.

    Args:
        run: a finished run, or one that has made its explanations.
        by_column: attribute them to the columns of the encoded metadata, such as `elevation = True`, instead.

    Returns:
        None if the model takes no clinical fields, or the run saved no images.
    """
    file = run / EXPLAIN / SHAP_BACKGROUND
    if run.metadata is None or not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            background = [arrays[name] for name in arrays.files]
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged, or another program wrote it. Restore it from a backup.") from error
    columns = run.metadata.column_names if by_column else run.metadata.field_of_columns
    return MetadataShap(run.model, background, columns, run.metadata.availability_columns, run.experiment.train.seed)


def _readable(files: Sequence[Path]) -> None:
    problems = []
    for path in files:
        try:
            check_image(path)
        except BadImage as error:
            problems.append(f"{path} cannot be used: {error}")
    if problems:
        raise UserError("\n".join(problems))


def _metadata(encoder: MetadataEncoder | None, answers: Mapping[str, str]) -> dict[str, str] | None:
    """Every clinical field of the model with its answer, "" where it is unknown."""
    if encoder is None:
        if answers:
            raise UserError(f"This run's model takes no clinical metadata, but --metadata names {', '.join(answers)}.")
        return None
    fields = {field.name: field for field in encoder.fields}
    problems = [
        f"--metadata {name}: the model has no such field.{did_you_mean(name, fields)} It has: {', '.join(fields)}."
        for name in answers
        if name not in fields
    ]
    for name, answer in answers.items():
        field = fields.get(name)
        if field is not None and field.kind == "categorical" and answer and answer not in field.values:
            problems.append(
                f"--metadata {name}={answer}: not among the answers of the training part.{did_you_mean(answer, field.values)} "
                f"Known: {', '.join(field.values)}."
            )
    lacking = [name for name in fields if not answers.get(name)]
    if encoder.missing == "drop" and lacking:
        problems.append(f"This model was trained on complete metadata; also give {', '.join(lacking)}.")
    if problems:
        raise UserError("\n".join(problems))
    return {name: answers.get(name, "") for name in fields}


def _lesion(run: Run, contents: bytes) -> np.ndarray:
    if run.segmenter is None:
        raise UserError(
            "This run's model takes lesions cut out with the data set's own masks, which a new image does not have: "
            "train it with segmenter.run or segmenter.preset to explain new images."
        )
    return lesion_masks(run.segmenter.predictor)(_preprocessed(run.segmenter, contents)[None]).numpy()[0]


def _preprocessed(run: Run, contents: bytes) -> np.ndarray:
    size = run.experiment.image_size
    return model_image(decode_image(contents, size), size, run.preprocessing).numpy()


def _outlined(sample: ExplainSample, mask: np.ndarray | None, path: Path) -> Picture:
    write_bytes(path, write_png(overlay(sample.picture, predicted_mask=mask, width=480)))
    return Picture(path, "The image, with the predicted outline in magenta." if mask is not None else "The image.")


def _maps(run: Run, samples: Sequence[ExplainSample], methods: Sequence[str], folder: Path) -> Iterator[list[list[Picture]]]:
    """Pictures of each image, one list per kind of map."""
    further = [name for name in methods if name in TITLES] if "label" in run.model.output else []
    cams = [name for name in methods if name in CAMS]
    for number, cam in enumerate(cams or ["grad_cam"] * bool(further or CLASS_MASKS in methods)):
        explainer = ExplainCallback(
            samples,
            folder / _stem(cam),
            run.classes,
            explain_classes=run.experiment.explain.classes,
            layers=run.experiment.explain.layer,
            cam=cam,  # type: ignore[arg-type]
            methods=further if number == 0 else (),
            class_masks=number == 0 and CLASS_MASKS in methods,
            measure=False,
        )
        explainer.explain(run.model)
        shown = (*(_stem(name) for name in cams[number : number + 1]), *further)
        folders = [explainer.folder / name for name in folder_names([sample.image_id for sample in samples])]
        files = [[file for file in sorted(path.glob("*.png")) if file.name.startswith(shown)] for path in folders]
        yield [[Picture(file, _caption(file)) for file in of_image] for of_image in files]


def _class_masks(run: Run, name: str, folder: Path) -> dict[str, Path]:
    """Pictures of the mask of each class in the folder of one image, by class; {} where there are none."""
    files = {of_class: folder.glob(f"*/{name}/{CLASS_MASK}_{file_name(of_class)}_overlay.png") for of_class in run.classes}
    return {of_class: file for of_class, matches in files.items() for file in matches}


def _stem(cam: str) -> str:
    return cam.replace("++", "_plus_plus")


def _caption(file: Path) -> str:
    names = {_stem(name): title for name, title in (*CAMS.items(), *TITLES.items())}
    stem = max((name for name in names if file.stem.startswith(name)), key=len)
    return f"{names[stem]}: {file.stem.removeprefix(stem).strip('_').replace('_', ' ')}"


def _attributions(run: Run, explainer: MetadataShap, samples: Sequence[ExplainSample], folder: Path) -> list[Picture]:
    """Waterfall figures of each image's predicted class."""
    values = explainer.explain(stack_inputs(samples))
    pictures = []
    for row, sample in enumerate(samples):
        index = int(values.logits[row].argmax())
        file = write_waterfall(folder / str(row), values, row, index, sample, run.classes)
        pictures.append(Picture(file, f"SHAP values: contributions to the logit of {run.classes[index]}."))
    return pictures

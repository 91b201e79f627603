"""The content of the page: the fields of the form, and the result for one upload."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_skin.data.images.files import BadImage, decode_rgb, read_header
from keras_skin.data.images.quality import quality_problems
from keras_skin.data.metadata.encoder import LARGEST, is_number
from keras_skin.explain.grad_cam import NO_EVIDENCE, normalise
from keras_skin.explain.overlay import overlay, write_png
from keras_skin.export.contract import EXPLAIN, IMAGE_BYTES, SERVING_DEFAULT
from keras_skin.registry import did_you_mean
from keras_skin.serving.attributions import Contributions, RunExtras
from keras_skin.serving.limits import Refused, check_images
from keras_skin.serving.served import Served
from keras_skin.workflow.prediction import NO_LESION, ExportedModel, small_image

_WIDTH, _HEIGHT = 240, 960
"""Smaller images are drawn larger, up to one of these sides."""


@dataclass(frozen=True)
class FormField:
    """A clinical field of the form.

    Attributes:
        name: name of the model's input.
        kind: `"numeric"` or `"categorical"`.
        values: the values in the training split; empty if the export does not list them.
        span: the lowest and highest number in the training split, None if the export does not have them.
        is_required: whether the model needs an answer.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    span: tuple[float, float] | None = None
    is_required: bool = False

    @property
    def label(self) -> str:
        """The name for people."""
        text = self.name.replace("_", " ")
        return text[:1].upper() + text[1:]

    def problem(self, answer: str) -> str:
        """Describes what is wrong with an answer; "" if it is valid."""
        if not answer:
            return f"{self.label} is required: this model was trained on complete answers." if self.is_required else ""
        if self.kind == "numeric" and not is_number(answer):
            return f"{self.label} is {_quote(answer)}; expected a number from 0 to {LARGEST:,.0f}, or nothing if it is unknown."
        if self.values and answer not in self.values:
            choices = ", ".join(self.values)
            return f"{self.label} is {_quote(answer)}; expected one of {choices}, or nothing.{did_you_mean(answer, self.values)}"
        return ""


@dataclass(frozen=True)
class PagePicture:
    """A picture on the page: a data URL, its description in words, and its caption."""

    source: str
    alternative: str
    caption: str


@dataclass(frozen=True)
class Result:
    """The result for one upload.

    Attributes:
        name: the file's name.
        label: the predicted class, "" for a model without classes.
        probabilities: class -> probability, in the order of the classes.
        remarks: problems with the quality of the picture.
        lesion_share: share of the picture that is lesion; None for a model without masks.
        answers: clinical field -> answer, "" for unknown.
        pictures: the image with its outline, then heat maps.
        contributions: SHAP values of the clinical fields, None if unavailable.
    """

    name: str
    label: str
    probabilities: Mapping[str, float]
    remarks: Sequence[str]
    lesion_share: float | None
    answers: Mapping[str, str]
    pictures: Sequence[PagePicture]
    contributions: Contributions | None = None


def form_fields(model: ExportedModel, complete: bool = False) -> list[FormField]:
    """The clinical fields that a model takes, all of them required if `complete`."""
    metadata = model.about.get("metadata") or {}
    fields = []
    for name, kind in model.fields.items():
        about = metadata.get(name, {})
        span = (about["low"], about["high"]) if about.get("high") is not None else None
        fields.append(FormField(name, kind, tuple(about.get("values", ())), span, complete))
    return fields


def check_answers(fields: Sequence[FormField], entries: Mapping[str, str]) -> dict[str, str]:
    """Checks the entries of a form and returns the answer to every field, "" for unknown.

    Raises:
        Refused: 400 with every problem.
    """
    names = [field.name for field in fields]
    expected = f"It takes: {', '.join(names)}." if names else "It takes an image alone."
    problems = [
        f"The model has no field {_quote(name)}.{did_you_mean(name, names)} {expected}" for name in entries if name not in names
    ]
    answers = {name: entries.get(name, "").strip() for name in names}
    problems += [problem for field in fields if (problem := field.problem(answers[field.name]))]
    if problems:
        raise Refused(400, "\n".join(problems))
    return answers


def predict_upload(served: Served, extras: RunExtras, name: str, contents: bytes, answers: Mapping[str, str]) -> Result:
    """Predicts one upload and collects everything that the page shows of it.

    Args:
        served: the model.
        extras: what the model's run adds.
        name: the file's name.
        contents: the file's bytes, checked by `check_upload`.
        answers: the answers from `check_answers`.

    Raises:
        Refused: 400 if the file cannot be decoded.
    """
    model = served.model
    inputs: dict[str, Any] = {IMAGE_BYTES: [contents]}
    inputs |= {key: [float(answers[key] or -1) if kind == "numeric" else answers[key]] for key, kind in model.fields.items()}
    outputs = {key: value[0] for key, value in served.run(SERVING_DEFAULT, inputs).items()}
    if not outputs["valid"]:
        raise Refused(400, f"{_quote(name)} cannot be used: {_reason(contents)}. Send a whole JPEG, PNG or BMP file.")
    image = small_image(contents)
    remarks, mask, share = quality_problems(image), None, None
    if "mask" in outputs:
        mask = outputs["mask"][..., 0]
        share = float((mask > 0.5).mean())
        remarks += [] if share else [NO_LESION]
    label = outputs["label"].decode() if "label" in outputs else ""
    maps = served.run(EXPLAIN, inputs) if EXPLAIN in served.inputs else {}
    return Result(
        name,
        label,
        dict(zip(model.classes, map(float, outputs["probabilities"]), strict=True)) if "probabilities" in outputs else {},
        remarks,
        share,
        answers,
        [_outlined(image, mask, share), *_heat_maps(image, mask, maps, label)],
        extras.attributions(contents, answers) if extras.attributions else None,
    )


def check_upload(name: str, contents: bytes) -> int:
    """Refuses a file that is not an image, before anything is decoded; its name is shown but never opened.

    Returns:
        What it costs to decode, from `limits.check_images`.

    Raises:
        Refused: 400 if the name is a path or the file is not an image, 400 or 413 if it is beyond the limits.
    """
    if any(part in name for part in "/\\\0") or name in (".", ".."):
        raise Refused(400, f"The file's name is a path ({_quote(name)}); expected a plain name such as mole.jpg.")
    cost = check_images([contents])
    try:
        read_header(contents)
    except BadImage as error:
        raise Refused(400, f"{_quote(name)} cannot be used: {error}. Send a whole JPEG, PNG or BMP file.") from None
    return cost


def _outlined(image: np.ndarray, mask: np.ndarray | None, share: float | None) -> PagePicture:
    if mask is None:
        description, caption = "The uploaded image", "The image."
    elif not share:
        description, caption = "The uploaded image; no lesion was found in it", "The image; no lesion was found."
    else:
        description = f"The uploaded image with the outline of the predicted lesion, {share:.0%} of the picture"
        caption = f"The predicted outline of the lesion, in magenta: {share:.0%} of the picture."
    return PagePicture(_data_url(image, None, mask), description, caption)


def _heat_maps(image: np.ndarray, mask: np.ndarray | None, maps: Mapping[str, np.ndarray], label: str) -> list[PagePicture]:
    """Draws the Grad-CAM of each branch of the model."""
    pictures = []
    subject = label or "the lesion"
    for name in sorted(key for key in maps if key.startswith("grad_cam")):
        branch = name.removeprefix("grad_cam").strip("_").replace("_", " ")
        of_branch = f", {branch} branch" if branch else ""
        heat, has_evidence = normalise(maps[name])
        if has_evidence[0]:
            row, column = np.unravel_index(int(np.argmax(heat[0])), heat[0].shape)
            where = _place((row + 0.5) / heat.shape[1], (column + 0.5) / heat.shape[2])
            description = f"Heat map of the evidence for {subject}{of_branch}; it is strongest {where}"
            caption = f"Grad-CAM{of_branch}: where the model sees evidence for {subject}, red to white."
        else:
            description = caption = f"Grad-CAM{of_branch}: {NO_EVIDENCE} for {subject}."
        pictures.append(PagePicture(_data_url(image, heat[0] if has_evidence[0] else None, mask), description, caption))
    return pictures


def _place(down: float, right: float) -> str:
    """A position in a picture in words, for people who cannot see it."""
    rows = "at the top" if down < 1 / 3 else "at the bottom" if down > 2 / 3 else ""
    columns = "left" if right < 1 / 3 else "right" if right > 2 / 3 else ""
    if not rows:
        return f"at the {columns}" if columns else "in the middle"
    return f"{rows} {columns}".strip()


def _data_url(image: np.ndarray, heat: np.ndarray | None, mask: np.ndarray | None) -> str:
    height, width = image.shape[:2]
    picture = overlay(image, heat, predicted_mask=mask, width=max(width, min(_WIDTH, _HEIGHT * width // height)))
    return "data:image/png;base64," + base64.b64encode(write_png(picture)).decode()


def _reason(contents: bytes) -> str:
    try:
        decode_rgb(contents, read_header(contents))
    except BadImage as error:
        return str(error)
    return "it is damaged, or of an unsupported kind"


def _quote(text: str) -> str:
    return f"'{text[:60]}...'" if len(text) > 60 else f"'{text}'"

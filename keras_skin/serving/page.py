"""What the page asks and shows: the form's fields, and the answers about one upload."""

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
from keras_skin.serving.limits import Refused, check_pixels
from keras_skin.serving.served import Served
from keras_skin.workflow.prediction import NO_LESION, ExportedModel, small_image


@dataclass(frozen=True)
class FormField:
    """A clinical field of the form.

    Attributes:
        name: of the model's input.
        kind: `"numeric"` or `"categorical"`.
        values: the answers of the training part; empty if the export does not tell them.
        span: lowest and highest number of the training part, None if the export does not tell them.
        needed: whether the model needs an answer.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    span: tuple[float, float] | None = None
    needed: bool = False

    @property
    def label(self) -> str:
        """How people call it."""
        text = self.name.replace("_", " ")
        return text[:1].upper() + text[1:]

    def problem(self, answer: str) -> str:
        """What is wrong with an answer, "" if nothing is."""
        if not answer:
            return f"{self.label} is needed: this model was trained on complete answers." if self.needed else ""
        if self.kind == "numeric" and not is_number(answer):
            return (
                f"{self.label} is {_short(answer)}; expected a number from 0 to {LARGEST:,.0f}, or nothing where it is not known."
            )
        if self.values and answer not in self.values:
            known = ", ".join(self.values)
            return f"{self.label} is {_short(answer)}; expected one of {known}, or nothing.{did_you_mean(answer, self.values)}"
        return ""


@dataclass(frozen=True)
class ShownPicture:
    """A picture, `source` being a data URL, what it shows in words, and the sentence below it."""

    source: str
    alternative: str
    caption: str


@dataclass(frozen=True)
class Shown:
    """The answers about one upload.

    Attributes:
        name: of the file.
        label: the predicted class, "" for a model without.
        probabilities: class -> probability, in the order of the classes.
        remarks: what speaks against the picture.
        lesion_share: of the picture; None for a model without masks.
        answers: clinical field -> answer, "" where it is not known.
        pictures: the image with its outline, then heat maps.
        contributions: of the clinical fields; None where there are none.
    """

    name: str
    label: str
    probabilities: Mapping[str, float]
    remarks: Sequence[str]
    lesion_share: float | None
    answers: Mapping[str, str]
    pictures: Sequence[ShownPicture]
    contributions: Contributions | None = None


def form_fields(model: ExportedModel, complete: bool = False) -> list[FormField]:
    """The clinical fields that the model takes.

    Args:
        model: the export.
        complete: whether it needs an answer to each.
    """
    told = model.about.get("metadata") or {}
    fields = []
    for name, kind in model.fields.items():
        about = told.get(name, {})
        span = (about["low"], about["high"]) if about.get("high") is not None else None
        fields.append(FormField(name, kind, tuple(about.get("values", ())), span, complete))
    return fields


def check_answers(fields: Sequence[FormField], given: Mapping[str, str]) -> dict[str, str]:
    """Every field with its answer, "" where it is not known.

    Raises:
        Refused: 400 with everything that is wrong.
    """
    names = [field.name for field in fields]
    expected = f"It takes: {', '.join(names)}." if names else "It takes an image alone."
    problems = [
        f"The model has no field {_short(name)}.{did_you_mean(name, names)} {expected}" for name in given if name not in names
    ]
    answers = {name: given.get(name, "").strip() for name in names}
    problems += [problem for field in fields if (problem := field.problem(answers[field.name]))]
    if problems:
        raise Refused(400, "\n".join(problems))
    return answers


def look(served: Served, extras: RunExtras, name: str, contents: bytes, answers: Mapping[str, str]) -> Shown:
    """Everything that the page tells about one upload.

    Args:
        served: the model.
        extras: what its run adds.
        name: of the file.
        contents: of the file.
        answers: every clinical field, as `check_answers` gives them.

    Raises:
        Refused: 400 if it is no image, 413 if it has too many pixels.
    """
    _check_upload(name, contents)
    model = served.model
    given = {key: [float(answers[key] or -1) if kind == "numeric" else answers[key]] for key, kind in model.fields.items()}
    inputs: dict[str, Any] = {IMAGE_BYTES: [contents], **given}
    outputs = {key: value[0] for key, value in served.run(SERVING_DEFAULT, inputs).items()}
    if not outputs["valid"]:
        raise Refused(400, f"{_short(name)} cannot be used: {_reason(contents)}. Send a whole JPEG, PNG or BMP file.")
    image = small_image(contents)
    remarks, mask, share = quality_problems(image), None, None
    if "mask" in outputs:
        mask = outputs["mask"][..., 0]
        share = float((mask > 0.5).mean())
        remarks += [] if share else [NO_LESION]
    label = outputs["label"].decode() if "label" in outputs else ""
    explained = served.run(EXPLAIN, inputs) if EXPLAIN in served.inputs else {}
    return Shown(
        name,
        label,
        dict(zip(model.classes, map(float, outputs["probabilities"]), strict=True)) if "probabilities" in outputs else {},
        remarks,
        share,
        answers,
        [_outlined(image, mask, share), *_heat_maps(image, mask, explained, label)],
        extras.attributions(contents, answers) if extras.attributions else None,
    )


def _check_upload(name: str, contents: bytes) -> None:
    """Refuses what is no image before anything is decoded; the name is shown, never opened."""
    if any(part in name for part in "/\\\0") or name in (".", ".."):
        raise Refused(400, f"The file's name is a path ({_short(name)}); expected a plain name such as mole.jpg.")
    check_pixels([contents])
    try:
        read_header(contents)
    except BadImage as error:
        raise Refused(400, f"{_short(name)} cannot be used: {error}. Send a whole JPEG, PNG or BMP file.") from None


def _outlined(image: np.ndarray, mask: np.ndarray | None, share: float | None) -> ShownPicture:
    if mask is None:
        told, caption = "The uploaded image", "The image."
    elif not share:
        told, caption = "The uploaded image; no lesion was found in it", "The image; no lesion was found."
    else:
        told = f"The uploaded image with the outline of the predicted lesion, {share:.0%} of the picture"
        caption = f"The predicted outline of the lesion, in magenta: {share:.0%} of the picture."
    return ShownPicture(_drawn(image, None, mask), told, caption)


def _heat_maps(image: np.ndarray, mask: np.ndarray | None, explained: Mapping[str, np.ndarray], label: str) -> list[ShownPicture]:
    """Grad-CAM of each branch of the model."""
    pictures = []
    subject = label or "the lesion"
    for name in sorted(key for key in explained if key.startswith("grad_cam")):
        branch = name.removeprefix("grad_cam").strip("_").replace("_", " ")
        of_branch = f", {branch} branch" if branch else ""
        heat, has_evidence = normalise(explained[name])
        if has_evidence[0]:
            row, column = np.unravel_index(int(np.argmax(heat[0])), heat[0].shape)
            where = _place((row + 0.5) / heat.shape[1], (column + 0.5) / heat.shape[2])
            told = f"Heat map of the evidence for {subject}{of_branch}; it is strongest {where}"
            caption = f"Grad-CAM{of_branch}: where the model sees evidence for {subject}, red to white."
        else:
            told = caption = f"Grad-CAM{of_branch}: {NO_EVIDENCE} for {subject}."
        pictures.append(ShownPicture(_drawn(image, heat[0] if has_evidence[0] else None, mask), told, caption))
    return pictures


def _place(down: float, right: float) -> str:
    """A place in a picture in words, for those who cannot see it."""
    rows = "at the top" if down < 1 / 3 else "at the bottom" if down > 2 / 3 else ""
    columns = "left" if right < 1 / 3 else "right" if right > 2 / 3 else ""
    if not rows:
        return f"at the {columns}" if columns else "in the middle"
    return f"{rows} {columns}".strip()


def _drawn(image: np.ndarray, heat: np.ndarray | None, mask: np.ndarray | None) -> str:
    picture = overlay(image, heat, predicted_mask=mask, width=max(image.shape[1], 240))
    return "data:image/png;base64," + base64.b64encode(write_png(picture)).decode()


def _reason(contents: bytes) -> str:
    try:
        decode_rgb(contents, read_header(contents))
    except BadImage as error:
        return str(error)
    return "it is damaged, or of a kind that is not supported"


def _short(text: str) -> str:
    return f"'{text[:60]}...'" if len(text) > 60 else f"'{text}'"

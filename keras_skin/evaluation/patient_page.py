"""One self-contained page about one patient: predictions and their explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_skin.evaluation.report import Picture, page_templates
from keras_skin.registry import atomic_path


@dataclass(frozen=True)
class PatientImage:
    """One image of the patient.

    Attributes:
        name: of the file.
        pictures: the image with its predicted outline, then the maps and attributions.
        probabilities: class -> probability, empty for a model without classes.
        class_masks: class -> picture of its mask, empty for a model that has not both masks and classes.
    """

    name: str
    pictures: Sequence[Picture]
    probabilities: Mapping[str, float] = field(default_factory=dict)
    class_masks: Mapping[str, Path] = field(default_factory=dict)

    @property
    def predicted(self) -> str:
        """The most probable class, "" if there are none."""
        return max(self.probabilities, key=lambda name: self.probabilities[name], default="")


@dataclass(frozen=True)
class PatientPage:
    """Content of the page.

    Attributes:
        title: of the run.
        run: its folder.
        images: of the patient.
        metadata: clinical field -> answer, "" where it is not known; None for a model without.
        notes: sentences on what could not be explained, and why.
        warnings: measured reasons to doubt the explanations.
        banner: why the predictions mean nothing.
    """

    title: str
    run: str
    images: Sequence[PatientImage]
    metadata: Mapping[str, str] | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    banner: str = ""


def write_patient_page(path: Path, page: PatientPage) -> None:
    """Writes the page as one HTML file that loads nothing from anywhere.

    Args:
        path: file to write.
        page: its content.
    """
    text = page_templates().get_template("patient.html.j2").render(page=page)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

"""Files of heat maps: an overlay and the raw map of each image, and a contact sheet of each set of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_skin.explain.grad_cam import FEATURES, NO_EVIDENCE, normalise
from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.explain.samples import ExplainSample, file_name, write_array, write_bytes

ORIGINAL = "image.png"
"""The file of the image itself, beside its maps."""
LEGEND = "green: true mask   magenta: predicted mask   red to white: evidence, each map divided by its own maximum"


_UNKNOWN = 8  # pictures without a true class on a sheet of one of each


class Sheet(NamedTuple):
    """A picture on disk and its caption."""

    path: Path
    caption: str


class Question(NamedTuple):
    """What a set of maps explains, one map per image.

    Attributes:
        method: display name of the method, for example `Grad-CAM`.
        stem: start of the files' names.
        class_index: the explained class; None is each image's predicted class, or the lesion for a model without classes.
        layer: the feature layer, "" for methods without one.
    """

    method: str
    stem: str
    class_index: int | None = None
    layer: str = ""


@dataclass(frozen=True)
class MapWriter:
    """Draws and writes maps of a few images.

    Attributes:
        folder: where the images' folders and the sheets go.
        names: the folder of each sample.
        samples: the explained images.
        classes: class names.
        predictions: probabilities of the outputs `label` and `mask`, (N, ...) each.
        synthetic: whether pictures say SYNTHETIC.
    """

    folder: Path
    names: Sequence[str]
    samples: Sequence[ExplainSample]
    classes: Sequence[str]
    predictions: Mapping[str, np.ndarray]
    synthetic: bool = False

    def write(self, question: Question, maps: Sequence[np.ndarray], sharp: bool = False) -> Sheet:
        """Writes every image's overlay and raw map, and the sheet, which is returned. Maps of the predicted class come with the
        image itself, in a file and beside the map in the sheet.

        Source: papers 000 (figures 9 and 10), 002 (figure 7) and 003 (figure 6) show the image beside its map.

        Args:
            question: what the maps show.
            maps: (h, w) of each sample, >= 0, of any size.
            sharp: whether the maps are of single pixels, which are drawn with their 99th percentile as maximum.
        """
        tiles = []
        for row, raw in enumerate(maps):
            tile = self._tile(question, row, raw, sharp)
            if question.class_index is None:
                original = overlay(self.samples[row].picture, caption=self._caption(row, question)[:-1], synthetic=self.synthetic)
                write_bytes(self.folder / self.names[row] / ORIGINAL, write_png(original))
                tiles.append(original)
            tiles.append(tile)
            stem = self.folder / self.names[row] / f"{question.stem}_{self._subject(row, question)}"
            write_bytes(stem.with_suffix(".png"), write_png(tile))
            write_array(stem.with_suffix(".npy"), raw)
        return self._sheet(question, tiles)

    def original(self, row: int, width: int) -> np.ndarray:
        """Returns the picture of a sample with its true outline, captioned with its class."""
        sample = self.samples[row]
        return overlay(sample.picture, true_mask=sample.mask, caption=self.truth(row), width=width, synthetic=self.synthetic)

    def predicted(self, row: int) -> int | None:
        """Returns the predicted class of a sample; None for a model without classes."""
        return int(np.argmax(self.predictions["label"][row])) if "label" in self.predictions else None

    def truth(self, row: int) -> list[str]:
        """Returns the id of a sample and its true class, where it is known."""
        sample = self.samples[row]
        label = [] if sample.label is None else [f"truth: {self.classes[int(sample.label)]}"]
        return [str(sample.image_id), *label]

    def one_of_each_class(self) -> list[int]:
        """Returns the row of one sample of each true class, in the order of the classes: the most probable one that is predicted
        correctly, else the most probable; the first rows if no class is known."""
        labels = [sample.label for sample in self.samples]
        rows = []
        for index in range(len(self.classes)):
            members = [row for row, label in enumerate(labels) if label == index]
            rank = {row: (self.predicted(row) == index, float(self.predictions["label"][row, index])) for row in members}
            rows += [max(members, key=lambda row: rank[row])] if members else []
        return rows or list(range(min(len(self.samples), _UNKNOWN)))

    def _subject(self, row: int, question: Question) -> str:
        index = self.predicted(row) if question.class_index is None else question.class_index
        return "mask" if index is None else file_name(self.classes[index])

    def _caption(self, row: int, question: Question) -> list[str]:
        lines = self.truth(row)
        predicted = self.predicted(row)
        if predicted is None:
            share = float(np.mean(self.predictions["mask"][row] > 0.5))
            return [lines[0], f"predicted lesion: {share:.0%} of the picture"]
        probabilities = self.predictions["label"][row]
        lines.append(f"predicted: {self.classes[predicted]}, p = {probabilities[predicted]:.2f}")
        if question.class_index is not None:
            lines.append(f"map for: {self.classes[question.class_index]}, p = {probabilities[question.class_index]:.2f}")
        return lines

    def _tile(self, question: Question, row: int, raw: np.ndarray, sharp: bool = False) -> np.ndarray:
        """Returns the picture of a sample with its map and its outlines."""
        sample = self.samples[row]
        heat, has_evidence = normalise(raw[None])
        top = float(np.percentile(heat, 99.0)) if sharp else 1.0
        if top > 0:
            heat = np.minimum(heat / top, 1.0)
        return overlay(
            sample.picture,
            heat[0] if has_evidence[0] else None,
            true_mask=sample.mask,
            predicted_mask=self.predictions["mask"][row] if "mask" in self.predictions else None,
            caption=self._caption(row, question),
            remark="" if has_evidence[0] else NO_EVIDENCE,
            synthetic=self.synthetic,
        )

    def _sheet(self, question: Question, tiles: Sequence[np.ndarray]) -> Sheet:
        if "label" not in self.predictions:
            subject = "the predicted lesion (mean logit of its pixels)"
        elif question.class_index is None:
            subject = "the predicted class"
        else:
            subject = f"class {self.classes[question.class_index]}"
        caption = f"{question.method} of {subject}" + (f" on layer {question.layer}" if question.layer else "")
        suffix = "" if question.class_index is None else f"_{file_name(self.classes[question.class_index])}"
        path = self.folder / f"sheet_{question.stem}{suffix}.png"
        sheet = contact_sheet(tiles, title=[caption, LEGEND], synthetic=self.synthetic)
        write_bytes(path, write_png(sheet))
        return Sheet(path, f"SYNTHETIC: {caption}" if self.synthetic else caption)


def branch(layer: str, layers: Sequence[str]) -> str:
    """Returns the suffix of a layer's file names: "" for the only layer and for `cam_features`."""
    if len(layers) == 1 or layer == FEATURES:
        return ""
    return "_" + file_name(layer.removeprefix(f"{FEATURES}_"))

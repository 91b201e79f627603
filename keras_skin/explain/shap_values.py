"""SHAP values by shap's GradientExplainer: what each clinical field adds to a patient's logits, and what the picture adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.explain.views import METADATA, OneImageView, image_names, metadata_view, select_inputs, third_party_explainer
from keras_skin.registry import UserError

BACKGROUND = 16
"""Training images that stand for "not known"."""
IMAGE = "image"
"""The group of everything that is no metadata."""

_PATH_POINTS = 4  # between a background row and the patient


@dataclass(frozen=True)
class Attributions:
    """Whose sum is, but for `gap`, the difference between a patient's logits and the mean logits of the background.

    Attributes:
        values: (N, G, K) float64, logits added by each group for each class.
        groups: G names: `image`, if the model has images, then the clinical fields.
        base: (K,) mean logits of the background.
        logits: (N, K) of the patients.
    """

    values: np.ndarray
    groups: tuple[str, ...]
    base: np.ndarray
    logits: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """(N, K): logits - base - sum of values. Expected gradients follow a path in a few steps, so it is not zero."""
        return self.logits - self.base - self.values.sum(axis=1)

    @property
    def relative_gap(self) -> float:
        """Mean |gap| divided by the mean of |logits - base|."""
        moved = np.abs(self.logits - self.base).mean()
        return float(np.abs(self.gap).mean() / moved) if moved > 0 else 0.0

    def table(self, image_ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
        """A row per patient, class and group: `image_id, class, field, shap`; `base`, `gap` and `logit` complete a sum."""
        parts = {
            **{name: self.values[:, index] for index, name in enumerate(self.groups)},
            "base": np.broadcast_to(self.base, self.logits.shape),
            "gap": self.gap,
            "logit": self.logits,
        }
        rows = [
            (str(image_id), of_class, name, float(values[row, column]))
            for row, image_id in enumerate(image_ids)
            for column, of_class in enumerate(classes)
            for name, values in parts.items()
        ]
        return pd.DataFrame(rows, columns=["image_id", "class", "field", "shap"])


class MetadataShap:
    """SHAP values of the clinical metadata of a model with the inputs `metadata` and images, and of its images as a whole.

    Source: Erion et al., Improving performance of deep learning models with axiomatic attribution priors and expected gradients,
    2021, as shap's `GradientExplainer` computes it. The network is cut where metadata join what was seen (`metadata_view`), and
    every row of the background is taken in turn instead of rows drawn by chance, so that a linear head is explained exactly.
    Time and memory are bounded: background rows x 4 passes of the head per patient and class, whatever the size of the images.

    A column that says whether a field is known is a switch to some models, and gradients do not see switches: along the path,
    what either end knows counts as known, and what turning the others off does is measured and belongs to their fields.

    Args:
        model: the model.
        background: inputs of some training images, and of no others, (R, ...) each: they stand for "nothing is known".
        columns: the clinical field of each metadata column, M names; values of columns of one field are added up.
        switches: indices of the columns that are 1 where a field is known and else 0.
        seed: of the points on the paths.

    Raises:
        UserError: if the model has no metadata to explain, or `columns` are not those of its input.
    """

    def __init__(
        self,
        model: keras.Model,
        background: Mapping[str, np.ndarray],
        columns: Sequence[str],
        switches: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        features, head = metadata_view(model)
        width = int(model.input[METADATA].shape[-1])
        if len(columns) != width:
            raise UserError(f"The model takes {width} metadata columns, but the fields of {len(columns)} were named.")
        self._setup(model, features, head, columns, switches, seed)
        self.background = self.head_inputs(background)
        self.base = self._logits(self.background).mean(axis=0)

    @classmethod
    def from_head_inputs(
        cls,
        model: keras.Model,
        background: Sequence[np.ndarray],
        columns: Sequence[str],
        switches: Sequence[int] = (),
        seed: int = 0,
    ) -> MetadataShap:
        """From `background` as it was kept of an earlier explainer of the same model."""
        explainer = cls.__new__(cls)
        explainer._setup(model, *metadata_view(model), columns, switches, seed)
        explainer.background = [np.asarray(array, np.float32) for array in background]
        expected = [tuple(tensor.shape[1:]) for tensor in explainer.head.inputs]
        if [array.shape[1:] for array in explainer.background] != expected:
            raise UserError("The background that was kept is not of this model.")
        explainer.base = explainer._logits(explainer.background).mean(axis=0)
        return explainer

    def _setup(
        self,
        model: keras.Model,
        features: keras.Model | None,
        head: keras.Model,
        columns: Sequence[str],
        switches: Sequence[int],
        seed: int,
    ) -> None:
        self.model, self.features, self.head = model, features, head
        self.columns, self.switches, self.seed = tuple(columns), np.asarray(switches, int), seed
        self.fields = tuple(dict.fromkeys(columns))
        self.groups = (*((IMAGE,) if len(head.inputs) > 1 else ()), *self.fields)

    def head_inputs(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """What the head takes of the model's inputs: features of the images, and last the metadata; all float32."""
        metadata = np.asarray(inputs[METADATA], np.float32)
        features = self.features
        if features is None:
            return [metadata]
        given, rows = select_inputs(self.model, inputs), range(0, len(metadata), 8)
        parts = [
            [
                np.asarray(keras.ops.cast(part, "float32"))
                for part in keras.tree.flatten(features({key: value[row : row + 8] for key, value in given.items()}))
            ]
            for row in rows
        ]
        return [*(np.concatenate(columns) for columns in zip(*parts, strict=True)), metadata]

    def explain(self, inputs: Mapping[str, np.ndarray]) -> Attributions:
        """Attributions for every class.

        Args:
            inputs: what the model takes, (N, ...) each.
        """
        patients = self.head_inputs(inputs)
        rows = len(self.background[0])
        total = [np.zeros((*array.shape, self.base.size)) for array in patients]
        with third_party_explainer(self.seed):
            for row in range(rows):
                # every background row for itself, instead of a few of them by chance
                one = [array[row : row + 1] for array in self.background]
                for index, value in enumerate(self._from_row(patients, one, row)):
                    total[index] += value / rows
        return Attributions(self._grouped(total), self.groups, self.base, self._logits(patients))

    @cached_property
    def _explainer(self) -> Any:
        """Kept from call to call: it builds a graph for each class, which takes longer than using it."""
        from shap import GradientExplainer

        return GradientExplainer(self.head, self.background if len(self.background) > 1 else self.background[0])

    def _from_row(self, patients: list[np.ndarray], one: list[np.ndarray], row: int) -> list[np.ndarray]:
        """Attributions relative to one background row, (N, ..., K) of each input of the head."""
        found = [np.zeros((*array.shape, self.base.size)) for array in patients]
        union = (patients[-1][:, self.switches] > 0) | (one[-1][:, self.switches] > 0)
        seed = int(np.random.default_rng([self.seed, row]).integers(2**31))
        for pattern in np.unique(union, axis=0):
            members = np.flatnonzero((union == pattern).all(axis=1))
            ends = [[array[members] for array in patients], one]
            switched = [[*side[:-1], self._switched(side[-1], pattern)] for side in ends]
            self._explainer.explainer.data = switched[1]
            given = switched[0] if len(patients) > 1 else switched[0][0]
            values = self._explainer.shap_values(given, nsamples=_PATH_POINTS, rseed=seed)
            for index, value in enumerate(values if len(patients) > 1 else [values]):
                found[index][members] = value
            # from the switched patient to the real one, and from the real background row to the switched one
            found[-1][members] += self._of_switches(ends[0], pattern) - self._of_switches(one, pattern)
        return found

    def _switched(self, metadata: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        result = metadata.copy()
        result[:, self.switches] = np.maximum(result[:, self.switches], pattern)
        return result

    def _of_switches(self, inputs: list[np.ndarray], pattern: np.ndarray) -> np.ndarray:
        """What it does to the logits (N, M, K) to turn off those switches of `pattern` that are off in the rows, one after the
        other in both orders, and the mean of them."""
        moved = np.zeros((*inputs[-1].shape, self.base.size))
        if not pattern.any():
            return moved
        for order in (self.switches, self.switches[::-1]):
            now = self._switched(inputs[-1], pattern)
            before = self._logits([*inputs[:-1], now])
            for column in order:
                if (now[:, column] == inputs[-1][:, column]).all():
                    continue
                now[:, column] = inputs[-1][:, column]
                after = self._logits([*inputs[:-1], now])
                moved[:, column] += (after - before) / 2
                before = after
        return moved

    def _grouped(self, values: list[np.ndarray]) -> np.ndarray:
        *seen, metadata = values
        groups = [metadata[:, np.array(self.columns) == field].sum(axis=1) for field in self.fields]
        if seen:
            flat = [value.reshape(len(value), -1, value.shape[-1]).sum(axis=1) for value in seen]
            groups.insert(0, np.sum(flat, axis=0))
        return np.stack(groups, axis=1)

    def _logits(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        rows = range(0, len(inputs[0]), 8)
        parts = [self.head([tf.constant(array[row : row + 8]) for array in inputs], training=False) for row in rows]
        return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]).astype(np.float64)


def image_shap(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray],
    background: np.ndarray,
    index: int,
    *,
    samples: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """SHAP values of the pixels of one image for one class, the model's other inputs held.

    Args:
        model: the model.
        inputs: of one sample, without the batch axis.
        background: (R, H, W, 3) training images, 0..255.
        index: the class.
        samples: passes, that is, pairs of a background image and a point on the path.
        seed: of their choice.

    Returns:
        (H, W) float32: logits added by each pixel, its colours added up; may be negative.
    """
    from shap import GradientExplainer

    view = OneImageView(model, probabilities=False)
    view.hold(inputs)
    name = image_names(model)[0]
    image = keras.Input(inputs[name].shape, name=name)
    alone = keras.Model([image], _Held(view)(image))
    explainer = GradientExplainer(alone, np.asarray(background, np.float32), batch_size=8)
    with third_party_explainer(seed):
        values, _ = explainer.shap_values(
            np.asarray(inputs[name], np.float32)[None],
            nsamples=samples,
            ranked_outputs=np.array([[index]]),
            output_rank_order="custom",
            rseed=seed,
        )
    return np.asarray(values)[0, ..., 0].sum(axis=-1).astype(np.float32)


class _Held(keras.layers.Layer):
    """A view as a layer, so that shap has a keras.Model to look at."""

    def __init__(self, view: OneImageView) -> None:
        super().__init__(dtype="float32")
        self.view = view

    def call(self, images: Any) -> Any:
        return self.view(images)

    def compute_output_shape(self, shape: Any) -> tuple[int | None, ...]:
        return (shape[0], int(self.view.output.shape[-1]))

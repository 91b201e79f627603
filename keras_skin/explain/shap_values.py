"""SHAP values by shap's GradientExplainer: contributions of clinical fields and of the image to a patient's logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_skin.explain.views import (
    METADATA,
    OneImageView,
    image_names,
    in_batches,
    metadata_view,
    select_inputs,
    third_party_explainer,
)
from keras_skin.registry import UserError

BACKGROUND = 16
"""Number of training images in the background, relative to which SHAP values are computed."""
IMAGE = "image"
"""Group of all inputs other than metadata."""

_PATH_POINTS = 4  # points between a background row and the patient
_BATCH = 8


@dataclass(frozen=True)
class Attributions:
    """SHAP values: their sum plus `gap` is the difference between a patient's logits and the mean logits of the background.

    Attributes:
        values: (N, G, K) float64, contribution of each group to the logit of each class.
        groups: G names: `image` for models with images, then the clinical fields.
        base: (K,) mean logits of the background.
        logits: (N, K) of the patients.
    """

    values: np.ndarray
    groups: tuple[str, ...]
    base: np.ndarray
    logits: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """(N, K): logits - base - sum of values. It is not zero, because expected gradients follow a path in a few steps."""
        return self.logits - self.base - self.values.sum(axis=1)

    @property
    def relative_gap(self) -> float:
        """Mean |gap| divided by the mean of |logits - base|."""
        distance = np.abs(self.logits - self.base).mean()
        return float(np.abs(self.gap).mean() / distance) if distance > 0 else 0.0

    def table(self, image_ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
        """Returns rows `image_id, class, field, shap`, one per group; the rows `base`, `gap` and `logit` complete the sum."""
        terms = {
            **{name: self.values[:, index] for index, name in enumerate(self.groups)},
            "base": np.broadcast_to(self.base, self.logits.shape),
            "gap": self.gap,
            "logit": self.logits,
        }
        rows = [
            (str(image_id), class_name, name, float(values[row, column]))
            for row, image_id in enumerate(image_ids)
            for column, class_name in enumerate(classes)
            for name, values in terms.items()
        ]
        return pd.DataFrame(rows, columns=["image_id", "class", "field", "shap"])


class MetadataShap:
    """SHAP values of the clinical metadata of a model with the inputs `metadata` and images, and of its images as a whole.

    Source: Erion et al., Improving performance of deep learning models with axiomatic attribution priors and expected gradients,
    2021, as shap's `GradientExplainer` computes it. The network is cut where the metadata join the image features
    (`metadata_view`). Every background row is used in turn instead of random rows, so that a linear head is explained exactly.
    Time and memory are bounded: background rows x 4 passes of the head per patient and class, for images of any size.

    A column that tells whether a field is known acts as a switch in some models, and gradients do not see switches. Therefore a
    field that is known at either end counts as known along the whole path. The effect of turning such switches off is measured
    and added to their fields.

    Args:
        model: the model.
        background: inputs of some training images, and of no others, (R, ...) each: they stand for "nothing is known". Or
            `background` of an earlier explainer of the same model.
        columns: the clinical field of each metadata column, M names; values of columns of one field are added up.
        switches: indices of the columns that are 1 where a field is known and else 0.
        seed: seed of the points on the paths.

    Raises:
        UserError: if the model has no metadata to explain, or `columns` or `background` do not fit its inputs.
    """

    def __init__(
        self,
        model: keras.Model,
        background: Mapping[str, np.ndarray] | Sequence[np.ndarray],
        columns: Sequence[str],
        switches: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self.model = model
        self.features, self.head = metadata_view(model)
        self.columns, self.switches, self.seed = tuple(columns), np.asarray(switches, int), seed
        self.fields = tuple(dict.fromkeys(columns))
        self.groups = (*((IMAGE,) if len(self.head.inputs) > 1 else ()), *self.fields)
        width = int(model.input[METADATA].shape[-1])
        if len(columns) != width:
            raise UserError(f"The model takes {width} metadata columns, but the fields of {len(columns)} were named.")
        if isinstance(background, Mapping):
            self.background = self.head_inputs(background)
        else:
            self.background = [np.asarray(array, np.float32) for array in background]
            expected = [tuple(tensor.shape[1:]) for tensor in self.head.inputs]
            shapes = [array.shape[1:] for array in self.background]
            if shapes != expected:
                raise UserError(f"The background is not of this model: its shapes are {shapes}, expected {expected}.")
        self.base = self._logits(self.background).mean(axis=0)

    def head_inputs(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns the inputs of the head: features of the images, and last the metadata; all float32."""
        metadata = np.asarray(inputs[METADATA], np.float32)
        if self.features is None:
            return [metadata]
        features = in_batches(partial(self.features, training=False), select_inputs(self.model, inputs), _BATCH)
        return [*keras.tree.flatten(features), metadata]

    def explain(self, inputs: Mapping[str, np.ndarray]) -> Attributions:
        """Returns the attributions for every class.

        Args:
            inputs: the model's inputs, (N, ...) each.
        """
        patients = self.head_inputs(inputs)
        rows = len(self.background[0])
        total = [np.zeros((*array.shape, self.base.size)) for array in patients]
        with third_party_explainer(self.seed):
            for row in range(rows):
                for index, value in enumerate(self._from_row(patients, row)):
                    total[index] += value / rows
        return Attributions(self._group(total), self.groups, self.base, self._logits(patients))

    @cached_property
    def _explainer(self) -> Any:
        """shap's explainer; cached, because it builds a graph for each class, which takes longer than its use."""
        from shap import GradientExplainer

        return GradientExplainer(self.head, self.background if len(self.background) > 1 else self.background[0])

    def _from_row(self, patients: list[np.ndarray], row: int) -> list[np.ndarray]:
        """Returns the attributions relative to one background row, (N, ..., K) for each input of the head."""
        origin = [array[row : row + 1] for array in self.background]
        attributions = [np.zeros((*array.shape, self.base.size)) for array in patients]
        union = (patients[-1][:, self.switches] > 0) | (origin[-1][:, self.switches] > 0)
        seed = int(np.random.default_rng([self.seed, row]).integers(2**31))
        for pattern in np.unique(union, axis=0):
            members = np.flatnonzero((union == pattern).all(axis=1))
            targets = [array[members] for array in patients]
            self._explainer.explainer.data = [*origin[:-1], self._switch_on(origin[-1], pattern)]
            inputs = [*targets[:-1], self._switch_on(targets[-1], pattern)]
            values = self._explainer.shap_values(inputs if len(inputs) > 1 else inputs[0], nsamples=_PATH_POINTS, rseed=seed)
            for index, value in enumerate(values if len(inputs) > 1 else [values]):
                attributions[index][members] = value
            # From the switched patient to the real one, and from the real background row to the switched one.
            attributions[-1][members] += self._switch_effects(targets, pattern) - self._switch_effects(origin, pattern)
        return attributions

    def _switch_on(self, metadata: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        result = metadata.copy()
        result[:, self.switches] = np.maximum(result[:, self.switches], pattern)
        return result

    def _switch_effects(self, inputs: list[np.ndarray], pattern: np.ndarray) -> np.ndarray:
        """Returns the effect on the logits (N, M, K) of turning off the switches of `pattern` that are off in the rows: one after
        the other, the mean of both orders."""
        effects = np.zeros((*inputs[-1].shape, self.base.size))
        if not pattern.any():
            return effects
        for order in (self.switches, self.switches[::-1]):
            metadata = self._switch_on(inputs[-1], pattern)
            before = self._logits([*inputs[:-1], metadata])
            for column in order:
                if (metadata[:, column] == inputs[-1][:, column]).all():
                    continue
                metadata[:, column] = inputs[-1][:, column]
                after = self._logits([*inputs[:-1], metadata])
                effects[:, column] += (after - before) / 2
                before = after
        return effects

    def _group(self, values: list[np.ndarray]) -> np.ndarray:
        *features, metadata = values
        groups = [metadata[:, np.array(self.columns) == field].sum(axis=1) for field in self.fields]
        if features:
            flat = [value.reshape(len(value), -1, value.shape[-1]).sum(axis=1) for value in features]
            groups.insert(0, np.sum(flat, axis=0))
        return np.stack(groups, axis=1)

    def _logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        return in_batches(partial(self.head, training=False), inputs, _BATCH).astype(np.float64)


def image_shap(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray],
    background: np.ndarray,
    index: int,
    *,
    samples: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Returns SHAP values of the pixels of one image for one class; the model's other inputs are constant.

    Args:
        model: the model.
        inputs: inputs of one sample, without the batch axis.
        background: (R, H, W, 3) training images, 0..255.
        index: the class.
        samples: number of passes, each for a random background image and a random point on the path.
        seed: seed of the random choices.

    Returns:
        (H, W) float32: contribution of each pixel to the logit, summed over the colours; may be negative.
    """
    from shap import GradientExplainer

    view = OneImageView(model, probabilities=False)
    view.hold(inputs)
    name = image_names(model)[0]
    image = keras.Input(inputs[name].shape, name=name)
    explainer = GradientExplainer(keras.Model([image], _ViewLayer(view)(image)), np.asarray(background, np.float32), batch_size=8)
    with third_party_explainer(seed):
        values, _ = explainer.shap_values(
            np.asarray(inputs[name], np.float32)[None],
            nsamples=samples,
            ranked_outputs=np.array([[index]]),
            output_rank_order="custom",
            rseed=seed,
        )
    return np.asarray(values)[0, ..., 0].sum(axis=-1).astype(np.float32)


class _ViewLayer(keras.layers.Layer):
    """A view as a layer, because shap needs a keras.Model."""

    def __init__(self, view: OneImageView) -> None:
        super().__init__(dtype="float32")
        self.view = view

    def call(self, images: Any) -> Any:
        return self.view(images)

    def compute_output_shape(self, shape: Any) -> tuple[int | None, ...]:
        return (shape[0], int(self.view.output.shape[-1]))

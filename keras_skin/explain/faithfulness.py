"""Measures whether heat maps are faithful to the model, against uninformed maps, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.evaluation.explanations import red_lines, summarise
from keras_skin.explain import measures
from keras_skin.explain.grad_cam import GradCAM
from keras_skin.explain.samples import ExplainSample, stack_inputs
from keras_skin.explain.shuffled import shuffled_weights
from keras_skin.explain.views import explained_output, image_names, in_batches, logits_view, predict, select_inputs

HeatMaps = Callable[..., np.ndarray]
"""`GradCAM`, `ScoreCAM` or another function of (inputs, class indices) to maps (B, h, w)."""

FRACTIONS = np.linspace(0.0, 1.0, 11)
"""Shares of the pixels that are removed, or inserted, one after the other."""

ORDERS = ("map", "gaussian", "random")
_CHUNK = 28  # half of the 56 images scored for one explained image: all batches have one shape and need one graph


@dataclass(frozen=True)
class Faithfulness:
    """Measurements of the maps of one or more layers.

    Attributes:
        table: a row per image and layer: `image_id, layer, explained, label, correct`, and the measures; NaN where undefined.
        metrics: `{layer: {metric: {"value", "ci95", "n"}}}`.
        curves: `{layer: {"deletion" or "insertion": {order: (F,) mean score}}}`, for each of `ORDERS`.
        warnings: a sentence for each test that the maps failed.
    """

    table: pd.DataFrame
    metrics: dict[str, dict[str, dict[str, Any]]]
    curves: dict[str, dict[str, dict[str, np.ndarray]]]
    warnings: tuple[str, ...]


def measure_faithfulness(
    model: keras.Model,
    maps: Mapping[str, HeatMaps],
    samples: Sequence[ExplainSample],
    classes: Sequence[str],
    *,
    class_index: int | None = None,
    batch_size: int = 8,
    resamples: int = 1000,
    seed: int = 0,
) -> Faithfulness:
    """Measures the maps of the predicted class of each image, or of one class of all images.

    - Relevance inside the true mask (energy and pointing game), compared with that of a centred Gaussian; IoU of the thresholded
      map with the true and with the predicted mask; entropy.
    - Deletion and insertion (Petsiuk et al., RISE, BMVC 2018): pixels are painted in the image's mean colour, or restored, in the
      order of the map. The area under the score's curve is compared with that of a centred Gaussian and of a random map of the
      layer's resolution. The score is the probability of the explained class, or, for a mask, the mean probability of the pixels
      that the model calls lesion in the whole image. 56 passes per image and layer.
    - Sanity check (Adebayo et al., NeurIPS 2018): rank correlation with the map of the same model with shuffled weights.

    Args:
        model: the model.
        maps: layer -> maps, for example `{"cam_features": GradCAM(model)}`.
        samples: images, masks and labels; the latter two are optional.
        classes: names, in the order of the label output.
        class_index: the class whose maps are measured; None is the predicted class of each image.
        batch_size: images per step of the maps.
        resamples: resamples of the bootstrap.
        seed: seed of random maps, shuffled weights and the bootstrap.
    """
    output = explained_output(model)
    size = samples[0].inputs[image_names(model)[0]].shape[:2]
    inputs = stack_inputs(samples)
    predictions = in_batches(partial(predict, model), inputs, batch_size)
    answers = predictions["label"].argmax(axis=1) if output == "label" else np.zeros(len(samples), int)
    explained = answers if class_index is None else np.full(len(samples), class_index)
    raw = {layer: _finite_maps(function, inputs, explained, batch_size) for layer, function in maps.items()}
    with shuffled_weights(model, seed):
        shuffled = {layer: _finite_maps(function, inputs, explained, batch_size) for layer, function in maps.items()}
    truth = [_mask_at(sample.mask, size) for sample in samples]
    predicted = [plane[..., 0] > 0.5 for plane in predictions["mask"]] if "mask" in predictions else [None] * len(samples)
    removal = _Removal(model, output)
    tables, curves = [], {}
    for layer in maps:
        table = (
            _describe(samples, classes, layer, explained, answers) if output == "label" else _describe(samples, classes, layer)
        )
        table = table.assign(**_place_measures(raw[layer], truth, predicted, size))
        table["shuffled_correlation"] = measures.rank_correlation(raw[layer], shuffled[layer])
        scores = np.stack(
            [
                removal.curves(sample, map_, int(index), np.random.default_rng([seed, number]))
                for number, (sample, map_, index) in enumerate(zip(samples, raw[layer], explained, strict=True))
            ]
        )
        table = table.assign(**_removal_measures(scores, table["relevance_sum"].to_numpy() > 0))
        mean = scores.mean(axis=0)
        curves[layer] = {
            way: {order: mean[i, j] for j, order in enumerate(ORDERS)} for i, way in enumerate(("deletion", "insertion"))
        }
        tables.append(table.drop(columns="relevance_sum"))
    table = pd.concat(tables, ignore_index=True)
    groups = np.asarray([sample.group or f"image {number}" for number, sample in enumerate(samples)])
    metrics = {layer: summarise(table[table["layer"] == layer], groups, resamples, seed) for layer in maps}
    warnings = tuple(sentence for layer, values in metrics.items() for sentence in red_lines(layer, values))
    return Faithfulness(table, metrics, curves, warnings)


class _Removal:
    """The model's scores of one image while its pixels are removed or inserted."""

    def __init__(self, model: keras.Model, output: str) -> None:
        self.model = logits_view(model, output)
        self.images = image_names(model)
        self._call = tf.function(lambda inputs: self.model(inputs, training=False), autograph=False, reduce_retracing=True)

    def curves(self, sample: ExplainSample, raw: np.ndarray, index: int, generator: np.random.Generator) -> np.ndarray:
        """Returns the scores (2, 3, F) of deletion and insertion, in each of `ORDERS`, at each of `FRACTIONS`."""
        size = sample.inputs[self.images[0]].shape[:2]
        random = generator.random(raw.shape).astype(np.float32)
        heat, noise = GradCAM.upsample(np.stack([raw, random]), size)
        ranks = [measures.removal_order(order, generator) for order in (heat, measures.centred_gaussian(size), noise)]
        inner = FRACTIONS[1:-1]

        def variants(name: str) -> np.ndarray:
            value = np.asarray(sample.inputs[name], np.float32)
            if name not in self.images:
                return np.repeat(value[None], 2 + 2 * len(ranks) * len(inner), axis=0)
            reduced = [measures.without_pixels(value, rank, inner, keep) for keep in (False, True) for rank in ranks]
            blank = measures.without_pixels(value, ranks[0], np.array([1.0]), keep=False)
            return np.concatenate([value[None], blank, *reduced])

        scores = self._scores({name: variants(name) for name in sample.inputs}, index)
        whole, blank = scores[:2]
        middle = scores[2:].reshape(2, len(ranks), len(inner))
        ends = np.array([[whole, blank], [blank, whole]])[:, :, None, None]
        first, last = (np.broadcast_to(ends[:, i], (2, len(ranks), 1)) for i in (0, 1))
        return np.concatenate([first, middle, last], axis=-1)

    def _scores(self, inputs: dict[str, np.ndarray], index: int) -> np.ndarray:
        logits = in_batches(self._call, select_inputs(self.model, inputs), _CHUNK).astype(np.float64)
        if logits.ndim == 2:
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            return shifted[:, index] / shifted.sum(axis=1)
        lesion = logits[0] > 0
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
        return probabilities[:, lesion].mean(axis=1) if lesion.any() else np.zeros(len(logits))


def _finite_maps(function: HeatMaps, inputs: dict[str, np.ndarray], classes: np.ndarray, batch_size: int) -> np.ndarray:
    maps = in_batches(lambda batch: function(*batch), [inputs, classes], batch_size)
    return np.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)


def _describe(
    samples: Sequence[ExplainSample],
    classes: Sequence[str],
    layer: str,
    explained: Sequence[int] | np.ndarray = (),
    answers: Sequence[int] | np.ndarray = (),
) -> pd.DataFrame:
    labels = ["" if sample.label is None else classes[int(sample.label)] for sample in samples]
    names = [classes[index] for index in explained] or [""] * len(samples)
    predicted = [classes[index] for index in answers] or names
    correct = [float(name == label) if name and label else np.nan for name, label in zip(predicted, labels, strict=True)]
    return pd.DataFrame(
        {
            "image_id": [str(sample.image_id) for sample in samples],
            "layer": layer,
            "explained": names,
            "label": labels,
            "correct": correct,
        }
    )


def _place_measures(
    raw: np.ndarray, truth: Sequence[np.ndarray | None], predicted: Sequence[np.ndarray | None], size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Returns the measures of where maps lie and how diffuse they are."""
    heat = GradCAM.upsample(raw, size)
    gaussian = np.broadcast_to(measures.centred_gaussian(size), heat.shape)
    true_masks, has_truth = _stacked(truth, size)
    predicted_masks, has_prediction = _stacked(predicted, size)
    relevance = heat.sum(axis=(1, 2))
    inside = np.where(has_truth, measures.relevance_inside(heat, true_masks), np.nan)
    inside_gaussian = np.where(np.isnan(inside), np.nan, measures.relevance_inside(gaussian, true_masks))
    pointing = np.where(has_truth, measures.pointing_game(heat, true_masks), np.nan)
    return {
        "relevance_sum": relevance,
        "no_evidence": (relevance <= 0).astype(np.float64),
        "relevance_inside": inside,
        "relevance_inside_gaussian": inside_gaussian,
        "relevance_inside_gain": inside - inside_gaussian,
        "pointing_game": pointing,
        "pointing_game_gaussian": np.where(np.isnan(pointing), np.nan, measures.pointing_game(gaussian, true_masks)),
        "lesion_share": np.where(has_truth, true_masks.mean(axis=(1, 2)), np.nan),
        "iou_true_mask": np.where(has_truth, measures.thresholded_iou(heat, true_masks), np.nan),
        "iou_predicted_mask": np.where(has_prediction, measures.thresholded_iou(heat, predicted_masks), np.nan),
        "entropy": measures.entropy(raw),
    }


def _removal_measures(scores: np.ndarray, has_evidence: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the areas under curves (N, 2, 3, F), and the map's gain over the uninformed orders."""
    areas = np.where(has_evidence[:, None, None], np.trapezoid(scores, FRACTIONS), np.nan)
    result = {}
    for row, (way, sign) in enumerate((("deletion", -1.0), ("insertion", 1.0))):
        result[f"{way}_auc"] = areas[:, row, 0]
        for column, order in enumerate(ORDERS[1:], start=1):
            result[f"{way}_auc_{order}"] = areas[:, row, column]
            result[f"{way}_gain_{order}"] = sign * (areas[:, row, 0] - areas[:, row, column])
    return result


def _stacked(masks: Sequence[np.ndarray | None], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the masks (N, H, W), zero where missing, and whether each exists, (N,) bool."""
    exists = np.array([mask is not None for mask in masks])
    return np.stack([np.zeros(size, bool) if mask is None else mask for mask in masks]), exists


def _mask_at(mask: np.ndarray | None, size: tuple[int, int]) -> np.ndarray | None:
    if mask is None:
        return None
    plane = (np.asarray(mask).reshape(mask.shape[:2]) > 0.5).astype(np.float32)
    return cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA) >= 0.5

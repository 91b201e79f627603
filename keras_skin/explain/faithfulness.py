"""Whether heat maps mean anything: measured on images, against maps that know nothing, with intervals and in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from keras_skin.explain.views import explained_output, image_names, logits_view, predict, select_inputs

HeatMaps = Callable[..., np.ndarray]
"""`GradCAM`, `ScoreCAM` or another function of (inputs, class indices) to maps (B, h, w)."""

FRACTIONS = np.linspace(0.0, 1.0, 11)
"""Shares of the pixels that are taken away, or put back, one after the other."""

ORDERS = ("map", "gaussian", "random")
_CHUNK = 28  # half of the images that one explained image is tried on: one shape, one graph


@dataclass(frozen=True)
class Faithfulness:
    """What was measured of the maps of one or more layers.

    Attributes:
        table: a row per image and layer: `image_id, layer, explained, label, correct`, and the measures; NaN where undefined.
        metrics: `{layer: {metric: {"value", "ci95", "n"}}}`.
        curves: `{layer: {"deletion" or "insertion": {order: (F,) mean score}}}`, the orders being `ORDERS`.
        warnings: a sentence for each claim that the maps failed; nothing of the kind if they failed none.
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
    batch_size: int = 8,
    resamples: int = 1000,
    seed: int = 0,
) -> Faithfulness:
    """Measures the maps of the predicted class of each image.

    - Relevance inside the true mask (energy and pointing game), beside that of a centred Gaussian; IoU of the thresholded map
      with the true and with the predicted mask; entropy.
    - Deletion and insertion (Petsiuk et al., RISE, BMVC 2018): pixels are painted in the image's mean colour, or put back, in the
      order of the map; the area under the score's curve against that of a centred Gaussian and of a random map of the layer's
      resolution. The score is the probability of the explained class, or, for a mask, the mean probability of the pixels that
      were first called lesion. 56 passes per image and layer.
    - Sanity check (Adebayo et al., NeurIPS 2018): rank correlation with the map of the same model with shuffled weights.

    Args:
        model: the model.
        maps: layer -> maps, for example `{"cam_features": GradCAM(model)}`.
        samples: images; masks and labels where there are any.
        classes: names, in the order of the label output.
        batch_size: images per step of the maps.
        resamples: of the bootstrap.
        seed: of random maps, shuffled weights and the bootstrap.

    Returns:
        The measurements.
    """
    output = explained_output(model)
    size = samples[0].inputs[image_names(model)[0]].shape[:2]
    predictions, raw = _maps_and_predictions(model, maps, samples, batch_size)
    explained = predictions["label"].argmax(axis=1) if output == "label" else np.zeros(len(samples), int)
    with shuffled_weights(model, seed):
        shuffled = {layer: _in_batches(function, samples, batch_size, explained) for layer, function in maps.items()}
    truth = [_mask_at(sample.mask, size) for sample in samples]
    predicted = [plane[..., 0] > 0.5 for plane in predictions["mask"]] if "mask" in predictions else [None] * len(samples)
    removal = _Removal(model, output)
    tables, curves = [], {}
    for layer in maps:
        table = _describe(samples, classes, layer, explained if output == "label" else None)
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
    """Scores of one image while its pixels go or come."""

    def __init__(self, model: keras.Model, output: str) -> None:
        self.model = logits_view(model, output)
        self.images = image_names(model)
        self._call = tf.function(lambda inputs: self.model(inputs, training=False), autograph=False, reduce_retracing=True)

    def curves(self, sample: ExplainSample, raw: np.ndarray, index: int, generator: np.random.Generator) -> np.ndarray:
        """(2, 3, F): deletion and insertion, in each of `ORDERS`, at each of `FRACTIONS`."""
        size = sample.inputs[self.images[0]].shape[:2]
        random = generator.random(raw.shape).astype(np.float32)
        heats = [_enlarged(raw, size), measures.centred_gaussian(size), _enlarged(random, size)]
        ranks = [measures.removal_order(heat, generator) for heat in heats]
        inner = FRACTIONS[1:-1]

        def seen(name: str) -> np.ndarray:
            value = np.asarray(sample.inputs[name], np.float32)
            count = 2 * len(ranks) * len(inner)
            if name not in self.images:
                return np.repeat(value[None], count + 2, axis=0)
            parts = [measures.without_pixels(value, rank, inner, keep) for keep in (False, True) for rank in ranks]
            whole_and_blank = [value[None], measures.without_pixels(value, ranks[0], np.array([1.0]), keep=False)]
            return np.concatenate([*whole_and_blank, *parts])

        scores = self._scores({name: seen(name) for name in sample.inputs}, index)
        whole, blank = scores[:2]
        middle = scores[2:].reshape(2, len(ranks), len(inner))
        ends = np.array([[whole, blank], [blank, whole]])[:, :, None, None]
        first, last = (np.broadcast_to(ends[:, i], (2, len(ranks), 1)) for i in (0, 1))
        return np.concatenate([first, middle, last], axis=-1)

    def _scores(self, inputs: dict[str, np.ndarray], index: int) -> np.ndarray:
        chosen = select_inputs(self.model, inputs)
        count = len(next(iter(inputs.values())))
        parts = [
            self._call(keras.tree.map_structure(lambda value, start=start: tf.constant(value[start : start + _CHUNK]), chosen))
            for start in range(0, count, _CHUNK)
        ]
        logits = np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]).astype(np.float64)
        if logits.ndim == 2:
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            return shifted[:, index] / shifted.sum(axis=1)
        lesion = logits[0] > 0
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
        return probabilities[:, lesion].mean(axis=1) if lesion.any() else np.zeros(len(logits))


def _maps_and_predictions(
    model: keras.Model, maps: Mapping[str, HeatMaps], samples: Sequence[ExplainSample], batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    parts = [predict(model, stack_inputs(samples[start : start + batch_size])) for start in range(0, len(samples), batch_size)]
    predictions = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return predictions, {layer: _in_batches(function, samples, batch_size) for layer, function in maps.items()}


def _in_batches(
    function: HeatMaps, samples: Sequence[ExplainSample], batch_size: int, index: np.ndarray | None = None
) -> np.ndarray:
    starts = range(0, len(samples), batch_size)
    found = [
        function(stack_inputs(samples[start : start + batch_size]), None if index is None else index[start : start + batch_size])
        for start in starts
    ]
    return np.nan_to_num(np.concatenate(found), nan=0.0, posinf=0.0, neginf=0.0)


def _describe(samples: Sequence[ExplainSample], classes: Sequence[str], layer: str, explained: np.ndarray | None) -> pd.DataFrame:
    names = ["" if explained is None else classes[index] for index in (range(len(samples)) if explained is None else explained)]
    labels = ["" if sample.label is None else classes[int(sample.label)] for sample in samples]
    known = [bool(name and label) for name, label in zip(names, labels, strict=True)]
    correct = [float(name == label) if yes else np.nan for name, label, yes in zip(names, labels, known, strict=True)]
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
    """Where maps lie, and how diffuse they are."""
    heat = GradCAM.upsample(raw, size)
    blob = np.broadcast_to(measures.centred_gaussian(size), heat.shape)
    true_masks, known = _stacked(truth, size)
    outlines, outlined = _stacked(predicted, size)
    evidence = heat.sum(axis=(1, 2)) > 0
    inside = np.where(known, measures.relevance_inside(heat, true_masks), np.nan)
    inside_blob = np.where(known & ~np.isnan(inside), measures.relevance_inside(blob, true_masks), np.nan)
    pointed = np.where(known, measures.pointing_game(heat, true_masks), np.nan)
    return {
        "relevance_sum": heat.sum(axis=(1, 2)),
        "no_evidence": (~evidence).astype(np.float64),
        "relevance_inside": inside,
        "relevance_inside_gaussian": inside_blob,
        "relevance_inside_gain": inside - inside_blob,
        "pointing_game": pointed,
        "pointing_game_gaussian": np.where(np.isnan(pointed), np.nan, measures.pointing_game(blob, true_masks)),
        "lesion_share": np.where(known, true_masks.mean(axis=(1, 2)), np.nan),
        "iou_true_mask": np.where(known, measures.thresholded_iou(heat, true_masks), np.nan),
        "iou_predicted_mask": np.where(outlined, measures.thresholded_iou(heat, outlines), np.nan),
        "entropy": measures.entropy(raw),
    }


def _removal_measures(scores: np.ndarray, evidence: np.ndarray) -> dict[str, np.ndarray]:
    """Areas of (N, 2, 3, F) curves, and how much better the map's are."""
    areas = np.where(evidence[:, None, None], measures.area_under(scores, FRACTIONS), np.nan)
    found = {}
    for row, (way, sign) in enumerate((("deletion", -1.0), ("insertion", 1.0))):
        found[f"{way}_auc"] = areas[:, row, 0]
        for column, order in enumerate(ORDERS[1:], start=1):
            found[f"{way}_auc_{order}"] = areas[:, row, column]
            found[f"{way}_gain_{order}"] = sign * (areas[:, row, 0] - areas[:, row, column])
    return found


def _stacked(masks: Sequence[np.ndarray | None], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W) bool, and which of them there were."""
    present = np.array([mask is not None for mask in masks])
    return np.stack([np.zeros(size, bool) if mask is None else mask for mask in masks]), present


def _mask_at(mask: np.ndarray | None, size: tuple[int, int]) -> np.ndarray | None:
    if mask is None:
        return None
    plane = (np.asarray(mask).reshape(mask.shape[:2]) > 0.5).astype(np.float32)
    return cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA) >= 0.5


def _enlarged(raw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return GradCAM.upsample(raw[None], size)[0]

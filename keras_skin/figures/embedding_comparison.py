"""The figure of several runs' features of the same images side by side, each embedded in a plane by t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from keras_skin.evaluation.comparison import Side, letters
from keras_skin.evaluation.measured_run import Embedding, read_embedding
from keras_skin.figures.embedding import MIN_IMAGES, draw_by_class, finish, tsne
from keras_skin.figures.style import grid_shape, new_figure


def embedding_comparison(
    sides: Sequence[Side], split: str, classes: Sequence[str], path: Path, synthetic: bool = False
) -> Path | None:
    """Draws the features that the classifier of each side's first run takes, by true class.

    Source: Khurshid et al., Scientific Reports, 2025, figure 4b, which shows DualRefNet beside AuxNet and claims tighter
    clusters. Distances between clusters of a layout mean nothing, so each panel gives the silhouette coefficient of the features
    themselves: 1 for tight classes far from one another, 0 for classes that overlap.

    Args:
        sides: all sides of the comparison; those whose first run saved no features are skipped.
        split: the compared split.
        classes: class names, in the order of their colours.

    Returns None where fewer than two sides have features of the same `MIN_IMAGES` images.
    """
    embeddings = {side.name: embedding for side in sides if (embedding := read_embedding(side.runs[0].path, split)) is not None}
    common = set.intersection(*(set(embedding.image_ids) for embedding in embeddings.values())) if len(embeddings) > 1 else set()
    predictions = sides[0].runs[0].predictions
    table = predictions[predictions["image_id"].isin(common) & predictions["label"].isin(list(classes))]
    if len(table) < MIN_IMAGES:
        return None
    labels, side_letters = table["label"].to_numpy(str), letters(sides)
    rows, columns = grid_shape(len(embeddings), 3)
    with new_figure(path, (5.0 * columns, 5.2 * rows + 0.8), synthetic) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, embedding) in zip(grid, embeddings.items(), strict=False):
            features = _of_images(embedding, table["image_id"].tolist())
            draw_by_class(axes, tsne(features), labels, classes)
            finish(axes, f"{side_letters[name]}{_separation(features, labels)}")
        for axes in grid[len(embeddings) :]:
            axes.set_visible(False)
        handles, labels_of_classes = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels_of_classes, loc="outside lower left", ncols=4, handletextpad=0.3)
        names = [f"{side_letters[name]}: {name}" for name in embeddings]
        figure.suptitle("\n".join([f"Features before the classifier, t-SNE (n = {len(table):,})", *names]), x=0.01, ha="left")
    return path


def _of_images(embedding: Embedding, image_ids: Sequence[str]) -> np.ndarray:
    places = {image_id: place for place, image_id in enumerate(embedding.image_ids)}
    return embedding.features[[places[image_id] for image_id in image_ids]]


def _separation(features: np.ndarray, labels: np.ndarray) -> str:
    if not 1 < len(set(labels)) < len(labels):
        return ""
    with threadpool_limits(1):
        return f", silhouette of the true classes {silhouette_score(features, labels):+.3f}"

"""The figure of the features before a model's classifier, embedded in a plane by t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from keras_skin.figures.style import CYCLE, RED, new_figure

MIN_IMAGES = 8
"""With fewer images, neighbours mean nothing."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PERPLEXITY = 30.0


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns positions in a plane at which similar features are neighbours.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE", J. Mach. Learn. Res. 2008, as implemented by scikit-learn,
    initialised with the principal components. Distances between clusters, and their sizes, mean nothing.

    Args:
        features: (N, D), N at least `MIN_IMAGES`, not all the same.
        seed: seed of the random generator.

    Returns:
        (N, 2) float32.
    """
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    layout = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    # On a busy machine, threads that wait for one another take up to 200 times as long.
    with threadpool_limits(1):
        return layout.fit_transform(np.asarray(features, np.float32))


def embedding_figure(
    features: np.ndarray,
    truth: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    path: Path,
    title: str = "",
    seed: int = 0,
    synthetic: bool = False,
) -> Path | None:
    """Draws the images' features twice: by true class, and by right and wrong predictions.

    Args:
        features: (N, D), a row per image: the classifier's input.
        truth: N class names.
        predicted: N class names.
        classes: all class names, in the order of their colours.
        seed: seed of the layout.

    Returns None where there are fewer than `MIN_IMAGES` images or all features are the same.

    Raises:
        ValueError: if the numbers of rows differ.
    """
    if not len(features) == len(truth) == len(predicted):
        raise ValueError(f"There are {len(features)} rows of features, {len(truth)} true and {len(predicted)} predicted classes.")
    if len(features) < MIN_IMAGES or np.ptp(features, axis=0).max() == 0:
        return None
    labels, positions = np.asarray(truth, str), tsne(features, seed)
    right = labels == np.asarray(predicted, str)
    size = point_size(len(positions))
    with new_figure(path, (11.0, 5.6), synthetic) as figure:
        by_class, by_success = figure.subplots(1, 2)
        draw_by_class(by_class, positions, labels, classes)
        by_success.scatter(
            *positions[right].T, s=size, color="#B4BCC6", marker="o", linewidths=0, label=f"right ({right.sum():,})"
        )
        by_success.scatter(
            *positions[~right].T, s=1.6 * size, color=RED, marker="x", linewidths=1.3, label=f"wrong ({(~right).sum():,})"
        )
        for axes, name in ((by_class, "True class"), (by_success, "Right and wrong")):
            finish(axes, name)
            axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.02), ncols=3, handletextpad=0.3)
        figure.suptitle(f"{title} (n = {len(positions):,})" if title else f"n = {len(positions):,}", x=0.01, ha="left")
    return path


def point_size(count: int) -> float:
    """The size of a point in a figure of this many points."""
    return float(np.clip(4000 / count, 8, 40))


def draw_by_class(axes: Axes, positions: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Draws positions (N, 2) with a colour and a marker for each class."""
    for index, name in enumerate(classes):
        x, y = positions[labels == name].T
        axes.scatter(
            x,
            y,
            s=point_size(len(positions)),
            color=CYCLE[index % len(CYCLE)],
            marker=MARKERS[index % len(MARKERS)],
            alpha=0.75,
            linewidths=0,
            label=f"{name} (n = {len(x):,})",
        )


def finish(axes: Axes, title: str) -> None:
    """Makes a panel square and removes its scales, which mean nothing in a layout."""
    axes.set_title(title, loc="left", weight="bold")
    axes.set(xticks=[], yticks=[])
    axes.set_box_aspect(1)
    axes.grid(visible=False)

"""The figure of sample images with their masks: what a run is trained and measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from keras_skin.figures.style import TRUE_CONTOUR, draw_outlines, new_figure

LoadSample = Callable[[str, str], tuple[np.ndarray, np.ndarray]]
"""(image file, mask file) -> image (H, W, 3) uint8 and mask (H, W) bool."""


def choose_samples(table: pd.DataFrame, classes: Sequence[str], count: int = 2) -> pd.DataFrame:
    """Returns up to `count` images with a mask of each data set and class, evenly spread over the table.

    Training images are taken where a data set has any; a data set that is only measured shows measured images.

    Args:
        table: columns `dataset`, `label`, `mask` and `split`.
        classes: their order within a data set; images without a label come last.
        count: images of each data set and class.
    """
    with_mask = table[table["mask"] != ""]
    samples = [with_mask[:0]]
    for _, images in with_mask.groupby("dataset", sort=False):
        training_images = images[images["split"] == "train"]
        images = training_images if len(training_images) else images
        for name in (*classes, ""):
            of_class = images[images["label"] == name]
            number = min(count, len(of_class))
            samples.append(of_class.iloc[[int((place + 0.5) * len(of_class) / number) for place in range(number)]])
    return pd.concat(samples)


def samples_figure(samples: pd.DataFrame, load: LoadSample, path: Path, title: str = "", synthetic: bool = False) -> Path | None:
    """Draws images, their masks and the boundaries of their lesions; a row for each data set and class.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, figure 1.

    Args:
        samples: rows of `choose_samples`, with `image_id`, `image`, `mask`, `dataset` and `label`.
        load: reads the image and the mask, both of one size.

    Returns None where there is no sample.
    """
    if samples.empty:
        return None
    groups = samples.groupby(["dataset", "label"], sort=False)
    columns = 3 * int(groups.size().max())
    with new_figure(path, (1.75 * columns + 0.4, 1.55 * len(groups) + 0.5), synthetic) as figure:
        grid = figure.subplots(len(groups), columns, squeeze=False)
        for line, ((dataset, label), rows) in zip(grid, groups, strict=True):
            for number, (_, row) in enumerate(rows.iterrows()):
                image, mask = load(row["image"], row["mask"])
                shade = np.repeat(mask[..., np.newaxis] * np.uint8(255), 3, axis=-1)
                draw_outlines(line[3 * number], image, [])
                draw_outlines(line[3 * number + 1], shade, [])
                draw_outlines(line[3 * number + 2], image, [(mask, TRUE_CONTOUR, "solid")])
                line[3 * number].set_title(row["image_id"], fontsize=8, loc="left")
            for axes in line[3 * len(rows) :]:
                axes.set_visible(False)
            line[0].set_ylabel(f"{dataset}\n{label or 'no label'}", fontsize=9, weight="bold")
        figure.suptitle(title or "Images, masks and boundaries of the lesions", x=0.01, ha="left", weight="bold")
    return path

"""Samples: rows of a records table as a model's inputs and targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.load import Preprocessing, segmented_image
from keras_skin.data.images.rows import image_rows
from keras_skin.data.images.store import ImageStore
from keras_skin.registry import UserError

INPUTS = ("image", "segmented_image", "metadata")
AUXILIARY_MASKS = ("mask_aux_1", "mask_aux_2")
OUTPUTS = ("mask", "label", *AUXILIARY_MASKS, "super_resolution")

Batch = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]


class Samples:
    """Rows of a table as inputs and targets.

    The input `segmented_image` is the image with everything outside the lesion black (paper 002, figure 2). The mask in the
    table's column `lesion` marks the lesion; an augmentation changes both together.

    Attributes:
        images: the images and masks of the rows.
        mask_column: the column of the masks that go with the images; "" if none do.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        classes: Sequence[str],
        image_size: tuple[int, int],
        inputs: Sequence[str],
        outputs: Sequence[str],
        preprocessing: Sequence[Preprocessing],
        metadata: np.ndarray | None,
        store: ImageStore | None,
    ) -> None:
        _check_keys(inputs, outputs, metadata, len(table))
        _check_rows(table, classes, inputs, outputs)
        self.image_size = image_size
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.image_ids = table["image_id"].to_numpy(dtype=object)
        self.label_names = table["label"].to_numpy(dtype=object)
        self.mask_column = mask_column(inputs, outputs)
        masks = table[self.mask_column].tolist() if self.mask_column else None
        self.images = image_rows(store, table["image"].tolist(), masks, image_size, preprocessing)
        one_hot = self.label_names[:, np.newaxis] == np.asarray(classes, dtype=object)[np.newaxis, :]
        self._labels = tf.constant(one_hot.astype(np.float32).reshape(len(table), len(classes)))
        self._metadata = None if metadata is None else tf.constant(metadata, tf.float32)

    def finish(self, rows: tf.Tensor, image: tf.Tensor, mask: tf.Tensor) -> Batch:
        """Inputs and targets of some rows.

        Args:
            rows: (B,) int64.
            image: (B, H, W, 3) float32.
            mask: (B, H, W) uint8 of 0 and 1.
        """
        inputs, targets = {}, {}
        mask = tf.cast(mask, tf.float32)[..., tf.newaxis]
        if "image" in self.inputs:
            inputs["image"] = image
        if "segmented_image" in self.inputs:
            inputs["segmented_image"] = segmented_image(image, mask)
        if "metadata" in self.inputs and self._metadata is not None:
            inputs["metadata"] = tf.gather(self._metadata, rows)
        if "mask" in self.outputs:
            targets["mask"] = mask
            targets.update({key: mask for key in self.outputs if key in AUXILIARY_MASKS})
        if "label" in self.outputs:
            targets["label"] = tf.gather(self._labels, rows)
        if "super_resolution" in self.outputs:
            targets["super_resolution"] = tf.zeros((tf.shape(rows)[0], 1))  # the model makes its own target from the image
        return inputs, targets


def mask_column(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """The column of a records table with the masks that a model of these inputs and outputs needs; "" if it needs none."""
    return "mask" if "mask" in outputs else "lesion" if "segmented_image" in inputs else ""


def _check_keys(inputs: Sequence[str], outputs: Sequence[str], metadata: np.ndarray | None, rows: int) -> None:
    """Checks the keys of a model, which are a mistake of the caller if they are invalid."""
    unknown = [f"input '{key}'" for key in inputs if key not in INPUTS]
    unknown += [f"output '{key}'" for key in outputs if key not in OUTPUTS]
    if unknown:
        raise ValueError(f"There are no data for the {', '.join(unknown)}; the inputs are {INPUTS}, the outputs {OUTPUTS}.")
    if "segmented_image" in inputs and "mask" in outputs:
        raise ValueError("A model with the input 'segmented_image' already has the lesion: it cannot have the output 'mask' too.")
    if "metadata" in inputs and (metadata is None or np.ndim(metadata) != 2 or len(metadata) != rows):
        raise ValueError(
            f"The input 'metadata' needs a matrix with {rows} rows, got "
            f"{'none' if metadata is None else f'shape {np.shape(metadata)}'}."
        )


def _check_rows(table: pd.DataFrame, classes: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> None:
    problems = [_list("no image file", table.loc[table["image"] == "", "image_id"])]
    if "mask" in outputs:
        problems.append(_list("no mask, which the model's output 'mask' needs", table.loc[table["mask"] == "", "image_id"]))
    if "segmented_image" in inputs:
        lesion = table["lesion"] if "lesion" in table else pd.Series("", table.index)
        problems.append(_list("no mask that cuts the lesion out", table.loc[lesion == "", "image_id"]))
    if "label" in outputs:
        problems.append(_list(f"no label of {', '.join(classes)}", table.loc[~table["label"].isin(list(classes)), "image_id"]))
    problems = [problem for problem in problems if problem]
    if problems:
        raise UserError("\n".join(problems))


def _list(problem: str, image_ids: pd.Series) -> str:
    if image_ids.empty:
        return ""
    listed = ", ".join(image_ids.astype(str).head(5)) + (", ..." if len(image_ids) > 5 else "")
    return f"{len(image_ids)} {'image has' if len(image_ids) == 1 else 'images have'} {problem}: {listed}."

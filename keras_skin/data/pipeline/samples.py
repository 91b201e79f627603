"""Samples: rows of a records table as tensors, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_skin.data.images.decode import decode_image, decode_mask
from keras_skin.data.images.load import Preprocessing, model_image, resize_mask, segmented_image
from keras_skin.data.images.numpy_calls import numpy_call
from keras_skin.registry import UserError

INPUTS = ("image", "segmented_image", "metadata")
AUXILIARY_MASKS = ("mask_aux_1", "mask_aux_2")
OUTPUTS = ("mask", "label", *AUXILIARY_MASKS, "super_resolution")

Batch = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]


class Samples:
    """Rows of a table as tensors: where the files lie, and what a sample consists of. Masks of no size stand for no mask.

    The input `segmented_image` is the image with everything outside the lesion black (paper 002, figure 2); what the lesion is
    says the mask in the table's column `lesion`, which an augmentation changes with the image.

    Attributes:
        mask_column: the column of the masks that are decoded with the images; "" where none are.
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
    ) -> None:
        _check_keys(inputs, outputs, metadata, len(table))
        _check_rows(table, classes, inputs, outputs)
        self.image_size = image_size
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.preprocessing = tuple(preprocessing)
        self.image_ids = table["image_id"].to_numpy(dtype=object)
        self.label_names = table["label"].to_numpy(dtype=object)
        self.mask_column = mask_column(inputs, outputs)
        self._images = tf.constant(table["image"].tolist(), tf.string)
        self._masks = tf.constant(table[self.mask_column].tolist() if self.mask_column else [], tf.string)
        known = self.label_names[:, np.newaxis] == np.asarray(classes, dtype=object)[np.newaxis, :]
        self._labels = tf.constant(known.astype(np.float32).reshape(len(table), len(classes)))
        self._metadata = None if metadata is None else tf.constant(metadata, tf.float32)

    def decode(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Image (H, W, 3) and mask (H', W', 1), both uint8: the mask at its own size, the image reduced if it is far larger."""
        image = decode_image(tf.io.read_file(self._images[row]), minimum_size=self.image_size)
        if not self.mask_column:
            return image, tf.zeros((0, 0, 1), tf.uint8)
        return image, decode_mask(tf.io.read_file(self._masks[row]))

    def finish(self, row: tf.Tensor, image: tf.Tensor, mask: tf.Tensor) -> Batch:
        """What the model takes of a decoded sample."""
        inputs, targets = {}, {}
        if "image" in self.inputs or "segmented_image" in self.inputs:
            image = model_image(image, self.image_size, self.preprocessing)
        if "image" in self.inputs:
            inputs["image"] = image
        if "segmented_image" in self.inputs:
            inputs["segmented_image"] = segmented_image(image, mask)
        if "metadata" in self.inputs and self._metadata is not None:
            inputs["metadata"] = self._metadata[row]
        if "mask" in self.outputs:
            targets["mask"] = resize_mask(mask, self.image_size)
            targets.update({key: targets["mask"] for key in self.outputs if key in AUXILIARY_MASKS})
        if "label" in self.outputs:
            targets["label"] = self._labels[row]
        if "super_resolution" in self.outputs:
            targets["super_resolution"] = tf.zeros((1,))  # the model makes its own target of the image
        return inputs, targets


def mask_column(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """The column of a records table with the masks that a model of these inputs and outputs needs; "" if it needs none."""
    return "mask" if "mask" in outputs else "lesion" if "segmented_image" in inputs else ""


def numpy_pair(function: Callable[..., Any], *arguments: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Image and mask from a NumPy function that depends on its arguments alone."""
    image, mask = numpy_call(function, arguments, (tf.uint8, tf.uint8))
    return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(mask, (None, None, 1))


def fit_mask(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brings a mask to the size of its image by majority of area, so that both can be moved together."""
    height, width = image.shape[:2]
    if mask.shape[:2] == (height, width) or not mask.size:
        return image, mask
    share = cv2.resize(mask[..., 0] * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    return image, (share >= 128).astype(np.uint8)[..., np.newaxis]


def _check_keys(inputs: Sequence[str], outputs: Sequence[str], metadata: np.ndarray | None, rows: int) -> None:
    """Refuses what no data can be made for: a mistake of the caller."""
    unknown = [f"input '{key}'" for key in inputs if key not in INPUTS]
    unknown += [f"output '{key}'" for key in outputs if key not in OUTPUTS]
    if unknown:
        raise ValueError(f"No data for the {', '.join(unknown)}: there are the inputs {INPUTS} and the outputs {OUTPUTS}.")
    if "segmented_image" in inputs and "mask" in outputs:
        raise ValueError("A model that takes 'segmented_image' is given the lesion: it cannot have the output 'mask' too.")
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
    shown = ", ".join(image_ids.astype(str).head(5)) + (", ..." if len(image_ids) > 5 else "")
    return f"{len(image_ids)} {'image has' if len(image_ids) == 1 else 'images have'} {problem}: {shown}."

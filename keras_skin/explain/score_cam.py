"""Score-CAM: heat maps without gradients, from what the model says of the image seen through each feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_skin.explain.grad_cam import FEATURES, GradCAM

CHANNELS = 64
_BATCH = 32


class ScoreCAM:
    """Maps of the evidence for a class on a named feature layer, weighed by how much each channel's mask keeps of the score.

    Source: Wang et al., Score-CAM: Score-weighted visual explanations for convolutional neural networks, CVPR workshops 2020,
    equations 6 to 8: each channel, enlarged and brought to 0..1, masks the image; the softmax over the channels of the scores
    that the masked images get weighs the channels.

    Args:
        model: see `GradCAM`.
        layer: see `GradCAM`.
        output: see `GradCAM`.
        channels: only so many channels, those with the greatest maximum in the image, are tried: each costs a forward pass.

    Raises:
        UserError: as `GradCAM`.

    **Deviations from the paper**: it tries all channels. All image inputs of a model are masked alike.
    """

    def __init__(self, model: keras.Model, layer: str = FEATURES, output: str = "label", channels: int = CHANNELS) -> None:
        self._cam = GradCAM(model, layer, output)
        self.layer = layer
        self.output = output
        self.channels = channels
        self._evaluate = tf.function(self._cam.features_and_scores, autograph=False, reduce_retracing=True)

    def __call__(self, inputs: Any, class_index: int | Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Maps at the layer's own resolution, float32 (B, h, w), >= 0; arguments and errors are those of `GradCAM`."""
        tensors, chosen = self._cam.prepare(inputs, class_index)
        chosen = self._resolved(tensors, chosen)
        features, _ = self._evaluate(tensors, tf.constant(chosen))
        features = tf.cast(features, tf.float32)
        maps = []
        for row, index in enumerate(chosen):
            one = keras.tree.map_structure(lambda tensor, row=row: tensor[row : row + 1], tensors)
            maps.append(self._map(one, features[row], int(index)))
        return np.stack(maps)

    def check(self) -> None:
        """Reports a wrong layer before hours of training."""
        self._cam.check()

    def _resolved(self, tensors: Any, chosen: np.ndarray) -> np.ndarray:
        """The class of each image: a masked image must be asked for the class of the whole one."""
        if self._cam.output != "label" or (chosen >= 0).all():
            return np.maximum(chosen, 0).astype(np.int32)
        outputs = self._cam.model(tensors, training=False)
        logits = outputs["label"] if isinstance(outputs, dict) else outputs
        predicted = np.argmax(keras.ops.convert_to_numpy(logits), axis=-1)
        return np.where(chosen < 0, predicted, chosen).astype(np.int32)

    def _map(self, one: Any, features: tf.Tensor, index: int) -> np.ndarray:
        peaks = tf.reduce_max(features, axis=(0, 1)).numpy()
        kept = np.sort(np.argsort(-peaks, kind="stable")[: self.channels])
        planes = tf.transpose(tf.gather(features, kept, axis=2), (2, 0, 1))[..., None]
        low, high = (reduce(planes, axis=(1, 2, 3), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
        scaled = tf.math.divide_no_nan(planes - low, high - low)
        scores = [
            self._masked_scores(one, scaled[start : start + _BATCH], index).numpy() for start in range(0, len(kept), _BATCH)
        ]
        weights = tf.nn.softmax(np.concatenate(scores))
        return tf.nn.relu(tf.tensordot(weights, planes[..., 0], axes=1)).numpy()

    def _masked_scores(self, one: Any, masks: tf.Tensor, index: int) -> tf.Tensor:
        count = int(masks.shape[0])

        def seen(tensor: tf.Tensor) -> tf.Tensor:
            repeated = tf.repeat(tensor, count, axis=0)
            if tensor.shape.rank != 4:
                return repeated
            return repeated * tf.cast(tf.image.resize(masks, tensor.shape[1:3]), tensor.dtype)

        _, scores = self._evaluate(keras.tree.map_structure(seen, one), tf.fill((count,), index))
        return scores

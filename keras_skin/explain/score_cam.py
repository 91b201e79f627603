"""Score-CAM: heat maps without gradients, from the model's scores of the image masked by each feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_skin.explain.grad_cam import FEATURES, GradCAM
from keras_skin.explain.views import in_batches

CHANNELS = 64
_BATCH = 32


class ScoreCAM:
    """Maps of the evidence for a class on a named feature layer, each channel weighted by the score of the image it masks.

    Source: Wang et al., Score-CAM: Score-weighted visual explanations for convolutional neural networks, CVPR workshops 2020,
    equations 6 to 8: each channel, resized and scaled to 0..1, masks the image. The weights of the channels are the softmax of
    the masked images' scores.

    Args:
        model, layer, output: see `GradCAM`.
        channels: how many channels to use, those with the greatest maximum in the image; each costs a forward pass.

    Raises:
        UserError: as `GradCAM`.

    **Deviations from the paper**: the paper uses all channels. All image inputs of a model get the same mask.
    """

    def __init__(self, model: keras.Model, layer: str = FEATURES, output: str = "label", channels: int = CHANNELS) -> None:
        self._cam = GradCAM(model, layer, output)
        self.layer = layer
        self.output = output
        self.channels = channels
        self._evaluate = tf.function(self._cam.features_and_scores, autograph=False, reduce_retracing=True)

    def __call__(self, inputs: Any, class_index: int | Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Returns the maps at the layer's resolution, float32 (B, h, w), >= 0; arguments and errors are those of `GradCAM`."""
        tensors, indices = self._cam.prepare(inputs, class_index)
        indices = self._resolve(tensors, indices)
        features, _ = self._evaluate(tensors, tf.constant(indices))
        features = tf.cast(features, tf.float32)
        maps = []
        for row, index in enumerate(indices):
            image = keras.tree.map_structure(lambda tensor, row=row: tensor[row : row + 1], tensors)
            maps.append(self._map(image, features[row], int(index)))
        return np.stack(maps)

    def check(self) -> None:
        """Reports a wrong layer before the training."""
        self._cam.check()

    def _resolve(self, tensors: Any, indices: np.ndarray) -> np.ndarray:
        """Replaces -1 by the class predicted for the whole image; that of a masked image may differ."""
        if self._cam.output != "label" or (indices >= 0).all():
            return np.maximum(indices, 0).astype(np.int32)
        outputs = self._cam.model(tensors, training=False)
        logits = outputs["label"] if isinstance(outputs, dict) else outputs
        predicted = np.argmax(keras.ops.convert_to_numpy(logits), axis=-1)
        return np.where(indices < 0, predicted, indices).astype(np.int32)

    def _map(self, image: Any, features: tf.Tensor, index: int) -> np.ndarray:
        peaks = tf.reduce_max(features, axis=(0, 1)).numpy()
        channels = np.sort(np.argsort(-peaks, kind="stable")[: self.channels])
        planes = tf.transpose(tf.gather(features, channels, axis=2), (2, 0, 1))[..., None]
        low, high = (reduce(planes, axis=(1, 2, 3), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
        scaled = tf.math.divide_no_nan(planes - low, high - low)
        scores = in_batches(lambda masks: self._masked_scores(image, masks, index), scaled, _BATCH)
        return tf.nn.relu(tf.tensordot(tf.nn.softmax(scores), planes[..., 0], axes=1)).numpy()

    def _masked_scores(self, image: Any, masks: tf.Tensor, index: int) -> tf.Tensor:
        count = int(masks.shape[0])

        def masked(tensor: tf.Tensor) -> tf.Tensor:
            repeated = tf.repeat(tensor, count, axis=0)
            if tensor.shape.rank != 4:
                return repeated
            return repeated * tf.cast(tf.image.resize(masks, tensor.shape[1:3]), tensor.dtype)

        _, scores = self._evaluate(keras.tree.map_structure(masked, image), tf.fill((count,), index))
        return scores

"""Batch normalisation that runs as one fused kernel on the TensorFlow backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

_FUSED_DTYPES = ("float16", "bfloat16", "float32")


@keras.saving.register_keras_serializable(package="keras_skin")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with TensorFlow's fused kernel.

    Source: Ioffe and Szegedy, 2015, algorithms 1 and 2. Keras composes the normalisation from a dozen element-wise operations in
    float32, which take up to half of a training step. The fused kernel reads a half-precision input once and computes its
    statistics in float32. Variables, arguments, configuration and results are those of the Keras layer, so weights fit both. The
    kernel's Bessel correction of the batch variance is reverted before the update of the moving variance. As in Keras, a frozen
    layer (`trainable=False`) normalises with its moving statistics.

    The implementation of Keras handles everything else: other backends, inputs that are not (B, H, W, C) with the channels last,
    float64, masks, `renorm=True` and `synchronized=True`.

    Example:

    >>> BatchNormalization()(keras.ops.ones((2, 4, 4, 3))).shape
    TensorShape([2, 4, 4, 3])
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises `inputs` (B, H, W, C); returns a tensor of the same shape in the compute dtype."""
        if mask is not None or not self._is_fusible(inputs):
            return super().call(inputs, training=training, mask=mask)
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(self.moving_variance)
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(self.moving_mean)
        if not (training and self.trainable):
            outputs = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=gamma,
                offset=beta,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=False,
            ).y
            return ops.cast(outputs, self.compute_dtype)
        empty = tf.zeros((0,), "float32")
        result = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=self.epsilon, is_training=True
        )
        shape = tf.shape(inputs)
        count = tf.cast(shape[0] * shape[1] * shape[2], "float32")
        variance = result.batch_variance * ((count - 1.0) / count)
        self._move(self.moving_mean, result.batch_mean)
        self._move(self.moving_variance, variance)
        return ops.cast(result.y, self.compute_dtype)

    def _is_fusible(self, inputs: Any) -> bool:
        return (
            keras.config.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and not self.synchronized
            and not self.renorm
            and keras.backend.standardize_dtype(inputs.dtype) in _FUSED_DTYPES
            and keras.backend.standardize_dtype(self.moving_mean.dtype) == "float32"
        )

    def _move(self, average: Any, batch: Any) -> None:
        average.assign(average * self.momentum + batch * (1.0 - self.momentum))

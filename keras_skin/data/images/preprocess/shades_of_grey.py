"""Shades of grey: colour constancy by the Minkowski mean."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_skin.data.images.preprocess import register
from keras_skin.registry import UserError


@register("shades_of_grey")
@dataclass(frozen=True)
class ShadesOfGrey:
    """Colour constancy: takes away the colour of the light, estimated as the Minkowski mean of each channel.

    Reference: Finlayson and Trezzi, "Shades of Gray and Colour Constancy", 2004; power 6 as is usual for dermoscopy (Barata
    et al., "Improving Dermoscopy Image Classification Using Color Constancy", 2015).

    Args:
        power: of the Minkowski mean, from 1 (grey world) on; larger comes nearer to the brightest colour.

    Call arguments: an image (H, W, 3) float32 in 0..255. Returns the same shape and range; a channel that is black all over
    stays so.
    """

    power: float = 6.0

    def __post_init__(self) -> None:
        if not self.power >= 1:
            raise UserError(f"preprocessing 'shades_of_grey': power is {self.power}, expected 1 or more.")

    def __call__(self, image: tf.Tensor) -> tf.Tensor:
        scaled = image / 255.0
        light = tf.reduce_mean(scaled**self.power, axis=(0, 1)) ** (1.0 / self.power)
        light /= tf.maximum(tf.norm(light), 1e-6)
        gain = 1.0 / (tf.maximum(light, 1e-6) * tf.sqrt(3.0))  # 1 for white light
        return tf.clip_by_value(image * gain, 0.0, 255.0)

"""Doubles the size of images: by interpolation, or by a small network that trains on the images themselves."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

INTERPOLATIONS = ("bilinear", "bicubic", "lanczos3")
_SUPPORT = {"bilinear": 1, "bicubic": 2, "lanczos3": 3}


def enlarge(images: Any, interpolation: str = "bicubic") -> Any:
    """Doubles height and width by interpolation, without clipping.

    It uses two products with constant matrices, because XLA cannot compile TensorFlow's bicubic and Lanczos resizing.

    Args:
        images: (B, H, W, C); H and W fixed.
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        (B, 2 H, 2 W, C) of the same type.
    """
    rows, columns = (ops.cast(interpolation_matrix(size, interpolation), images.dtype) for size in images.shape[1:3])
    return ops.einsum("ih,jw,bhwc->bijc", rows, columns, images)


@functools.cache
def interpolation_matrix(size: int, interpolation: str) -> np.ndarray:
    """Returns the (2 size, size) float32 matrix that doubles a row of pixels: pixel centres at half positions, rows of sum 1."""
    centres = (np.arange(2 * size) + 0.5) / 2 - 0.5
    weights = _kernel(np.abs(centres[:, None] - np.arange(size)), interpolation)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _kernel(distance: np.ndarray, interpolation: str) -> np.ndarray:
    if interpolation == "bilinear":
        values = 1 - distance
    elif interpolation == "bicubic":  # Keys' cubic convolution, a = -1/2
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        values = np.where(distance < 1, near, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2)
    else:
        values = np.sinc(distance) * np.sinc(distance / 3)
    return np.where(distance < _SUPPORT[interpolation], values, 0)


@keras.saving.register_keras_serializable(package="keras_skin")
class Enlargement(keras.layers.Layer):
    """Doubles the size of images and scales them to [0, 1], as the target of an auxiliary super-resolution.

    Source: Khurshid et al., Sci. Rep. 2025 (DualRefNet), "Auxiliary task": bilinear and bicubic interpolation. Bicubic is Keys'
    (a = -1/2), `lanczos3` Lanczos' windowed sinc of radius 3; both overshoot at edges, and the result is clipped.

    Args:
        interpolation: one of `INTERPOLATIONS`.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: images (B, H, W, C) in 0..255, H and W fixed.

    Returns:
        Images (B, 2 H, 2 W, C) in [0, 1].

    Raises:
        ValueError: if there is no such interpolation.

    Example:

    >>> Enlargement("bilinear")(keras.ops.ones((2, 4, 6, 3))).shape
    TensorShape([2, 8, 12, 3])
    """

    def __init__(self, interpolation: str = "bicubic", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}.")
        self.interpolation = interpolation

    def call(self, inputs: Any) -> Any:
        return ops.clip(enlarge(inputs / 255, self.interpolation), 0.0, 1.0)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return (batch, 2 * height, 2 * width, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "interpolation": self.interpolation}


@keras.saving.register_keras_serializable(package="keras_skin")
class LearnedEnlargement(keras.layers.Layer):
    """Doubles the size of images by a small network that trains along with the model.

    It has three convolutions (5x5, 3x3, 3x3) on the small image and a rearrangement of channels into pixels, as in ESPCN (Shi et
    al., CVPR 2016), added to the bicubic enlargement. The last convolution starts at zero, so training starts from the bicubic
    result. It has its own loss: it restores the images from their averages of 2x2 pixels, as in "zero-shot" super-resolution
    (Shocher et al., CVPR 2018). Its result is a target, so no gradient flows through it.

    Args:
        features: channels of the first two convolutions.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: images (B, H, W, 3) in 0..255, H and W fixed and even.
        training: whether the mean squared error of the restored images is added to the model's loss.

    Returns:
        Images (B, 2 H, 2 W, 3) in [0, 1].

    **Deviations from the paper**: Khurshid et al., Sci. Rep. 2025, use two published networks with pretrained weights.
    """

    def __init__(self, features: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = features

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        widths = (channels, self.features, self.features, 4 * channels)
        self.kernels, self.biases = [], []
        for number, size in enumerate((5, 3, 3)):
            initializer = "zeros" if number == 2 else "he_normal"
            shape = (size, size, *widths[number : number + 2])
            self.kernels.append(self.add_weight(shape, initializer=initializer, name=f"kernel_{number + 1}"))
            self.biases.append(self.add_weight((widths[number + 1],), initializer="zeros", name=f"bias_{number + 1}"))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        images = inputs / 255
        # Each variable is read once for both passes. TensorFlow may run a second read, which no gradient needs, after the update.
        pairs = zip(self.kernels, self.biases, strict=True)
        weights = [tuple(ops.cast(ops.convert_to_tensor(variable), images.dtype) for variable in pair) for pair in pairs]
        if training:
            restored = _restore(ops.average_pool(images, (2, 2), (2, 2)), weights)
            error = ops.cast(restored, "float32") - ops.cast(images, "float32")
            self.add_loss(ops.mean(ops.square(error)))
        return ops.stop_gradient(ops.clip(_restore(images, weights), 0.0, 1.0))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return (batch, 2 * height, 2 * width, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": self.features}


def _restore(images: Any, weights: list[tuple[Any, Any]]) -> Any:
    """Returns images (B, H, W, C) at twice their size: bicubic, plus details from three convolutions."""
    x = images
    for number, (kernel, bias) in enumerate(weights, start=1):
        x = ops.conv(x, kernel, padding="same") + bias
        x = ops.relu(x) if number < len(weights) else x
    _, height, width, channels = images.shape
    details = ops.transpose(ops.reshape(x, (-1, height, width, 2, 2, channels)), (0, 1, 3, 2, 4, 5))
    return enlarge(images) + ops.reshape(details, (-1, 2 * height, 2 * width, channels))

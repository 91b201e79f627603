"""Image and mask files at the size that a model takes them.

The functions are pure TensorFlow, so that training, evaluation and the exported graph compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_skin.data.images.decode import decode_image, decode_mask

Preprocessing = Callable[[tf.Tensor], tf.Tensor]


def decode_or_blank(contents: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes one file, or gives a black image where that is impossible; raises nothing.

    Works in graphs and SavedModels as well, where an error in one image would otherwise fail its whole batch.

    Args:
        contents: scalar string, the bytes of the file.
        size: (height, width) of the result.

    Returns:
        image: (height, width, 3) float32 in 0..255.
        valid: scalar bool; False if the image is the blank one.
    """

    def load(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return resize_image(decode_image(data, size), size), tf.constant(True)

    decoded = tf.data.Dataset.from_tensors(contents).map(load).ignore_errors()
    blank = tf.data.Dataset.from_tensors((tf.zeros((*size, 3)), tf.constant(False)))
    return decoded.concatenate(blank).take(1).get_single_element()


def resize_image(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes bilinearly with antialiasing, without keeping the aspect ratio.

    Args:
        image: (H, W, C) or (B, H, W, C), any real type.
        size: (height, width).

    Returns:
        float32 of that size, in the range of `image`.
    """
    return tf.cast(tf.image.resize(image, size, method="bilinear", antialias=True), tf.float32)


def preprocess_image(image: tf.Tensor, preprocessing: Sequence[Preprocessing] = ()) -> tf.Tensor:
    """Applies the operations of `image.preprocessing` to a resized image and rounds the result.

    The model's image is integral: the image store keeps it in eight bits, and the exported graph computes the same numbers.

    Args:
        image: (height, width, 3) in 0..255, at the model's size.
        preprocessing: operations, in their order.

    Returns:
        (height, width, 3) float32, whole numbers in 0..255.
    """
    shape = image.shape
    for operation in preprocessing:
        image = operation(image)
    return tf.ensure_shape(tf.clip_by_value(tf.round(tf.cast(image, tf.float32)), 0.0, 255.0), shape)


def model_image(image: tf.Tensor, size: tuple[int, int], preprocessing: Sequence[Preprocessing] = ()) -> tf.Tensor:
    """The image that a model takes, made of a decoded one: resized, preprocessed, rounded.

    Args:
        image: (H, W, 3) in 0..255.
        size: (height, width) of the result.
        preprocessing: operations, in their order.

    Returns:
        (height, width, 3) float32, whole numbers in 0..255.
    """
    return preprocess_image(tf.ensure_shape(resize_image(image, size), (*size, 3)), preprocessing)


def segmented_image(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The image with everything outside the lesion black: the input `segmented_image` (paper 002, figure 2).

    Args:
        image: (height, width, 3) or (B, height, width, 3) float32, the model's image.
        mask: (H, W, 1) or (B, H, W, 1) of 0 and 1, at any size.

    Returns:
        float32 of the shape of `image`.
    """
    return image * resize_mask(mask, tuple(image.shape[-3:-1]))


def resize_mask(mask: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes a binary mask; a pixel is set if at least half of the area that it stands for is.

    Args:
        mask: (H, W, 1) or (B, H, W, 1) with values 0 and 1.
        size: (height, width).

    Returns:
        float32 of that size, values 0 and 1 only.
    """
    half = 0.5 - 1e-4  # shares of an area add up to 1 within rounding
    return tf.cast(tf.image.resize(mask, size, method="area") >= half, tf.float32)


def load_image(
    path: str | tf.Tensor, size: tuple[int, int] | None = None, preprocessing: Sequence[Preprocessing] = ()
) -> tf.Tensor:
    """An image file as a model takes it: decoded, resized, preprocessed, rounded.

    Args:
        path: the file.
        size: (height, width) of the result; None leaves the file's own size and applies no preprocessing.
        preprocessing: operations, in their order.

    Returns:
        (height, width, 3) float32 RGB, whole numbers in 0..255.
    """
    image = decode_image(tf.io.read_file(path), minimum_size=size)
    return tf.cast(image, tf.float32) if size is None else model_image(image, size, preprocessing)


def load_mask(path: str | tf.Tensor, size: tuple[int, int] | None = None) -> tf.Tensor:
    """A mask file as 0 and 1, (height, width, 1) float32, at its own size or at `size`. See `decode_mask`."""
    mask = tf.cast(decode_mask(tf.io.read_file(path)), tf.float32)
    return mask if size is None else resize_mask(mask, size)

"""CIE L*a*b* of 8 bits (L * 255 / 100, a + 128, b + 128; sRGB, D65), in OpenCV's integer arithmetic and with its results.

Integers give the same numbers eagerly, inside tf.data and in an exported graph, on any processor; tables are also faster than
powers. The names of the constants say what they scale: a level of light has 3 bits more than a grey level, a cube root 15 bits
after the point, light on the way back 14.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_WHITE = np.array([0.950456, 1.0, 1.088754])
_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ_TO_RGB = np.array([[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]])
_TO_XYZ = np.round(2**12 * _RGB_TO_XYZ / _WHITE[:, np.newaxis]).astype(int).tolist()
_TO_RGB = np.round(2**12 * _XYZ_TO_RGB * _WHITE).astype(int).tolist()
_L_SCALE, _L_SHIFT = (116 * 255 + 50) // 100, 16 * 255 * 2**15 // 100
_ONE = 2**14  # light and its cube root on the way back
_LOWEST = -8145  # of the cube roots of X and Z


def _linear_table() -> np.ndarray:
    """(256,) light of each sRGB level, 2040 for the brightest."""
    level = np.arange(256) / 255
    return np.round(2040 * np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)).astype(np.int32)


def _root_table() -> np.ndarray:
    """(3072,) CIE's f of light in steps of 1/2040, times 2^15; in float32, as OpenCV has it."""
    light = np.arange(3072, dtype=np.float32) / np.float32(2040)
    straight = light * np.float32(841 / 108) + np.float32(16 / 116)
    return np.round(np.float32(2**15) * np.where(light < np.float32(216 / 24389), straight, np.cbrt(light))).astype(np.int32)


def _light_and_root_table() -> np.ndarray:
    """(256, 2) Y and its f for each L."""
    level = np.arange(256)
    root = level * (100 * _ONE) / (255 * 116) + 16 * _ONE / 116
    light = np.where(level <= 20, level * _ONE * 180 / (17 * 29.0**3), root**3 / _ONE**2)
    return np.round(np.stack([light, root], axis=-1)).astype(np.int32)


def _cube_table() -> np.ndarray:
    """(36864,) X or Z for each f from `_LOWEST` on; the divisions leave off fractions, as in C."""
    root = np.arange(_LOWEST, _LOWEST + _ONE * 9 // 4)
    straight = np.fix(root * 108 / 841) - int(_ONE * 16 // 116 * 108 // 841)
    return np.where(root <= 3390, straight, root * root // _ONE * root // _ONE).astype(np.int32)


def _level_table() -> np.ndarray:
    """(4096,) float32: the sRGB level of light in steps of 1/4096."""
    light = np.arange(4096) / 4096
    return np.round(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(np.float32)


_LINEAR, _ROOT = _linear_table(), _root_table()
_LIGHT_AND_ROOT, _CUBE, _LEVEL = _light_and_root_table(), _cube_table(), _level_table()


def rgb_to_lab(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """8-bit CIE L*a*b* of an sRGB image, equal to OpenCV's `COLOR_RGB2LAB`.

    Args:
        image: (H, W, 3) float32, 0..255; fractions are rounded.

    Returns:
        L, a and b, each (H, W) int32 in 0..255.
    """
    levels = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.int32)
    rgb = tf.unstack(tf.gather(_LINEAR, levels), axis=-1)
    x, y, z = (tf.gather(_ROOT, _weighted(rgb, row, 12)) for row in _TO_XYZ)
    lightness = _shifted(_L_SCALE * y - _L_SHIFT, 15)
    a = _shifted(500 * (x - y) + 128 * 2**15, 15)
    b = _shifted(200 * (y - z) + 128 * 2**15, 15)
    return lightness, tf.clip_by_value(a, 0, 255), tf.clip_by_value(b, 0, 255)


def lab_to_rgb(lightness: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """sRGB of 8-bit CIE L*a*b*, equal to OpenCV's `COLOR_LAB2RGB`.

    Args:
        lightness, a, b: (H, W) int32 in 0..255.

    Returns:
        (H, W, 3) float32, whole numbers in 0..255.
    """
    light, root = tf.unstack(tf.gather(_LIGHT_AND_ROOT, lightness), axis=-1)
    # a / 500 and b / 200, times 2^14
    x = root + tf.bitwise.right_shift(5 * 53687 * a + 2**7, 13) - 128 * _ONE // 500
    z = root - tf.bitwise.right_shift(41943 * b + 2**4, 9) + 128 * _ONE // 200 - 1
    xyz = [tf.gather(_CUBE, x - _LOWEST), light, tf.gather(_CUBE, z - _LOWEST)]
    levels = tf.stack([_weighted(xyz, row, 14) for row in _TO_RGB])
    return tf.transpose(tf.gather(_LEVEL, tf.clip_by_value(levels, 0, 4095)), (1, 2, 0))  # thrice as fast as stacking last


def _weighted(parts: list[tf.Tensor], weights: list[int], bits: int) -> tf.Tensor:
    return _shifted(parts[0] * weights[0] + parts[1] * weights[1] + parts[2] * weights[2], bits)


def _shifted(value: tf.Tensor, bits: int) -> tf.Tensor:
    """Divides by 2^bits and rounds."""
    return tf.bitwise.right_shift(value + 2 ** (bits - 1), bits)

"""The shared checks, on every layer class of the package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import conformance
import keras
import numpy as np
import pytest

import keras_skin.layers
from keras_skin.layers.availability import AvailabilityMask, KnownFields
from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.layers.cbam import CBAM
from keras_skin.layers.class_frequency import ClassFrequencyClassifier
from keras_skin.layers.class_token import ClassToken
from keras_skin.layers.column_tokens import ColumnTokens
from keras_skin.layers.enlargement import Enlargement, LearnedEnlargement
from keras_skin.layers.field_tokens import FieldTokens
from keras_skin.layers.gated_positional_attention import ContentAttention, GatedPositionalAttention, PositionEmbedding
from keras_skin.layers.metablock import MetaBlock
from keras_skin.layers.metanet import MetaNet
from keras_skin.layers.min_max_scaling import MinMaxScaling
from keras_skin.layers.reverse_joint_gate import ReverseJointGate
from keras_skin.layers.visual_attention import VisualAttention
from keras_skin.layers.window_attention import WindowAttention


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


CASES = [
    (AvailabilityMask, {"fields": 2}, [normal(3, 5), normal(3, 4)]),
    (BatchNormalization, {"momentum": 0.9}, normal(2, 4, 6, 3)),
    (BatchNormalization, {"scale": False, "center": False}, normal(2, 4, 6, 3)),
    (BatchNormalization, {}, normal(5, 3)),
    (CBAM, {"hidden_units": 4}, normal(2, 8, 6, 5)),
    (CBAM, {"hidden_units": 1, "kernel_size": 3}, normal(1, 3, 3, 2)),
    (ClassFrequencyClassifier, {"classes": 3, "strength": 0.3, "class_counts": (5, 9, 40)}, normal(2, 7)),
    (ClassToken, {}, normal(2, 5, 8)),
    (ClassToken, {"positions": False}, normal(2, 5, 8)),
    (ColumnTokens, {"features": 4}, normal(2, 5)),
    (ContentAttention, {"heads": 2}, normal(2, 5, 8)),
    (Enlargement, {"interpolation": "lanczos3"}, abs(normal(2, 4, 6, 3)) * 100),
    (FieldTokens, {"widths": [1, 3], "units": 4}, normal(2, 6)),
    (GatedPositionalAttention, {"heads": 4, "grid": (2, 3)}, normal(2, 6, 8)),
    (KnownFields, {"widths": [1, 3]}, normal(2, 6)),
    (LearnedEnlargement, {}, abs(normal(2, 4, 6, 3)) * 100),
    (MetaBlock, {}, [normal(2, 4, 6, 3), normal(2, 5)]),
    (MetaNet, {}, [normal(2, 4, 6, 3), normal(2, 5)]),
    (MinMaxScaling, {}, normal(2, 4, 6, 3)),
    (PositionEmbedding, {}, normal(2, 5, 8)),
    (ReverseJointGate, {}, [normal(2, 4, 6, 3), normal(2, 3)]),
    (ReverseJointGate, {"gate": "sigmoid"}, [normal(2, 4, 6, 3), normal(2, 3)]),
    (VisualAttention, {}, [normal(2, 4, 6, 3), normal(2, 5)]),
    (WindowAttention, {"heads": 2, "window": 4, "shift": 2}, normal(2, 6, 9, 4)),
]
every_case = pytest.mark.parametrize(("kind", "arguments", "inputs"), CASES)


@every_case
def test_layer(kind: type[keras.layers.Layer], arguments: dict, inputs: np.ndarray | list[np.ndarray]) -> None:
    conformance.check_layer(kind(**arguments), inputs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@every_case
def test_mixed_precision(
    kind: type[keras.layers.Layer], arguments: dict, inputs: np.ndarray | list[np.ndarray], policy: str
) -> None:
    conformance.check_layer_mixed_precision(lambda: kind(**arguments), inputs, policy)


def test_every_layer_has_a_case() -> None:
    result = set()
    for module in pkgutil.iter_modules(keras_skin.layers.__path__, "keras_skin.layers."):
        classes = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        result |= {kind for _, kind in classes if issubclass(kind, keras.layers.Layer) and kind.__module__ == module.name}
    assert result == {kind for kind, _, _ in CASES}

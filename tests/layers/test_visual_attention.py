"""Visual attention against the source's order of operations, position by position."""

import keras
import numpy as np
from keras import ops

from keras_skin.layers.visual_attention import VisualAttention, visual_attention


def test_against_loops() -> None:
    generator = np.random.default_rng(0)
    features, query = generator.normal(size=(2, 3, 4, 5)), generator.normal(size=(2, 6))
    layer = VisualAttention()
    result = layer([features.astype("float32"), query.astype("float32")])
    kernel = generator.normal(size=(5, 6))
    layer.set_weights([kernel])
    result = ops.convert_to_numpy(layer([features.astype("float32"), query.astype("float32")]))
    for image in range(2):
        projected = [features[image, row, column] @ kernel for row in range(3) for column in range(4)]
        scores = np.exp([local @ query[image] for local in projected])
        expected = sum(score * local for score, local in zip(scores / scores.sum(), projected, strict=True))
        np.testing.assert_allclose(result[image], expected, rtol=1e-4, atol=1e-5)


def test_fusion_holds_every_level_and_the_guided_features() -> None:
    levels = [keras.Input((8, 8, 3)), keras.Input((4, 4, 5))]
    pooled, metadata = keras.Input((6,)), keras.Input((2,))
    model = keras.Model([*levels, pooled, metadata], visual_attention(levels, pooled, metadata))
    assert model.output.shape == (None, 18)
    arrays = [np.random.default_rng(0).normal(size=(2, *tensor.shape[1:])) for tensor in model.inputs]
    changed = [*arrays[:3], arrays[3] + 1]
    first, second = (model.predict_on_batch(each) for each in (arrays, changed))
    np.testing.assert_array_equal(first[:, :12], second[:, :12])
    assert (first[:, 12:] != second[:, 12:]).any()

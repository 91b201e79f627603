"""Cross-attention of metadata against NumPy, head by head."""

import keras
import numpy as np

from keras_skin.layers.metadata_cross_attention import metadata_cross_attention


def test_against_numpy() -> None:
    generator = np.random.default_rng(0)
    features, metadata = keras.Input((2, 3, 5)), keras.Input((8,))
    model = keras.Model([features, metadata], metadata_cross_attention(features, metadata, heads=2, width=8))
    assert model.output.shape == (None, 8)
    heads = model.get_layer("metadata_cross_attention_heads")
    values = {}
    for variable in heads.weights:
        values["/".join(variable.path.split("/")[-2:])] = generator.normal(size=variable.shape)
        variable.assign(values["/".join(variable.path.split("/")[-2:])])
    maps, rows = generator.normal(size=(2, 2, 3, 5)), generator.normal(size=(2, 8))
    result = model.predict_on_batch([maps, rows])
    for image in range(2):
        positions, attended = maps[image].reshape(6, 5), []
        for head in range(2):
            query, key, value = (
                source @ values[f"{part}/kernel"][:, head] + values[f"{part}/bias"][head]
                for part, source in (("query", rows[image]), ("key", positions), ("value", positions))
            )
            scores = np.exp(key @ query / np.sqrt(4))
            attended.append((scores / scores.sum()) @ value)
        kernel = values["attention_output/kernel"]
        expected = sum(part @ kernel[head] for head, part in enumerate(attended)) + values["attention_output/bias"]
        np.testing.assert_allclose(result[image], expected, rtol=1e-3, atol=1e-4)

"""MetaNet against its equation in NumPy."""

import numpy as np
from keras import ops

from keras_skin.layers.metanet import MetaNet


def test_against_numpy() -> None:
    generator = np.random.default_rng(0)
    features, metadata = generator.normal(size=(2, 3, 4, 5)), generator.normal(size=(2, 6))
    layer = MetaNet(hidden_units=7)
    layer.build([(None, 3, 4, 5), (None, 6)])
    w_1, b_1, w_2, b_2 = (generator.normal(size=weight.shape) for weight in layer.get_weights())
    layer.set_weights([w_1, b_1, w_2, b_2])
    expected = np.empty_like(features)
    for image in range(2):
        gates = 1 / (1 + np.exp(-(np.maximum(metadata[image] @ w_1 + b_1, 0) @ w_2 + b_2)))
        for channel in range(5):
            expected[image, :, :, channel] = features[image, :, :, channel] * gates[channel]
    result = layer([features.astype("float32"), metadata.astype("float32")])
    np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=1e-4, atol=1e-5)

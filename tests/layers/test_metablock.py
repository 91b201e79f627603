"""MetaBlock against its equation in NumPy."""

import numpy as np
from keras import ops

from keras_skin.layers.metablock import MetaBlock


def test_against_numpy() -> None:
    generator = np.random.default_rng(0)
    features, metadata = generator.normal(size=(2, 3, 4, 5)), generator.normal(size=(2, 6))
    layer = MetaBlock()
    layer.build([(None, 3, 4, 5), (None, 6)])
    weights = {}
    for variable in layer.variables:
        values = generator.uniform(0.5, 2, size=variable.shape)
        variable.assign(values)
        weights["/".join(variable.path.split("/")[-2:])] = values

    def gate(name: str) -> np.ndarray:
        x = metadata @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]
        norm = {key.split("/")[1]: values for key, values in weights.items() if key.startswith(f"{name}_norm/")}
        return (x - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3) * norm["gamma"] + norm["beta"]

    scale, shift = gate("scale"), gate("shift")
    expected = 1 / (1 + np.exp(-(np.tanh(features * scale[:, None, None]) + shift[:, None, None])))
    result = ops.convert_to_numpy(layer([features.astype("float32"), metadata.astype("float32")]))
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)

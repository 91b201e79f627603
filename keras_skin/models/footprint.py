"""The size of a model, by the measures that papers call "size"."""

from __future__ import annotations

import math

import keras

BYTES = 4
MEGABYTE = 1e6


def footprint(model: keras.Model) -> dict[str, float]:
    """Returns each measure by its name, for one image in float32: in MB (1e6 bytes), except for the number of parameters.

    "weights + outputs of layers with weights" explains the sizes in table 1 of paper 002 best. "torchinfo" is the total size that
    PyTorch's tool of that name estimates: image, weights, and twice the outputs of the layers with weights (forward and backward
    pass).

    Args:
        model: a functional model. A layer that is called twice counts twice.
    """
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    outputs = {id(node): sum(_elements(tensor.shape) for tensor in node.output_tensors) for node in nodes}
    layers = [node for node in nodes if isinstance(node.operation, keras.layers.Layer) and not node.is_input]
    parameters = model.count_params()
    images = sum(_elements(tensor.shape) for tensor in keras.tree.flatten(model.inputs))
    weighted = sum(outputs[id(node)] for node in layers if node.operation.weights)
    megabytes = BYTES / MEGABYTE
    return {
        "parameters": parameters,
        "weights": parameters * megabytes,
        "outputs of all layers": sum(outputs[id(node)] for node in layers) * megabytes,
        "outputs of layers with weights": weighted * megabytes,
        "weights + outputs of layers with weights": (parameters + weighted) * megabytes,
        "torchinfo": (images + parameters + 2 * weighted) * megabytes,
    }


def _elements(shape: tuple[int | None, ...]) -> int:
    """Returns the number of elements of a tensor for one image."""
    return math.prod(size or 1 for size in shape)

"""Prints the size of a registered model, by the measures that papers call "size":

    python tools/model_footprint.py deep_unet --image-size 224 224 --arguments '{"backbone": "efficientnet_b3"}'

All sizes are for one image in float32. 1 MB is 1e6 bytes. "torchinfo" is the total size that PyTorch's tool of that name
estimates: image, weights, and twice the outputs of the layers with weights (forward and backward pass).
"""

from __future__ import annotations

import argparse
import json
import math

import keras

from keras_skin.models import create_model

BYTES = 4
MEGABYTE = 1e6


def elements(shape: tuple[int | None, ...]) -> int:
    """Returns the number of elements of a tensor for one image."""
    return math.prod(size or 1 for size in shape)


def outputs(layer: keras.layers.Layer) -> int:
    """Returns the number of elements of the outputs of all calls of a layer, for one image."""
    return sum(elements(tensor.shape) for node in layer._inbound_nodes for tensor in node.output_tensors)


def footprint(model: keras.Model) -> dict[str, float]:
    """Returns each measure by its name, in MB except for the parameters."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    parameters = model.count_params()
    images = sum(elements(tensor.shape) for tensor in keras.tree.flatten(model.inputs))
    weighted = sum(outputs(layer) for layer in layers if layer.weights)
    megabytes = BYTES / MEGABYTE
    return {
        "parameters": parameters,
        "weights": parameters * megabytes,
        "outputs of all layers": sum(map(outputs, layers)) * megabytes,
        "outputs of layers with weights": weighted * megabytes,
        "weights + outputs of layers with weights": (parameters + weighted) * megabytes,
        "torchinfo": (images + parameters + 2 * weighted) * megabytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a registered model")
    parser.add_argument("--image-size", nargs=2, type=int, default=(224, 224), metavar=("H", "W"))
    parser.add_argument("--arguments", type=json.loads, default={}, help="further arguments of the builder, as JSON")
    parser.add_argument("--outputs", nargs="+", help="count only what these outputs need, such as: mask")
    options = parser.parse_args()
    model = create_model(options.model, image_size=tuple(options.image_size), **options.arguments)
    if options.outputs:
        model = keras.Model(model.input, {key: model.output[key] for key in options.outputs})
    for name, value in footprint(model).items():
        print(f"{name:42} {value:12,.0f}" if name == "parameters" else f"{name:42} {value:12,.2f} MB")


if __name__ == "__main__":
    main()

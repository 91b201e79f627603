"""Prints the size of a registered model, by the measures that papers call "size":

    python tools/model_footprint.py deep_unet --image-size 224 224 --arguments '{"backbone": "efficientnet_b3"}'

All sizes are for one image in float32. 1 MB is 1e6 bytes. keras_skin/models/footprint.py describes the measures.
"""

from __future__ import annotations

import argparse
import json

import keras

from keras_skin.models import create_model
from keras_skin.models.footprint import footprint


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

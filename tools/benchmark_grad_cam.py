"""Measures the time of Grad-CAM, of keras_skin and of tf-explain, on the same model, images and machine:

    python tools/benchmark_grad_cam.py --model msfa_resnet18 --images 64 --size 192 256

tf-explain is called once for all images, and once per image. It always draws its maps, so keras_skin is measured with and without
overlays. The first call, which builds graphs, is not counted. The fastest of several repeats counts.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_skin.explain.grad_cam import FEATURES, GradCAM, normalise
from keras_skin.explain.overlay import overlay
from keras_skin.explain.views import logits_view
from keras_skin.models import create_model


class Time(NamedTuple):
    """Seconds of wall-clock time and of processor time. Other programs slow down only the first."""

    clock: float
    processor: float


def seconds(call: Callable[[], object], repeats: int) -> Time:
    """Returns the shortest time of several calls, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        call()
        times.append(Time(time.perf_counter() - start, time.process_time() - start_processor))
    return Time(*map(min, zip(*times, strict=True)))


def compare(model: keras.Model, images: np.ndarray, batch_size: int = 16, repeats: int = 3) -> dict[str, Time]:
    """Returns milliseconds per image of each method."""
    from tf_explain.core.grad_cam import GradCAM as TfExplainGradCAM

    cam, theirs = GradCAM(model), TfExplainGradCAM()
    view = keras.Model(model.input["image"], logits_view(model, "label").output)
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]

    def ours() -> np.ndarray:
        return np.concatenate([cam({"image": batch}, 0) for batch in batches])

    def ours_drawn() -> None:
        heat, _ = normalise(ours())
        for image, map_ in zip(images, heat, strict=True):
            overlay(image, map_, width=images.shape[2])

    def explain(batch: np.ndarray) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*structure of `inputs`")  # of the model that tf-explain builds
            theirs.explain((batch, None), view, 0, layer_name=FEATURES)

    methods: dict[str, Callable[[], object]] = {
        "keras_skin, maps": ours,
        "keras_skin, maps and overlays": ours_drawn,
        "tf-explain, all at once": lambda: explain(images),
        "tf-explain, one by one": lambda: [explain(image[None]) for image in images],
    }
    times = {name: seconds(call, repeats) for name, call in methods.items()}
    return {name: Time(*(1e3 * part / len(images) for part in value)) for name, value in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="msfa_resnet18", help="name of a registered model that takes only images")
    parser.add_argument("--arguments", type=json.loads, default={}, help="further arguments of the builder, as JSON")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", nargs=2, type=int, default=(192, 256), metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    model = create_model(options.model, image_size=tuple(options.size), **options.arguments)
    images = np.random.default_rng(0).uniform(0, 255, (options.images, *options.size, 3)).astype("float32")
    times = compare(model, images, options.batch_size, options.repeats)
    base = times["keras_skin, maps"]
    for name, value in times.items():
        print(
            f"{name:32} {value.clock:9.2f} ms per image ({value.clock / base.clock:5.1f} times the first), "
            f"of processors {value.processor:9.2f} ms ({value.processor / base.processor:5.1f})"
        )


if __name__ == "__main__":
    main()

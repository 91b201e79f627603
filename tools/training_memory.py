"""Measures the memory of a training step of a registered model on this machine's processor:

    python tools/training_memory.py tdbn --batch 8 --arguments '{"metadata_width": 20}'

Each batch size runs in its own process. Prints the peak of resident memory before the first step and after three steps, and the
time of the last step. Adam, random images. Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

MEBIBYTE = 2**20
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # unit of getrusage


def peak() -> float:
    """Returns the peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / MEBIBYTE


def measure(name: str, image_size: tuple[int, int], batch: int, precision: str, arguments: dict[str, object]) -> dict[str, float]:
    """Returns memory in MiB and time in seconds of training steps in this process."""
    import keras
    import numpy as np

    from keras_skin.models import create_model

    keras.config.set_dtype_policy(precision)
    model = create_model(name, image_size=image_size, **arguments)
    rng = np.random.default_rng(0)
    inputs = {key: rng.uniform(0, 255, (batch, *tensor.shape[1:])).astype("float32") for key, tensor in model.input.items()}
    targets = {key: np.zeros((batch, *tensor.shape[1:]), "float32") for key, tensor in model.output.items()}
    model.compile("adam", {key: keras.losses.MeanSquaredError() for key in targets})
    before = peak()
    for _ in range(3):
        start = time.perf_counter()
        loss = model.train_on_batch(inputs, targets)
    seconds = time.perf_counter() - start
    if not np.isfinite(np.asarray(loss)).all():
        raise ValueError(f"the loss is {loss}")
    return {"parameters": model.count_params(), "before": before, "peak": peak(), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a registered model")
    parser.add_argument("--image-size", nargs=2, type=int, default=(224, 224), metavar=("H", "W"))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="batch sizes")
    parser.add_argument("--precision", default="float32", help="precision policy of Keras")
    parser.add_argument("--arguments", type=json.loads, default={}, help="further arguments of the builder, as JSON")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        size = tuple(options.image_size)
        print(json.dumps(measure(options.model, size, options.batch[0], options.precision, options.arguments)))
        return
    print(f"{'batch':>5} {'before, MiB':>12} {'peak, MiB':>12} {'seconds a step':>15}")
    for batch in options.batch:
        command = [sys.executable, __file__, options.model, "--here", "--batch", str(batch), "--precision", options.precision]
        command += ["--image-size", *map(str, options.image_size), "--arguments", json.dumps(options.arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"batch {batch} failed (exit {result.returncode}):\n{result.stderr[-2000:]}")
        result_row = json.loads(result.stdout.splitlines()[-1])
        print(f"{batch:5} {result_row['before']:12,.0f} {result_row['peak']:12,.0f} {result_row['seconds']:15.2f}", flush=True)
    print(f"{result_row['parameters']:,.0f} parameters, {options.precision}")


if __name__ == "__main__":
    main()

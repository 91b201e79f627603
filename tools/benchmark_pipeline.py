"""Measures images per second: decoding, the training data of keras_skin, and a PyTorch DataLoader.

    python tools/benchmark_pipeline.py --data DIR --json pipeline.json

keras_skin and PyTorch run in separate processes, in turn. One repeat is one epoch over all images with a mask. The first
repeat is not counted. docs/performance.md explains the rows.
"""

from __future__ import annotations

import argparse
import functools
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from benchmark_sides import WARM_UP, Side, add_output_options, has_torch, machine, report, serve, summary, take_turns, versions

WORKERS = 2
MEMORY_EPOCHS = 10
REDUCED = 4
TITLES = {
    "decode_full": "decoding alone, full size",
    "decode_reduced": f"decoding alone, 1/{REDUCED} of the size",
    "epoch_cold": "keras_skin, an epoch that writes the store",
    "epoch_warm": "keras_skin, an epoch with the store",
    "torch": "PyTorch DataLoader",
    "torch_reduced": "PyTorch DataLoader, reduced decoding",
}
_JPEG = (".jpg", ".jpeg")


def files(dataset: str, data: Path, limit: int | None) -> list[tuple[str, str]]:
    """Returns image and mask files of a data set, for images with a mask."""
    from keras_skin.data.datasets.records import read_dataset

    table = read_dataset(dataset, data, check_images=False).table
    table = table[table["mask"] != ""].head(limit or len(table))
    if table.empty:
        sys.exit(f"The data set '{dataset}' in {data} has no image with a mask. Choose a data set with masks.")
    return list(zip(table["image"], table["mask"], strict=True))


# keras_skin


def keras_side(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[str, int], Any]]:
    """Measures decoding by TensorFlow and the training data of keras_skin."""
    epochs = StoreEpochs(settings["files"], tuple(settings["size"]), settings["batch"])
    measures: dict[str, Callable[[int], Any]] = {
        "decode_full": lambda _: decoding_rate(settings["files"], 1),
        "decode_reduced": lambda _: decoding_rate(settings["files"], REDUCED),
        "epoch_cold": epochs.cold,
        "epoch_warm": epochs.warm,
        "memory": epochs.memory,
        "wait": functools.partial(epochs.wait, tiny=settings["tiny"], precision=settings["precision"]),
    }
    return {}, lambda row, repeat: measures[row](repeat)


def decoding_rate(pairs: Sequence[tuple[str, str]], ratio: int) -> float:
    """Returns JPEGs per second that TensorFlow decodes in parallel, each at 1/ratio of its size."""
    import tensorflow as tf

    paths = [image for image, _ in pairs if image.lower().endswith(_JPEG)]

    def shape(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
        return tf.reduce_sum(tf.cast(image[:1, :1], tf.int32))  # so that no graph optimisation reads the header only

    started = time.perf_counter()
    decoded = sum(1 for _ in tf.data.Dataset.from_tensor_slices(paths).map(shape, num_parallel_calls=tf.data.AUTOTUNE))
    return decoded / (time.perf_counter() - started)


def store_epoch(pairs: Sequence[tuple[str, str]], size: tuple[int, int], batch: int, cache: Path) -> Any:
    """Returns training data as in a run, with the image store in the folder `cache`."""
    import pandas as pd

    from keras_skin.data.images.store import open_store
    from keras_skin.data.pipeline.augment import FlipsRotations
    from keras_skin.data.pipeline.batches import training_data

    rows = [(f"image_{number}", image, mask, "") for number, (image, mask) in enumerate(pairs)]
    table = pd.DataFrame(rows, columns=["image_id", "image", "mask", "label"])
    store = open_store(table, size, masks="mask", folder=cache)
    if store is None:
        sys.exit("The image store cannot be used, so the benchmark would time decoding instead. The log gives the reason.")
    return training_data(table, (), size, ["image"], ["mask"], batch, augmentation=FlipsRotations(), store=store)


class StoreEpochs:
    """Measures epochs of keras_skin's training data.

    Args:
        pairs: image and mask files.
        size: (height, width) of the model's image.
        batch: images in a batch.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], size: tuple[int, int], batch: int) -> None:
        self._arguments = (pairs, size, batch)
        self._size = size
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark_pipeline-")
        self._epoch = 0

    def cold(self, repeat: int) -> float:
        """Returns images per second of an epoch that starts without a store and writes it."""
        from keras_skin.data.images import digests

        digests._digests.clear()  # a new process has hashed no file yet
        with tempfile.TemporaryDirectory(prefix="benchmark_pipeline-") as folder:
            started = time.perf_counter()
            data = store_epoch(*self._arguments, Path(folder))
            images = count(data.dataset())
            rate = images / (time.perf_counter() - started)
            del data
            gc.collect()  # closes the files of the store before the folder is removed
        return rate

    def warm(self, repeat: int) -> float:
        """Returns images per second of an epoch with the store, which the warm-up repeat writes."""
        data = self._data
        started = time.perf_counter()
        images = count(self._next_epoch(data))
        return images / (time.perf_counter() - started)

    def memory(self, repeat: int) -> list[float]:
        """Returns resident memory in MiB after the first epoch and after each of the next ten."""
        import psutil

        resident = []
        for _ in range(1 + MEMORY_EPOCHS):
            count(self._next_epoch(self._data))
            gc.collect()
            resident.append(psutil.Process().memory_info().rss / 2**20)
        return resident

    def wait(self, repeat: int, tiny: bool, precision: str) -> float:
        """Returns the share of an epoch's training steps spent waiting for the next batch."""
        waiting, working = 0.0, 0.0
        model = self._model(tiny, precision)
        batches = iter(self._next_epoch(self._data))
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            arrived = time.perf_counter()
            if batch is None:
                return waiting / (waiting + working)
            waiting += arrived - started
            model.train_on_batch(*batch)
            working += time.perf_counter() - arrived

    @functools.cached_property
    def _data(self) -> Any:
        return store_epoch(*self._arguments, Path(self._folder.name))

    def _next_epoch(self, data: Any) -> Any:
        self._epoch += 1
        data.start(self._epoch)
        return data.dataset()

    @functools.cache  # noqa: B019  one object per process
    def _model(self, tiny: bool, precision: str) -> Any:
        import keras

        from keras_skin import models
        from keras_skin.training.compile import compile_model
        from keras_skin.training.optimizers import make_optimizer

        keras.config.set_dtype_policy(precision)
        arguments = {"filters": models.get("unet").info["tiny"]["filters"]} if tiny else {}
        model = models.create_model("unet", image_size=self._size, **arguments)
        optimizer = make_optimizer({"name": "adam", "learning_rate": 1e-3}, epochs=1, steps=1)
        return compile_model(model, {"mask": {"name": "dice_binary_crossentropy"}}, optimizer, metrics=False)


def count(batches: Iterable[tuple[dict[str, Any], Any]]) -> int:
    """Counts the images of all batches."""
    return sum(int(inputs["image"].shape[0]) for inputs, _ in batches)


# PyTorch


class TorchPictures:
    """A data set for PyTorch's DataLoader: OpenCV decodes and resizes, albumentations augments image and mask.

    Args:
        pairs: image and mask files.
        size: (height, width) of the model's image.
        reduced: decode a JPEG at 1/2, 1/4 or 1/8 of its size where that keeps at least twice `size`.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], size: tuple[int, int], reduced: bool) -> None:
        self._pairs, self._size = pairs, size
        self._flags = [decoding_flag(image, size) if reduced else cv2.IMREAD_COLOR for image, _ in pairs]
        self._augment: Any = None

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Returns image (3, H, W) uint8 and mask (1, H, W) uint8 of 0 and 1. Converting whole batches to float32 is cheaper."""
        import torch

        if self._augment is None:
            cv2.setNumThreads(0)  # the workers already use all cores
            self._augment = augmentation()
        height, width = self._size
        image = cv2.imread(self._pairs[index][0], self._flags[index])
        mask = cv2.imread(self._pairs[index][1], cv2.IMREAD_GRAYSCALE)
        if image is None or mask is None:
            raise ValueError(f"OpenCV cannot decode {self._pairs[index]}.")
        image = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (width, height), interpolation=cv2.INTER_AREA)
        mask = (cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) >= 128).astype(np.uint8)
        augmented = self._augment(image=image, mask=mask)
        channels_first = np.ascontiguousarray(augmented["image"].transpose(2, 0, 1))
        return torch.from_numpy(channels_first), torch.from_numpy(np.ascontiguousarray(augmented["mask"][np.newaxis]))


def decoding_flag(path: str, size: tuple[int, int]) -> int:
    """Returns OpenCV's flag for the smallest decoding that keeps at least twice `size`."""
    from PIL import Image

    flags = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    with Image.open(path) as image:
        width, height = image.size
    fitting = (flag for ratio, flag in flags.items() if height // ratio >= 2 * size[0] and width // ratio >= 2 * size[1])
    return next(fitting, cv2.IMREAD_COLOR)


def augmentation() -> Any:
    """Returns the operations of the augmentation `flips_rotations`, written with albumentations."""
    import albumentations

    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.VerticalFlip(p=0.5),
            albumentations.Rotate((-15.0, 15.0), border_mode=cv2.BORDER_REFLECT_101, p=1.0),
            albumentations.RandomBrightnessContrast((-0.2, 0.2), (-0.2, 0.2), p=1.0),
        ]
    )


def torch_side(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[str, int], Any]]:
    """Measures a DataLoader with two persistent workers."""
    from torch.utils.data import DataLoader

    @functools.cache
    def loader(row: str) -> Any:
        pictures: Any = TorchPictures(settings["files"], tuple(settings["size"]), reduced=row == "torch_reduced")
        return DataLoader(pictures, settings["batch"], shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def measure(row: str, repeat: int) -> float:
        batches, images = loader(row), 0
        started = time.perf_counter()
        for image, mask in batches:
            images += len(image.float())
            mask.float()
        return images / (time.perf_counter() - started)

    return {"workers": WORKERS}, measure


# The benchmark


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder that holds data sets, or the data set's own folder")
    parser.add_argument("--dataset", default="isic2016", help="name of a registered data set whose images have masks")
    parser.add_argument("--images", type=int, metavar="N", help="only the first N images")
    add_output_options(parser)
    parser.add_argument("--memory", action="store_true", help=f"measure keras_skin's memory over {MEMORY_EPOCHS} epochs, too")
    parser.add_argument("--wait", action="store_true", help="measure how long a training of `unet` waits for data, too")
    parser.add_argument("--precision", default="float32", help="dtype policy of that training")
    parser.add_argument("--tiny", action="store_true", help="train a tiny U-Net, to try the benchmark")
    parser.add_argument("--side", choices=["keras", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        serve(keras_side if options.side == "keras" else torch_side)
        return 0
    if options.data is None:
        parser.error("--data is required: the folder that holds the data set")
    pairs = files(options.dataset, options.data, options.images)
    jpegs = sum(image.lower().endswith(_JPEG) for image, _ in pairs)
    settings = {key: getattr(options, key) for key in ("size", "batch", "tiny", "precision")} | {"files": pairs}
    keras = Side(__file__, "keras", settings)
    sides = [keras]
    keys = [(keras, key) for key in ("decode_full", "decode_reduced") if jpegs] + [(keras, "epoch_cold")]
    if has_torch():
        torch = Side(__file__, "torch", settings)
        sides.append(torch)
        keys += [(torch, "torch"), (keras, "epoch_warm"), (torch, "torch_reduced")]
    else:
        keys.append((keras, "epoch_warm"))
    rows = take_turns([(side, key, TITLES[key]) for side, key in keys], options.repeats, "images/s")
    result: dict[str, Any] = {
        "benchmark": "pipeline",
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "dataset": options.dataset,
            "images": len(pairs),
            "size": "x".join(map(str, options.size)),
            "batch": options.batch,
            "repeats": options.repeats,
            "workers": WORKERS,
        },
        "rows": sorted(rows, key=lambda row: list(TITLES).index(row["row"])),
        "notes": [] if jpegs else ["The data set has no JPEG, so decoding alone is not measured."],
    }
    if options.memory:
        resident = keras.measure("memory", 0)
        growth = resident[-1] - resident[0]
        result["memory"] = {"growth_mib": growth, "resident_mib": resident}
        result["notes"].append(f"Resident memory grew by {growth:.1f} MiB over {MEMORY_EPOCHS} epochs of keras_skin's loader.")
    if options.wait:
        keras.measure("wait", WARM_UP)
        shares = [keras.measure("wait", repeat) for repeat in range(options.repeats)]
        model = "tiny unet" if options.tiny else "unet"
        result["wait"] = {"model": model, "precision": options.precision, **summary(shares), "values": shares}
        result["notes"].append(
            f"A training of {model} ({options.precision}) waits for data {summary(shares)['median']:.2%} of its time."
        )
    for side in sides:
        side.close()
    report(result, options.json, options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())

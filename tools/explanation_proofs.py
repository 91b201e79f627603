"""Shows on rendered images that the measures of explanations detect bad explanations:

    python tools/explanation_proofs.py --out proofs

`lesion`: only the lesion determines the class, and it can be anywhere in the image. The maps must lie in it and beat a Gaussian
in the centre. `sticker`: the colour of a round sticker beside the lesion reveals the class, as rulers and ink do in real
collections. The relevance must move to the sticker, and the red line must appear.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

import cv2
import keras
import numpy as np

from keras_skin.data.datasets.stand_ins.looks import draw_diagnosis
from keras_skin.explain import measures
from keras_skin.explain.callback import ExplainCallback, Explanations
from keras_skin.explain.grad_cam import GradCAM
from keras_skin.explain.samples import ExplainSample

CLASSES = ("BKL", "VASC")
SIZE = (96, 128)
STICKERS = ((60, 90, 220), (40, 170, 80))
RADIUS = 14


class Pictures(NamedTuple):
    """Images (N, H, W, 3) float32, masks of the lesion and of the sticker (N, H, W) bool, labels (N,)."""

    images: np.ndarray
    lesions: np.ndarray
    stickers: np.ndarray
    labels: np.ndarray


class Proof(NamedTuple):
    """Results on one kind of images.

    Attributes:
        accuracy: accuracy on the validation images.
        explanations: results of the callback. Its files are in `folder` of `prove`.
        relevance_on_sticker: mean share of the maps' relevance on the sticker; NaN without stickers.
        sticker_share: share of the sticker in the image.
    """

    accuracy: float
    explanations: Explanations
    relevance_on_sticker: float
    sticker_share: float


def draw(count: int, seed: int, stickers: bool) -> Pictures:
    """Draws lesions of two classes at random places, with `stickers` each beside a sticker in the colour of its class."""
    generator = np.random.default_rng(seed)
    rows = []
    while len(rows) < count:
        label = len(rows) % 2
        image, lesion = _moved(generator, *draw_diagnosis(generator, CLASSES[label], SIZE, artefacts=False))
        sticker = _sticker(generator, lesion) if stickers else np.zeros(SIZE, bool)
        if sticker is not None:
            image[sticker] = STICKERS[label]
            rows.append((image.astype(np.float32), lesion, sticker, label))
    return Pictures(*(np.stack(column) for column in zip(*rows, strict=True)))


def prove(stickers: bool, folder: Path, train: int = 600, validation: int = 48, epochs: int = 12, seed: int = 0) -> Proof:
    """Trains a small network and explains it.

    Args:
        stickers: whether stickers reveal the class.
        folder: folder for the callback's files.
        train: number of training images.
        validation: number of images that are explained and measured.
        epochs: epochs of the training.
        seed: seed of images, weights and training.
    """
    keras.utils.set_random_seed(seed)
    fitted, tested = draw(train, seed, stickers), draw(validation, seed + 1, stickers)
    model = small_network()
    model.compile(
        keras.optimizers.Adam(2e-3),
        loss={"label": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    )
    samples = [
        ExplainSample(f"{CLASSES[label]}_{number}", {"image": image}, int(label), lesion)
        for number, (image, lesion, label) in enumerate(zip(tested.images, tested.lesions, tested.labels, strict=True))
    ]
    explain = ExplainCallback(samples, folder, CLASSES, max_pictures=8, synthetic=True, seed=seed)
    model.fit({"image": fitted.images}, {"label": fitted.labels}, epochs=epochs, batch_size=32, verbose=0, callbacks=[explain])
    logits = model.predict({"image": tested.images}, verbose=0)["label"]
    heat = GradCAM.upsample(GradCAM(model)({"image": tested.images}), SIZE)
    return Proof(
        float((logits.argmax(axis=1) == tested.labels).mean()),
        explain.result,
        float(np.nanmean(measures.relevance_inside(heat, tested.stickers))) if stickers else float("nan"),
        float(tested.stickers.mean()),
    )


def small_network() -> keras.Model:
    """Four convolutions; what is averaged has a quarter of the picture's size, and is pushed to be zero where nothing is."""
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    for number, (filters, stride) in enumerate(((16, 2), (32, 2), (32, 1), (48, 1)), start=1):
        x = keras.layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        sparse = {"name": "cam_features", "activity_regularizer": keras.regularizers.L1(3e-4)}
        x = keras.layers.ReLU(**(sparse if number == 4 else {"name": f"encoder_{number}"}))(x)
    return keras.Model({"image": image}, {"label": keras.layers.Dense(2, name="label")(keras.layers.GlobalAveragePooling2D()(x))})


def _moved(generator: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts image and mask at random, as far as the border at most. The uncovered area is filled with mirrored skin."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    room = [max(min(left, SIZE[1] - left - width) - 1, 0), max(min(top, SIZE[0] - top - height) - 1, 0)]
    across, down = (int(generator.integers(-most, most + 1)) for most in room)
    shift = np.array([[1, 0, across], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(image, shift, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)
    return moved, cv2.warpAffine(mask.astype(np.uint8), shift, SIZE[::-1]) > 0


def _sticker(generator: np.random.Generator, lesion: np.ndarray) -> np.ndarray | None:
    """Returns a disc that does not touch the lesion, or None if there is no room for it."""
    for _ in range(50):
        centre = [int(generator.integers(RADIUS, side - RADIUS)) for side in SIZE[::-1]]
        disc = cv2.circle(np.zeros(SIZE, np.uint8), centre, RADIUS, 1, cv2.FILLED) > 0
        if not (disc & lesion).any():
            return disc
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("proofs"), help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for name, stickers in (("lesion", False), ("sticker", True)):
        proof = prove(stickers, options.out / name, seed=options.seed)
        print(f"{name}: accuracy {proof.accuracy:.3f}")
        for metric, value in proof.explanations.metrics["cam_features"].items():
            interval = "" if value["ci95"] is None else f" ({value['ci95'][0]:.3f} to {value['ci95'][1]:.3f})"
            print(f"  {metric:28} {value['value']:.3f}{interval}, n {value['n']}")
        if stickers:
            print(f"  {'relevance on the sticker':28} {proof.relevance_on_sticker:.3f}, its share {proof.sticker_share:.3f}")
        for line in proof.explanations.warnings:
            print(f"  RED: {line}")


if __name__ == "__main__":
    main()

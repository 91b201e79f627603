"""Shows that the measures of explanations can come out badly, on images drawn by a program:

    python tools/explanation_proofs.py --out proofs

`lesion`: only the lesion tells the class, and it lies anywhere in the picture. The maps must lie in it, and beat a Gaussian in
the middle. `sticker`: a round sticker beside the lesion gives the class away by its colour, as rulers and ink do in real
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

from keras_skin.data.synthetic_classes import draw_diagnosis
from keras_skin.explain import measures
from keras_skin.explain.callback import ExplainCallback, Explanations
from keras_skin.explain.grad_cam import GradCAM
from keras_skin.explain.samples import ExplainSample

CLASSES = ("NV", "VASC")
SIZE = (96, 128)
STICKERS = ((60, 90, 220), (40, 170, 80))
RADIUS = 11


class Pictures(NamedTuple):
    """Images (N, H, W, 3) float32, masks of the lesion and of the sticker (N, H, W) bool, labels (N,)."""

    images: np.ndarray
    lesions: np.ndarray
    stickers: np.ndarray
    labels: np.ndarray


class Proof(NamedTuple):
    """What was found with one kind of pictures.

    Attributes:
        accuracy: on the validation images.
        explanations: of the callback; its files lie in the folder given.
        relevance_on_sticker: mean share of the maps' relevance on the sticker; NaN where there is none.
        sticker_share: of the picture.
    """

    accuracy: float
    explanations: Explanations
    relevance_on_sticker: float
    sticker_share: float


def draw(count: int, seed: int, stickers: bool) -> Pictures:
    """Lesions of two looks, cut out so that they lie anywhere; with stickers each has one of its class's colour beside it."""
    generator = np.random.default_rng(seed)
    drawn = []
    while len(drawn) < count:
        label = len(drawn) % 2
        large, mask = draw_diagnosis(generator, CLASSES[label], (SIZE[0] * 4 // 3, SIZE[1] * 4 // 3), artefacts=False)
        top, left = (int(generator.integers(whole - part + 1)) for whole, part in zip(mask.shape, SIZE, strict=True))
        window = np.s_[top : top + SIZE[0], left : left + SIZE[1]]
        if mask[window].sum() < 0.9 * mask.sum() or mask[window].mean() < 0.05:
            continue
        image, lesion = np.ascontiguousarray(large[window]), mask[window]
        sticker = _sticker(generator, lesion) if stickers else np.zeros(SIZE, bool)
        if sticker is not None:
            image[sticker] = STICKERS[label]
            drawn.append((image.astype(np.float32), lesion, sticker, label))
    return Pictures(*(np.stack(column) for column in zip(*drawn, strict=True)))


def prove(stickers: bool, folder: Path, train: int = 600, validation: int = 48, epochs: int = 12, seed: int = 0) -> Proof:
    """Trains a small network and explains it.

    Args:
        stickers: whether stickers give the class away.
        folder: for what the callback writes.
        train: training images.
        validation: images that are explained and measured.
        epochs: of the training.
        seed: of everything.
    """
    keras.utils.set_random_seed(seed)
    seen, tested = draw(train, seed, stickers), draw(validation, seed + 1, stickers)
    model = small_network()
    model.compile(
        keras.optimizers.Adam(2e-3),
        loss={"label": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    )
    samples = [
        ExplainSample(f"{CLASSES[label]}_{number}", {"image": image}, int(label), lesion)
        for number, (image, lesion, label) in enumerate(zip(tested.images, tested.lesions, tested.labels, strict=True))
    ]
    explain = ExplainCallback(samples, folder, CLASSES, drawn=8, synthetic=True, seed=seed)
    model.fit({"image": seen.images}, {"label": seen.labels}, epochs=epochs, batch_size=32, verbose=0, callbacks=[explain])
    logits = model.predict({"image": tested.images}, verbose=0)["label"]
    heat = GradCAM.upsample(GradCAM(model)({"image": tested.images}), SIZE)
    return Proof(
        float((logits.argmax(axis=1) == tested.labels).mean()),
        explain.result,
        float(np.nanmean(measures.relevance_inside(heat, tested.stickers))) if stickers else float("nan"),
        float(tested.stickers.mean()),
    )


def small_network() -> keras.Model:
    """Four convolutions; what is averaged has an eighth of the picture's size."""
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    for number, (filters, stride) in enumerate(((16, 2), (32, 2), (48, 2), (64, 1)), start=1):
        x = keras.layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU(name="cam_features" if number == 4 else f"encoder_{number}")(x)
    return keras.Model({"image": image}, {"label": keras.layers.Dense(2, name="label")(keras.layers.GlobalAveragePooling2D()(x))})


def _sticker(generator: np.random.Generator, lesion: np.ndarray) -> np.ndarray | None:
    """A disc that does not touch the lesion; None where no place is found."""
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

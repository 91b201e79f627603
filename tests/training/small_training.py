"""A small model with everything that makes a resume hard (dropout, batch normalisation, two outputs), data for it, and a script
that trains it in a separate process.

As a script: `python small_training.py FOLDER '{"epochs": 3, ...}'` trains in FOLDER and writes what came out to
FOLDER/outcome.npz.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

SIZE, CLASSES, BATCH, STEPS = 8, 2, 4, 5


def small_model(dropout: float = 0.5) -> keras.Model:
    """A model of the house's shape: one image in, a mask and a label out."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    mask = keras.layers.Conv2D(1, 1, dtype="float32", name="mask_logits")(x)
    label = keras.layers.Dense(CLASSES, dtype="float32", name="label_logits")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model({"image": image}, {"mask": mask, "label": label}, name="small")


def compiled_model(optimizer: Any = None, dropout: float = 0.5) -> keras.Model:
    """`small_model` with Keras' own losses and metrics."""
    model = small_model(dropout)
    model.compile(
        optimizer=optimizer or keras.optimizers.Adam(0.01),
        loss={
            "mask": keras.losses.BinaryCrossentropy(from_logits=True),
            "label": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
        loss_weights={"mask": 0.5, "label": 0.5},
        metrics={
            "mask": [keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
            "label": [keras.metrics.CategoricalAccuracy(name="accuracy"), keras.metrics.AUC(from_logits=True, name="auc")],
        },
    )
    return model


class SmallData:
    """Training data whose batches are functions of (seed, epoch, index), as `fit` wants them."""

    def __init__(
        self, steps: int = STEPS, seed: int = 0, batches: int | None = None, bad_step: tuple[int, int] | None = None
    ) -> None:
        self.steps = steps
        self.seed = seed
        self.batches = steps if batches is None else batches
        self.bad_step = bad_step
        self.epoch = 0
        self.step = 0
        self.starts: list[tuple[int, int]] = []

    def start(self, epoch: int, step: int = 0) -> None:
        self.epoch, self.step = epoch, step
        self.starts.append((epoch, step))

    def image_ids(self, epoch: int, step: int) -> list[str]:
        return [f"image_{epoch}_{step}_{i}" for i in range(BATCH)]

    def batch(self, epoch: int, step: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        rng = np.random.default_rng([self.seed, epoch, step])
        images = rng.uniform(0, 255, (BATCH, SIZE, SIZE, 3)).astype("float32")
        if (epoch, step) == self.bad_step:
            images[0, 0, 0, 0] = np.nan
        masks = (images.mean(axis=3, keepdims=True) > 128).astype("float32")
        labels = np.eye(CLASSES, dtype="float32")[(images.mean(axis=(1, 2, 3)) > 127.5).astype(int)]
        return {"image": images}, {"mask": masks, "label": labels}

    def dataset(self) -> tf.data.Dataset:
        def batches() -> Any:
            for step in range(self.step, self.batches):
                yield self.batch(self.epoch, step)

        return tf.data.Dataset.from_generator(
            batches,
            output_signature=(
                {"image": tf.TensorSpec((None, SIZE, SIZE, 3), "float32")},
                {"mask": tf.TensorSpec((None, SIZE, SIZE, 1), "float32"), "label": tf.TensorSpec((None, CLASSES), "float32")},
            ),
        ).prefetch(2)


def validation_data(batches: int = 2) -> tf.data.Dataset:
    """A fixed data set of known length."""
    parts = [SmallData(seed=99).batch(0, step) for step in range(batches)]
    whole = keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    return tf.data.Dataset.from_tensor_slices(whole).batch(BATCH)


class SignalAt(keras.callbacks.Callback):
    """Sends this process a signal after a step of an epoch (both from 0)."""

    def __init__(self, epoch: int, step: int, number: int) -> None:
        super().__init__()
        self.at = (epoch, step)
        self.number = number
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == self.at:
            signal.raise_signal(self.number)


def main(folder: Path, settings: dict[str, Any]) -> int:
    """Trains by the command line; exits like a command on an interruption."""
    from keras_skin.training.errors import TrainingInterrupted
    from keras_skin.training.fit import fit
    from keras_skin.training.optimizers import make_optimizer
    from keras_skin.training.plateau import Plateau
    from keras_skin.training.precision import set_determinism

    precision = settings.pop("precision", "float32")
    # Another seed after a resume shows that nothing comes from the seed any more.
    set_determinism(settings.pop("seed", 0), deterministic=True)
    keras.config.set_dtype_policy(precision)
    callbacks = []
    if "signal" in settings:
        epoch, step, number = settings.pop("signal")
        callbacks.append(SignalAt(epoch, step, getattr(signal, number)))
    schedule = settings.pop("schedule", {"name": "exponential", "factor": 0.1})
    optimizer = make_optimizer({"name": "adam", "learning_rate": 0.01}, schedule, epochs=settings["epochs"], steps=STEPS)
    if schedule.pop("name") == "plateau":
        settings["plateau"] = Plateau(**schedule)
    model = compiled_model(optimizer)
    try:
        result = fit(model, SmallData(), validation_data(), folder=folder, callbacks=callbacks, **settings)
    except TrainingInterrupted as interruption:
        print(interruption)
        return interruption.exit_code
    arrays = {
        f"v{i}": np.asarray(variable.numpy(), dtype="float64")
        for i, variable in enumerate([*model.variables, *model.optimizer.variables])
    }
    np.savez(folder / "outcome.npz", history=result.history.drop(columns="seconds").to_numpy(), best=result.best_epoch, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))

"""A small training whose epochs a curriculum chooses: `python curriculum_training.py FOLDER '{"epochs": 4, ...}'`.

What came out is written to FOLDER/outcome.npz.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import small_training as small
import tensorflow as tf

from keras_skin.data.pipeline.balance.curriculum import Curriculum
from keras_skin.training.sample_losses import SampleLossFeedback

LABELS = np.array(["nevus"] * 12 + ["melanoma"] * 6)
CLASSES = ["melanoma", "nevus"]
BATCH = 4


class CurriculumData:
    """Batches of 18 fixed images, noise added by (epoch, place), in the way of the package's pipeline."""

    def __init__(self, curriculum: Curriculum, steps: int = 5) -> None:
        rng = np.random.default_rng(7)
        self.images = rng.uniform(0, 200, (len(LABELS), small.SIZE, small.SIZE, 3)).astype("float32")
        self.masks = (self.images.mean(axis=3, keepdims=True) > 100).astype("float32")
        self.one_hot = np.eye(2, dtype="float32")[[CLASSES.index(label) for label in LABELS]]
        self.curriculum = curriculum
        self.steps = steps
        self.position = (0, 0)

    def start(self, epoch: int, step: int = 0) -> None:
        self.position = (epoch, step)

    def rows(self, epoch: int) -> np.ndarray:
        rows = self.curriculum.draw(LABELS, epoch, np.random.default_rng([1, epoch])).rows
        return np.random.default_rng([2, epoch]).permutation(rows)[: self.steps * BATCH]

    def batch(self, epoch: int, step: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        rows = self.rows(epoch)[step * BATCH : (step + 1) * BATCH]
        noise = np.random.default_rng([3, epoch, step]).uniform(0, 50, (len(rows), 1, 1, 1)).astype("float32")
        return {"image": self.images[rows] + noise}, {"mask": self.masks[rows], "label": self.one_hot[rows]}

    def dataset(self) -> tf.data.Dataset:
        def batches() -> Any:
            epoch, first = self.position
            for step in range(first, self.steps):
                yield self.batch(epoch, step)

        inputs, targets = self.batch(0, 0)
        signature = keras.tree.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), "float32"), (inputs, targets))
        return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)


def compiled(feedback: SampleLossFeedback, **optimizer: Any) -> keras.Model:
    """The small model with a metric for the losses of single images on each output."""
    model = small.small_model()
    losses = {
        "mask": keras.losses.BinaryCrossentropy(from_logits=True),
        "label": keras.losses.CategoricalCrossentropy(from_logits=True),
    }
    weights = {"mask": 0.25, "label": 2.0}
    model.compile(
        optimizer=keras.optimizers.Adam(0.01, **optimizer),
        loss=losses,
        loss_weights=weights,
        metrics={
            "mask": [feedback.metric(losses["mask"], weights["mask"])],
            "label": [
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                feedback.metric(losses["label"], weights["label"]),
            ],
        },
    )
    return model


def main(folder: Path, settings: dict[str, Any]) -> None:
    """Trains by the command line."""
    from keras_skin.training.fit import fit
    from keras_skin.training.precision import set_determinism

    # Another seed after a resume shows that nothing comes from the seed any more.
    set_determinism(settings.pop("seed", 0), deterministic=True)
    callbacks: list[Any] = []
    if "killed_at" in settings:
        callbacks.append(small.SignalAt(*settings.pop("killed_at"), signal.SIGKILL))
    curriculum = Curriculum(LABELS, start_share=0.5, full_after=3, replay_probability=0.3, buffer_share=0.5)
    data = CurriculumData(curriculum)
    feedback = SampleLossFeedback(curriculum, data)
    model = compiled(feedback)
    fit(model, data, small.validation_data(9), folder=folder, callbacks=[feedback, *callbacks], save_every_steps=2, **settings)
    np.savez(
        folder / "outcome.npz",
        difficulty=curriculum.difficulty,
        state=np.frombuffer(json.dumps(curriculum.get_state()).encode(), np.uint8),
        **{f"rows_{epoch}": data.rows(epoch) for epoch in range(settings["epochs"])},
        **{f"v{index}": np.asarray(variable) for index, variable in enumerate([*model.variables, *model.optimizer.variables])},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))

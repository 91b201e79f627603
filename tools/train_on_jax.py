"""Trains a run on a machine that has JAX and a GPU but no TensorFlow and no data sets:

    python -m keras_skin.run jrl_isic --data DIR            # here; Ctrl-C as soon as it trains
    python tools/train_on_jax.py pack runs/jrl_isic-20260131-101500 packed.npz
    KERAS_BACKEND=jax python tools/train_on_jax.py train packed.npz trained       # there; the same command continues
    python tools/train_on_jax.py unpack trained runs/jrl_isic-20260131-101500     # here
    python -m keras_skin.run --resume runs/jrl_isic-20260131-101500               # measures, explains, exports

Order, augmentation, losses, optimizer, schedule, averages and the choice of the best epoch are the experiment's own, by the same
code. The images travel as JPEG at the model's size (`--quality`), so pixels differ by the loss of that compression. Refused are
balancings and augmentations that need TensorFlow or the losses of single images: curricula, blends and whole-batch augmentations.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keras_skin.console import exit_code
from keras_skin.registry import UserError, atomic_path

SPLITS = ("train", "validation")
INITIAL = "initial.weights.h5"
CHECKPOINTS, HISTORY, MACHINE = "checkpoints", "history.csv", "machine.json"
THREADS = max(2, os.cpu_count() or 2)


@dataclass(frozen=True)
class PackedSplit:
    """The images of a split.

    Attributes:
        images: (N, H, W, 3) uint8.
        masks: (N, H, W) uint8 of 0 and 1; (N, 0, 0) where the model needs none.
        labels: (N, K) float32, one-hot.
        names: (N,) classes.
        metadata: (N, M) float32; (N, 0) without.
        ids: (N,) ids of the images.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    metadata: np.ndarray
    ids: np.ndarray


def pack(path: Path, target: Path, quality: int) -> None:
    """Writes the images and settings of a run that was started and interrupted into one file.

    Raises:
        UserError: if the run has not started to train, or cannot be trained elsewhere.
    """
    from keras_skin.run_folder import RunFolder
    from keras_skin.training.best_weights import save_weights
    from keras_skin.training.precision import set_determinism
    from keras_skin.training.run_state import load_run_state
    from keras_skin.workflow import steps
    from keras_skin.workflow.initial import start_from
    from keras_skin.workflow.opened_run import build_model

    folder = RunFolder.open(path)
    if not folder.state.is_file():
        raise UserError(f"'{path}' has not started to train. Start it, and press Ctrl-C once it trains.")
    experiment = folder.experiment
    refuse(experiment)
    with folder.locked():
        run = steps.prepare(folder, folder.data_dir, 0, resume=True)
    set_determinism(experiment.train.seed, experiment.train.deterministic)  # the random weights of the run itself
    model = build_model(experiment, len(run.data.classes), run.data.model_arguments, pretrained=not experiment.model.init)
    if experiment.model.init:
        start_from(model, experiment.model.init)
    with tempfile.TemporaryDirectory() as temporary:
        save_weights(model, Path(temporary) / INITIAL)
        arrays: dict[str, np.ndarray] = {"weights": np.frombuffer((Path(temporary) / INITIAL).read_bytes(), np.uint8)}
    facts = {
        "experiment": json.loads(experiment.to_json()),
        "classes": list(run.data.classes),
        "model_arguments": run.data.model_arguments,
        "shift": folder.label_shift,
        "precision": run.precision,
        "context": load_run_state(folder.state).record["context"],
        "size": experiment.image_size,
    }
    arrays["json"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    for split in [split for split in SPLITS if len(run.data.rows(split))]:
        arrays |= {f"{split}/{name}": values for name, values in _packed(run, split, quality).items()}
    with atomic_path(target) as temporary_file, temporary_file.open("wb") as file:
        np.savez(file, **arrays)
    print(f"Packed: {target}, {target.stat().st_size / 2**20:.0f} MiB")


def refuse(experiment: Any) -> None:
    """Raises a UserError if an experiment needs TensorFlow while it trains."""
    problems = []
    if experiment.balancing.name not in ("none", "oversample", "partial"):
        problems.append(f"balancing '{experiment.balancing.name}'")
    if experiment.batch_augmentation:
        problems.append(f"batch augmentation '{experiment.batch_augmentation.name}'")
    if experiment.split.scheme == "kfold":
        problems.append("the folds of a cross-validation")
    if experiment.train.backbone:
        problems.append("train.backbone")
    if problems:
        raise UserError(f"This experiment cannot be trained elsewhere: {', '.join(problems)}.")


def _packed(run: Any, split: str, quality: int) -> dict[str, np.ndarray]:
    """Arrays of a split: JPEG and PNG files one after the other, with the place where each ends, and the columns of the table."""
    from keras_skin.data.images.rows import image_rows
    from keras_skin.data.pipeline.samples import mask_column

    table, data = run.data.rows(split), run.data
    column = mask_column(list(run.model.input), list(run.model.output))
    masks = table[column].tolist() if column else None
    rows = image_rows(data.store, table["image"].tolist(), masks, run.experiment.image_size, run.preprocessing)
    pictures, outlines = [], []
    for number in range(len(table)):
        image, mask = (value.numpy()[0] for value in rows.batch(np.array([number])))
        pictures.append(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        if mask.size:
            outlines.append(cv2.imencode(".png", mask * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])[1])
    metadata = data.encoded(table)
    return {
        **_joined("images", pictures),
        **_joined("masks", outlines),
        "names": table["label"].to_numpy(str),
        "ids": table["image_id"].to_numpy(str),
        "metadata": np.zeros((len(table), 0), np.float32) if metadata is None else metadata,
    }


def _joined(name: str, files: list[np.ndarray]) -> dict[str, np.ndarray]:
    content = np.concatenate([file.ravel() for file in files]) if files else np.zeros(0, np.uint8)
    return {name: content, f"{name}_end": np.cumsum([file.size for file in files], dtype=np.int64)}


def read_split(archive: Any, split: str, classes: list[str], size: tuple[int, int]) -> PackedSplit:
    """Decodes the images of a packed split."""

    def files(name: str) -> list[np.ndarray]:
        content, ends = archive[f"{split}/{name}"], archive[f"{split}/{name}_end"]
        return np.split(content, ends[:-1]) if len(ends) else []

    with ThreadPoolExecutor(THREADS) as pool:
        images = list(
            pool.map(lambda file: cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), files("images"))
        )
        masks = list(pool.map(lambda file: (cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) > 127).astype(np.uint8), files("masks")))
    names = archive[f"{split}/names"]
    return PackedSplit(
        np.stack(images),
        np.stack(masks) if masks else np.zeros((len(images), 0, 0), np.uint8),
        (names[:, np.newaxis] == np.array(classes)).astype(np.float32),
        names,
        archive[f"{split}/metadata"].astype(np.float32),
        archive[f"{split}/ids"],
    )


def train(packed: Path, out: Path) -> None:
    """Trains what was packed; `out` then holds the checkpoints, the history and a description of the machine.

    The same call continues an interrupted training.

    Raises:
        UserError: if there is no packed run in the file.
    """
    import keras

    from keras_skin import models
    from keras_skin.data.pipeline import augment, balance
    from keras_skin.data.pipeline.order import EpochOrder
    from keras_skin.experiment.loading import validate
    from keras_skin.training.best_weights import load_weights
    from keras_skin.training.compile import compile_model
    from keras_skin.training.fit import fit
    from keras_skin.training.optimizers import make_optimizer
    from keras_skin.training.plateau import Plateau
    from keras_skin.training.validation_shift import ValidationShift

    if not zipfile.is_zipfile(packed):
        raise UserError(f"'{packed}' is no file of `pack`, or it does not exist. Pack a run first.")
    out.mkdir(parents=True, exist_ok=True)
    with np.load(packed, allow_pickle=False) as archive:
        facts = json.loads(archive["json"].tobytes())
        (out / INITIAL).write_bytes(archive["weights"].tobytes())
        splits = [
            read_split(archive, split, facts["classes"], tuple(facts["size"])) for split in SPLITS if f"{split}/names" in archive
        ]
    experiment = validate(facts["experiment"], str(packed))
    settings = experiment.train
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(facts["precision"])
    builder = models.get(experiment.model.name).builder
    accepted = models.registry.parameters(experiment.model.name)
    learned = {key: value for key, value in facts["model_arguments"].items() if key in accepted}
    arguments = {**experiment.model.arguments, **({"weights": None} if "weights" in experiment.model.arguments else {})}
    model = builder(image_size=experiment.image_size, classes=len(facts["classes"]), **learned, **arguments)
    keras.config.set_dtype_policy("float32")
    load_weights(model, out / INITIAL)

    policy = augment.get(experiment.augmentation.name).builder(**experiment.augmentation.arguments)
    name = experiment.balancing.name
    sampler = None if name == "none" else balance.get(name).builder(**experiment.balancing.arguments)
    order = EpochOrder(splits[0].names, settings.batch_size, settings.seed, sampler, policy, settings.steps_per_epoch)
    inputs, outputs = list(model.input), list(model.output)
    data = PackedEpochs(splits[0], order, policy, inputs, outputs)
    losses = experiment.loss_settings
    if experiment.balancing.class_weights and "label" in losses:
        counts = splits[0].labels.sum(axis=0)
        losses["label"]["class_weights"] = (len(splits[0].names) / (len(counts) * counts)).tolist()
    if facts["shift"]:
        model = ValidationShift(model, facts["shift"])
    schedule = settings.schedule.model_dump(exclude_none=True)
    optimizer = make_optimizer(settings.optimizer.model_dump(), schedule, epochs=settings.epochs, steps=data.steps)
    compile_model(model, losses, optimizer=optimizer)
    (out / MACHINE).write_text(json.dumps(machine()))
    result = fit(
        model,
        data,
        batches_of(splits[1], settings.batch_size, inputs, outputs) if len(splits) > 1 else None,
        epochs=settings.epochs,
        folder=out / CHECKPOINTS,
        monitor=settings.monitor,
        patience=settings.early_stopping.patience if settings.early_stopping else None,
        plateau=Plateau(**schedule) if schedule.pop("name") == "plateau" else None,
        ema=settings.ema,
        resume=True,
        history_file=out / HISTORY,
        context=facts["context"],
    )
    print(f"Trained {len(result.history)} epochs; best epoch {result.best_epoch}, {result.monitor}: {result.best_value}")


class PackedEpochs:
    """The training data of `fit`: the batches of `keras_skin.data.pipeline.batches`, made by NumPy and OpenCV alone."""

    def __init__(self, split: PackedSplit, order: Any, policy: Any, inputs: list[str], outputs: list[str]) -> None:
        self._split, self._order, self._policy = split, order, policy
        self._names = inputs, outputs
        self._position = (0, 0)
        self._drawn = (0, order.samples(0))
        self.steps = order.steps

    def start(self, epoch: int, step: int = 0) -> None:
        """Sets where the next iteration starts."""
        self._position = (epoch, step)

    def image_ids(self, epoch: int, step: int) -> list[str]:
        """Ids of the images of one batch."""
        size = self._order.batch_size
        return self._split.ids[self._order.samples(epoch).rows[step * size : (step + 1) * size]].tolist()

    def dataset(self) -> Any:
        """Batches from the position to the end of its epoch."""
        return batches(self._remaining, lambda: self.steps - self._position[1])

    def _remaining(self, number: int) -> Any:
        from keras_skin.data.pipeline.order import SAMPLE

        epoch, first = self._position
        size = self._order.batch_size
        places = np.arange((first + number) * size, min((first + number + 1) * size, len(self._samples(epoch))))
        images, masks = [], []
        for place in places:
            row = self._samples(epoch).rows[place]
            image, mask = self._split.images[row], self._split.masks[row]
            if self._policy.changes_images:
                variant, rng = int(self._samples(epoch).variants[place]), self._order.random(epoch, SAMPLE, int(place))
                image, changed = self._policy(image, mask if mask.size else None, variant, rng)
                mask = mask if changed is None else changed
            images.append(image)
            masks.append(mask)
        return finish(self._split, self._samples(epoch).rows[places], np.stack(images), np.stack(masks), *self._names)

    def _samples(self, epoch: int) -> Any:
        drawn = self._drawn  # several threads ask
        if drawn[0] != epoch:
            drawn = self._drawn = (epoch, self._order.samples(epoch))
        return drawn[1]


def batches_of(split: PackedSplit, size: int, inputs: list[str], outputs: list[str]) -> Any:
    """The images of a split in order, unchanged."""

    def batch(number: int) -> Any:
        rows = np.arange(number * size, min((number + 1) * size, len(split.names)))
        return finish(split, rows, split.images[rows], split.masks[rows], inputs, outputs)

    return batches(batch, lambda: -(-len(split.names) // size))


def batches(make: Any, count: Any) -> Any:
    """Batches for `model.fit`, made in several threads, with the two properties of a `tf.data.Dataset` that `fit` reads."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return int(count())

        def __getitem__(self, number: int) -> Any:
            return make(number)

        def cardinality(self) -> int:
            return len(self)

        @property
        def element_spec(self) -> Any:
            return keras.tree.map_structure(lambda array: keras.KerasTensor((None, *array.shape[1:]), array.dtype), make(0))

    return Batches(workers=THREADS, max_queue_size=2 * THREADS)


def finish(
    split: PackedSplit, rows: np.ndarray, images: np.ndarray, masks: np.ndarray, inputs: list[str], outputs: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and targets of some rows, as `Samples.finish` makes them."""
    image, mask = images.astype(np.float32), masks.astype(np.float32)[..., np.newaxis]
    targets = {
        "mask": mask,
        "mask_aux_1": mask,
        "mask_aux_2": mask,
        "label": split.labels[rows],
        "super_resolution": np.zeros((len(rows), 1), np.float32),  # the model makes its own target from the image
    }
    made = {"image": image, "metadata": split.metadata[rows]}
    if "segmented_image" in inputs:
        made["segmented_image"] = image * mask
    return {name: made[name] for name in inputs}, {name: targets[name] for name in outputs}


def machine() -> dict[str, Any]:
    """Processor, cores and accelerators, as in environment.json."""
    import platform

    import jax
    import keras

    devices = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    facts = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "gpus": devices}
    return {"machine": facts, "versions": {"jax": jax.__version__, "keras": keras.__version__, "numpy": np.__version__}}


def unpack(trained: Path, path: Path) -> None:
    """Puts a finished training into the folder of its run, which then resumes with the measuring.

    Raises:
        UserError: if the training is not finished, or is that of another run.
    """
    import shutil

    from keras_skin.run_folder import RunFolder
    from keras_skin.training.run_state import load_run_state

    folder = RunFolder.open(path)
    here, there = load_run_state(folder.state), load_run_state(trained / CHECKPOINTS / folder.state.name)
    epochs = folder.experiment.train.epochs
    if there.record["context"] != here.record["context"]:
        raise UserError(f"'{trained}' is the training of another run than '{path}': its experiment or images differ.")
    if not there.record["stopped"] and there.record["epoch"] < epochs:
        raise UserError(f"'{trained}' has trained {there.record['epoch']} of {epochs} epochs. Continue it.")
    with folder.locked():
        for file in (trained / CHECKPOINTS).glob("best*.weights.h5"):
            shutil.copyfile(file, folder / CHECKPOINTS / file.name)
        shutil.copyfile(trained / HISTORY, folder / HISTORY)
        _write_state(folder.state, here, there)
        folder.update_record(trained_elsewhere=json.loads((trained / MACHINE).read_text()))
    print(f"Resume the run: python -m keras_skin.run --resume {path}")


def _write_state(path: Path, here: Any, there: Any) -> None:
    """Writes a state of JAX as one of TensorFlow, whose counters have other dtypes."""
    from keras_skin.training.run_state import FORMAT

    if [item[1] for item in here.layout] != [item[1] for item in there.layout]:
        raise UserError("The trained model has other weights than the run's: train with the same version of keras_skin.")
    arrays = {f"{number:05d}": array.astype(here.arrays[number].dtype) for number, array in enumerate(there.arrays)}
    record = {**there.record, "callbacks": {**here.record["callbacks"], **there.record["callbacks"]}}
    text = json.dumps({"format": FORMAT, "layout": here.layout, "record": record})
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, json=np.frombuffer(text.encode(), np.uint8), **arrays)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write the images and settings of a started run into one file")
    packing.add_argument("run", type=Path)
    packing.add_argument("file", type=Path)
    packing.add_argument("--quality", type=int, default=95, metavar="N", help="of the JPEG files, 1 to 100 (default: 95)")
    training = commands.add_parser("train", help="train what was packed, with KERAS_BACKEND=jax")
    training.add_argument("file", type=Path)
    training.add_argument("out", type=Path)
    unpacking = commands.add_parser("unpack", help="put the training into the folder of the run")
    unpacking.add_argument("out", type=Path)
    unpacking.add_argument("run", type=Path)
    options = parser.parse_args(arguments)

    def work() -> None:
        if options.command == "pack":
            pack(options.run, options.file, options.quality)
        elif options.command == "train":
            train(options.file, options.out)
        else:
            unpack(options.out, options.run)

    return exit_code(work, "Interrupted. The same command continues.")


if __name__ == "__main__":
    sys.exit(main())

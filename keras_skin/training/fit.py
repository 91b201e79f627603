"""The training itself."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import keras
import pandas as pd

from keras_skin.registry import UserError, remove_temporaries
from keras_skin.run_folder import BEST_WEIGHTS, RUN_STATE
from keras_skin.training.averaging import WeightAveraging
from keras_skin.training.best_weights import BestWeights, load_weights
from keras_skin.training.checkpoints import Checkpoints
from keras_skin.training.epoch_callbacks import EpochCallbacks
from keras_skin.training.errors import NonFiniteLoss, TrainingInterrupted
from keras_skin.training.history import EpochHistory
from keras_skin.training.interrupts import HeldInterrupts
from keras_skin.training.monitor import Monitor
from keras_skin.training.non_finite import StopAtNonFiniteLoss
from keras_skin.training.plateau import FallOnPlateau, Plateau
from keras_skin.training.progress import Progress
from keras_skin.training.run_state import load_run_state

__all__ = ["NonFiniteLoss", "TrainingData", "TrainingInterrupted", "TrainingResult", "build_training_state", "fit"]

logger = logging.getLogger("keras_skin.training")


class TrainingData(Protocol):
    """The training data of `fit`. Order and randomness must be functions of (seed, epoch, index) alone."""

    steps: int

    def dataset(self) -> Any:
        """A `tf.data.Dataset` of (inputs, targets); each new iteration begins where `start` said and ends with the epoch."""

    def start(self, epoch: int, step: int = 0) -> None:
        """Sets epoch and step (both from 0) at which the next iteration begins."""


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training; the model holds the weights of `best_epoch` (of the last epoch where that is None).

    Attributes:
        history: one row per epoch: `epoch`, `learning_rate`, `seconds` and every logged value.
        monitor: in words, by what the best epoch was chosen.
        best_epoch: from 1; None if the monitored value never was a number.
        best_value: the monitored value of that epoch; None where the last epoch is kept.
        stopped_early: whether the training ended before its last epoch.
    """

    history: pd.DataFrame
    monitor: str
    best_epoch: int | None
    best_value: float | None
    stopped_early: bool


def fit(
    model: keras.Model,
    train: TrainingData,
    validation: Any = None,
    *,
    epochs: int,
    folder: str | os.PathLike[str],
    callbacks: Sequence[keras.callbacks.Callback] = (),
    monitor: str | Sequence[str] = "val_loss",
    mode: str = "auto",
    patience: int | None = None,
    plateau: Plateau | None = None,
    ema: float | None = None,
    resume: bool = False,
    history_file: str | os.PathLike[str] | None = None,
    save_every_seconds: float = 60.0,
    save_every_steps: int | None = None,
    context: Mapping[str, Any] | None = None,
    stream: TextIO | None = None,
) -> TrainingResult:
    """Trains a compiled model, keeps its best weights, and can continue a training that was cut short at any step.

    Every epoch is one call of `model.fit` on what is left of that epoch: Keras has no notion of an epoch that begins in its
    middle. The folder holds `run_state.npz` (see `run_state`), `best.weights.h5` and, by default, `history.csv`.

    Args:
        model: a compiled model.
        train: the training data.
        validation: a finite `tf.data.Dataset`, or None. If it does not know its length, it is read once to count its batches.
        epochs: number of epochs of the whole training, those before a resume included.
        folder: where the state and the best weights are kept.
        callbacks: further Keras callbacks. They are called once per training, epoch and step, as by a single `model.fit`; those
            that remember something offer `get_state()` (JSON values) and `set_state(state)`.
        monitor: the logged value, or values whose mean, decides which epoch is best; `"last"` keeps the last epoch.
        mode: `"min"`, `"max"` or `"auto"`, which depends on the names.
        patience: stop after this many epochs without improvement; None trains all epochs.
        plateau: lower the learning rate where the monitored value stays; the optimizer must have a rate, not a schedule.
        ema: momentum of an average of the weights (see `WeightAveraging`), which is validated, and kept where it is best, instead
            of the trained weights; None keeps no average.
        resume: continue from the state in `folder`; where there is none yet, start at the beginning.
        history_file: the CSV file of the history; `history.csv` in `folder` if None.
        save_every_seconds: save the state within an epoch when this much time has passed.
        save_every_steps: also save it whenever this many steps of an epoch are done.
        context: JSON values that must be the same when the training resumes, such as the experiment and digests of the data.
        stream: where a terminal's progress line goes; standard error if None.

    Returns:
        The result; the best weights are loaded into the model.

    Raises:
        UserError: on an unknown `monitor`, or a state in `folder` that is not to be continued or does not fit.
        NonFiniteLoss: after the first step with a loss that is not a finite number.
        TrainingInterrupted: on Ctrl-C and SIGTERM, after the state is saved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / RUN_STATE
    if state_file.exists() and not resume:
        raise UserError(f"{folder} already holds a training. Continue it (resume), or choose another folder.")
    remove_temporaries(folder)  # each may be as large as the state itself
    dataset = train.dataset()
    names = build_training_state(model, dataset.element_spec)
    chosen = Monitor.create(monitor, mode, [*names, *(f"val_{name}" for name in names if validation is not None)])

    history = EpochHistory(history_file or folder / "history.csv")
    best = BestWeights(folder / BEST_WEIGHTS, chosen, patience)
    progress = Progress(epochs, train.steps, history, best, stream)
    with HeldInterrupts() as interrupts:
        others = [StopAtNonFiniteLoss(train, train.steps), *callbacks, history, best, progress]
        if plateau:
            others.append(FallOnPlateau(plateau, best))
        averaging = WeightAveraging(model, ema, train.steps) if ema is not None else None
        if averaging:
            # First: all callbacks see the averages after an epoch. Last: the state holds the trained weights.
            restore = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: averaging.use_trained_weights())
            others = [averaging, *others, restore]
        checkpoints = Checkpoints(
            state_file, others, epochs, train.steps, interrupts, save_every_seconds, save_every_steps, context
        )
        model.stop_training = False
        if state_file.exists():
            checkpoints.resume(load_run_state(state_file), model)
        _announce(model, train, checkpoints, epochs, chosen)
        every = EpochCallbacks([*others, checkpoints], model, epochs, train.steps)
        try:
            _run_epochs(model, train, dataset, validation, epochs, every, checkpoints)
        finally:
            progress.clear()
    if averaging:
        averaging.use_averages()
    _load_best(model, best)
    return TrainingResult(history.table(), str(chosen), best.best_epoch, best.best_value, len(history.rows) < epochs)


def build_training_state(model: keras.Model, element_spec: Any) -> list[str]:
    """Creates the variables of optimizer and metrics, which Keras would create in the first step; the model does not change.

    Args:
        model: a compiled model.
        element_spec: the structure of one training batch, (inputs, targets).

    Returns:
        The names under which training values are logged; validation puts `val_` before them.
    """
    predicted = model.output
    targets = element_spec[1]
    if isinstance(predicted, dict) and set(predicted) != set(targets):
        raise ValueError(
            f"The model's outputs are {sorted(predicted)}, the targets in the data {sorted(targets)}; they must be the same."
        )

    def blank(spec: Any) -> Any:
        return keras.ops.zeros([size or 1 for size in spec.shape], dtype=keras.backend.standardize_dtype(spec.dtype))

    y_true, y_pred = keras.tree.map_structure(blank, targets), keras.tree.map_structure(blank, predicted)
    model.compute_loss(x=None, y=y_true, y_pred=y_pred)
    logged = model.compute_metrics(None, y_true, y_pred)
    names = [name for name, value in logged.items() if not isinstance(value, dict)]  # an empty result is not logged
    model.reset_metrics()
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return names


def _run_epochs(
    model: keras.Model,
    train: TrainingData,
    dataset: Any,
    validation: Any,
    epochs: int,
    callbacks: EpochCallbacks,
    checkpoints: Checkpoints,
) -> None:
    # Keras must never read past the end: the step that finds no batch still runs the operations that need none, such as counting
    # the optimizer's iterations. So it gets the length of both data sets.
    validation_steps = None if validation is None else _count_batches(validation)
    callbacks.begin_training()
    if not checkpoints.stopped:
        for epoch in range(checkpoints.epoch, epochs):
            callbacks.first_step = checkpoints.step if epoch == checkpoints.epoch else 0
            train.start(epoch, callbacks.first_step)
            with warnings.catch_warnings():
                # What Keras warns of is an error below.
                warnings.filterwarnings("ignore", message="Your input ran out of data", category=UserWarning)
                model.fit(
                    dataset,
                    initial_epoch=epoch,
                    epochs=epoch + 1,
                    steps_per_epoch=train.steps - callbacks.first_step,
                    validation_data=validation,
                    validation_steps=validation_steps,
                    callbacks=callbacks,
                    shuffle=False,
                    verbose=0,
                )
            if model.stop_training:
                break
            if callbacks.steps_seen < train.steps:
                raise RuntimeError(
                    f"The training data ended after {callbacks.steps_seen} of {train.steps} steps in epoch {epoch + 1}."
                )
    callbacks.end_training()


def _count_batches(dataset: Any) -> int:
    known = int(dataset.cardinality())
    if known == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError("The validation data set never ends; it must be one pass over the validation part.")
    return known if known >= 0 else sum(1 for _ in dataset)


def _announce(model: keras.Model, train: TrainingData, checkpoints: Checkpoints, epochs: int, monitor: Monitor) -> None:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    logger.info(
        f"training {model.name}: {model.count_params():,} parameters, {epochs} epochs of {train.steps} steps, "
        f"{type(optimizer).__name__}; best epoch = {monitor}"
    )
    if checkpoints.stopped or checkpoints.epoch >= epochs:
        logger.info("this training is complete: nothing left to train")
    elif (checkpoints.epoch, checkpoints.step) != (0, 0):
        logger.info(f"continuing in epoch {checkpoints.epoch + 1} after {checkpoints.step} of {train.steps} steps")
    if not checkpoints.stopped and checkpoints.epoch < epochs:
        logger.info("building the graph: the first step takes longest")


def _load_best(model: keras.Model, best: BestWeights) -> None:
    if best.best_epoch is None:
        logger.warning(f"no epoch had a finite value of {best.monitor}: the weights of the last epoch are kept")
        return
    best.publish()
    load_weights(model, best.path)
    if best.best_value is None:
        logger.info(f"the weights of epoch {best.best_epoch}, the last one, are kept")
    else:
        logger.info(f"best epoch {best.best_epoch}: {best.monitor} {best.best_value:.4f}; its weights are loaded")

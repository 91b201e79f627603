"""The training step of a run: sampler, losses, optimizer, fit."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Any, cast

import keras
import pandas as pd

from keras_skin.data.images.digests import file_digests
from keras_skin.data.images.thumbnails import thumbnail_features
from keras_skin.data.pipeline import augment, balance, batch_augment, batches
from keras_skin.data.pipeline.balance.curriculum import Curriculum, CurriculumDraw, curriculum_tables
from keras_skin.experiment import Experiment
from keras_skin.explain.callback import ExplainCallback
from keras_skin.registry import UserError
from keras_skin.training.compile import compile_model
from keras_skin.training.fit import TrainingResult, fit
from keras_skin.training.optimizers import make_optimizer
from keras_skin.training.plateau import Plateau
from keras_skin.training.sample_losses import SampleLossFeedback
from keras_skin.training.unfreeze import UnfreezePlan, train_gently
from keras_skin.training.validation_shift import ValidationShift
from keras_skin.workflow.explaining import first_picture
from keras_skin.workflow.opened_run import ActiveRun
from keras_skin.workflow.predictor import label_shift
from keras_skin.workflow.prepare import PreparedData

log = logging.getLogger("keras_skin")


@dataclass(frozen=True)
class Trained:
    """Results of a training beside the weights.

    Attributes:
        result: history and best epoch.
        coverage: how many of the training images were seen, in words.
        samples: samples of each class in the first epoch.
        shown: the same, times the weight of the class in the loss.
        curriculum: images admitted and samples replayed, per epoch and class; None without a curriculum.
    """

    result: TrainingResult
    coverage: str
    samples: dict[str, int]
    shown: dict[str, float]
    curriculum: tuple[pd.DataFrame, pd.DataFrame] | None


def train(run: ActiveRun, resume: bool, explainer: ExplainCallback | None = None) -> Trained:
    """Trains the model on the training split and loads its best weights. `explainer` draws after some epochs."""
    experiment, model = run.experiment, run.model
    settings, images, validation = experiment.train, run.data.rows("train"), run.data.rows("validation")
    sampler = _sampler(experiment, images)
    batch = experiment.batch_augmentation
    data = batches.training_data(
        images,
        run.data.classes,
        experiment.image_size,
        list(model.input),
        list(model.output),
        settings.batch_size,
        seed=settings.seed,
        sampler=sampler,
        augmentation=augment.get(experiment.augmentation.name).builder(**experiment.augmentation.arguments),
        preprocessing=run.preprocessing,
        steps_per_epoch=settings.steps_per_epoch,
        store=run.data.store,
        metadata=run.data.encoded(images),
        batch_augmentation=batch_augment.get(batch.name).builder(**batch.arguments) if batch else None,
    )
    feedback = SampleLossFeedback(sampler, data) if isinstance(sampler, Curriculum) else None
    losses = experiment.loss_settings
    if experiment.balancing.class_weights and "label" in losses:
        losses["label"]["class_weights"] = class_weights(images, run.data.classes)
    samples = data.class_counts()
    weights = losses.get("label", {}).get("class_weights") or [1.0] * len(run.data.classes)
    shown = {name: samples.get(name, 0) * weight for name, weight in zip(run.data.classes, weights, strict=True)}
    if experiment.predict.prior:
        model = ValidationShift(model, record_prior(run, shown))
    schedule = settings.schedule.model_dump(exclude_none=True)
    optimizer = make_optimizer(settings.optimizer.model_dump(), schedule, epochs=settings.epochs, steps=data.steps)
    callbacks: list[keras.callbacks.Callback] = [feedback] if feedback else []
    if settings.backbone:
        optimizer, unfreezing = train_gently(model, optimizer, UnfreezePlan(**settings.backbone.model_dump()), steps=data.steps)
        callbacks.append(unfreezing)
    if explainer:
        callbacks.append(first_picture(run, explainer))
    if explainer and explainer.every:
        explainer.set_model(run.model)
        # Without the wrapper the callback would also explain the last weights; the best are explained later.
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=explainer.on_epoch_end))
    compile_model(model, losses, optimizer=optimizer, sample_losses=feedback.metric if feedback else None)
    result = fit(
        model,
        data,
        run.batches(validation) if len(validation) else None,
        epochs=settings.epochs,
        folder=run / "checkpoints",
        callbacks=callbacks,
        monitor=settings.monitor,
        patience=settings.early_stopping.patience if settings.early_stopping else None,
        plateau=Plateau(**schedule) if schedule.pop("name") == "plateau" else None,
        ema=settings.ema,
        resume=resume,
        history_file=run / "history.csv",
        save_every_seconds=settings.save_every_seconds,
        context={"experiment": json.loads(experiment.to_json()), "data": data_digest(run.data)},
    )
    epochs = range(len(result.history))
    different = set().union(*(data.images_seen(epoch) for epoch in epochs))
    coverage = f"{len(different)} of {len(images)}"
    log.info("Training images seen: %s", coverage)
    tables = None
    if feedback:
        draws = [cast(CurriculumDraw, data.draw(epoch)) for epoch in epochs]
        tables = curriculum_tables(draws, images["label"].to_numpy(str), run.data.classes)
    return Trained(result, coverage, samples, shown, tables)


def record_prior(run: ActiveRun, shown: dict[str, float]) -> list[float]:
    """Writes the shift of `predict.prior` into run.json and returns it, one number per class.

    Raises:
        UserError: if the wanted shares are not those of the classes.
    """
    prior = run.experiment.predict.prior
    if isinstance(prior, dict):
        if set(prior) != set(shown):
            raise UserError(f"predict.prior has shares of {', '.join(prior)}; expected those of all classes: {', '.join(shown)}.")
        wanted = {name: prior[name] for name in shown}
    else:
        counts = run.data.rows("train")["label"].value_counts()
        wanted = {name: 1.0 if prior == "uniform" else float(counts.get(name, 0)) for name in shown}
    shift = label_shift(shown, wanted)
    run.update_record(label_prior={"shown": shown, "wanted": wanted, "shift": shift})
    log.info("Class prior: logits are shifted by %s", ", ".join(f"{name} {value:+.2f}" for name, value in shift.items()))
    return list(shift.values())


def data_digest(data: PreparedData) -> dict[str, str]:
    """Digests of the splits and of the contents of all files; a run resumes only with the same ones."""
    table = data.table
    files = [path for column in ("image", "mask") for path in table[column]]
    rows = table[["dataset", "image_id", "split"]].sort_values(["dataset", "image_id", "split"])
    return {
        "images": hashlib.sha256(" ".join(sorted(file_digests(files))).encode()).hexdigest(),
        "splits": hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest(),
    }


def class_weights(images: pd.DataFrame, classes: tuple[str, ...]) -> list[float]:
    """Inverse class frequencies of the training split, with mean 1 over its images.

    Raises:
        UserError: if a class has no training image.
    """
    counts = images["label"].value_counts().reindex(list(classes), fill_value=0)
    if (counts == 0).any():
        raise UserError(f"balancing.class_weights: no training image of {', '.join(counts.index[counts == 0])}.")
    return [float(len(images) / (len(classes) * count)) for count in counts]


def _sampler(experiment: Experiment, images: pd.DataFrame) -> Any:
    """The sampler of the epochs, fitted on the training split; None shows each image once."""
    settings, seed = experiment.balancing, experiment.train.seed
    if settings.name == "none":
        return None
    entry, labels = balance.get(settings.name), images["label"].to_numpy(object)
    batch = experiment.batch_augmentation
    if entry.info.get("needs_losses"):
        if batch and batch_augment.get(batch.name).info.get("mixes_images"):
            raise UserError(
                f"balancing '{settings.name}' depends on the loss of each image, but batch_augmentation '{batch.name}' mixes "
                "images: leave one of them out."
            )
        return entry.builder(labels=labels, seed=seed, **settings.arguments)
    sampler = entry.builder(**settings.arguments)
    if entry.info.get("needs_features"):
        log.info("Looking for similar images of each class")
        sampler.fit(thumbnail_features(images["image"].tolist(), seed=seed), labels)
        for note in sampler.notes:
            log.info("%s", note)
    return sampler

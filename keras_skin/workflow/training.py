"""The training step of a run: what its epochs draw from, its losses, its fit."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import keras
import pandas as pd
import tensorflow as tf

from keras_skin.data.images import preprocess
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
from keras_skin.workflow.folder import RunFolder
from keras_skin.workflow.prepare import PreparedData

log = logging.getLogger("keras_skin")


@dataclass(frozen=True)
class Trained:
    """What a training leaves beside the model's weights.

    Attributes:
        result: history and best epoch.
        seen: how many of the training images were seen, in words.
        samples: samples of each class in the first epoch.
        curriculum: images admitted and samples replayed, per epoch and class; None without a curriculum.
    """

    result: TrainingResult
    seen: str
    samples: dict[str, int]
    curriculum: tuple[pd.DataFrame, pd.DataFrame] | None


def train(
    folder: RunFolder,
    experiment: Experiment,
    model: keras.Model,
    prepared: PreparedData,
    resume: bool,
    explainer: ExplainCallback | None = None,
) -> Trained:
    """Trains the model on the training part; its best weights are loaded afterwards. `explainer` draws after some epochs."""
    settings, images = experiment.train, prepared.part("train")
    sampler = _sampler(experiment, images)
    batch = experiment.batch_augmentation
    data = batches.training_data(
        images,
        prepared.classes,
        experiment.image_size,
        list(model.input),
        list(model.output),
        settings.batch_size,
        seed=settings.seed,
        sampler=sampler,
        augmentation=augment.get(experiment.augmentation.name).builder(**experiment.augmentation.arguments),
        preprocessing=preprocessing(experiment),
        steps_per_epoch=settings.steps_per_epoch,
        store=prepared.store,
        metadata=prepared.encoded(images),
        batch_augmentation=batch_augment.get(batch.name).builder(**batch.arguments) if batch else None,
    )
    feedback = SampleLossFeedback(sampler, data) if isinstance(sampler, Curriculum) else None
    losses = experiment.loss_settings
    if experiment.balancing.class_weights and "label" in losses:
        losses["label"]["class_weights"] = class_weights(images, prepared.classes)
    schedule = settings.schedule.model_dump(exclude_none=True)
    optimizer = make_optimizer(settings.optimizer.model_dump(), schedule, epochs=settings.epochs, steps=data.steps)
    callbacks: list[keras.callbacks.Callback] = [feedback] if feedback else []
    if settings.backbone:
        optimizer, unfreezing = train_gently(model, optimizer, UnfreezePlan(**settings.backbone.model_dump()), steps=data.steps)
        callbacks.append(unfreezing)
    if explainer and explainer.every:
        explainer.set_model(model)
        # of its own it would also explain the last weights, and only the best are worth that
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=explainer.on_epoch_end))
    compile_model(model, losses, optimizer=optimizer, sample_losses=feedback.metric if feedback else None)
    result = fit(
        model,
        data,
        evaluation_batches(experiment, model, prepared, prepared.part("validation")),
        epochs=settings.epochs,
        folder=folder / "checkpoints",
        callbacks=callbacks,
        monitor=settings.monitor,
        patience=settings.early_stopping.patience if settings.early_stopping else None,
        plateau=Plateau(**schedule) if schedule.pop("name") == "plateau" else None,
        resume=resume,
        history_file=folder / "history.csv",
        save_every_seconds=settings.save_every_seconds,
        context={"experiment": json.loads(experiment.to_json()), "data": data_digest(prepared)},
    )
    epochs = range(len(result.history))
    different = set().union(*(data.images_seen(epoch) for epoch in epochs))
    seen = f"{len(different)} of {len(images)}"
    log.info("Training images seen: %s", seen)
    tables = None
    if feedback:
        draws = [cast(CurriculumDraw, data.draw(epoch)) for epoch in epochs]
        tables = curriculum_tables(draws, images["label"].to_numpy(str), prepared.classes)
    return Trained(result, seen, data.class_counts(), tables)


def data_digest(prepared: PreparedData) -> dict[str, str]:
    """What a run resumes with must have: digests of the splits, and of the contents of all image and mask files."""
    table = prepared.table
    files = [path for column in ("image", "mask") for path in table[column]]
    rows = table[["dataset", "image_id", "split"]].sort_values(["dataset", "image_id", "split"])
    return {
        "images": hashlib.sha256(" ".join(sorted(file_digests(files))).encode()).hexdigest(),
        "splits": hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest(),
    }


def evaluation_batches(
    experiment: Experiment, model: keras.Model, prepared: PreparedData, table: pd.DataFrame
) -> tf.data.Dataset:
    """Batches of rows of `prepared` in their order, unchanged."""
    return batches.evaluation_data(
        table,
        prepared.classes,
        experiment.image_size,
        list(model.input),
        list(model.output),
        experiment.train.batch_size,
        preprocessing=preprocessing(experiment),
        metadata=prepared.encoded(table),
        store=prepared.store,
    )


def preprocessing(experiment: Experiment) -> list[Callable[[tf.Tensor], tf.Tensor]]:
    """The operations that the experiment puts between resizing and the model."""
    return [preprocess.get(item.name).builder(**item.arguments) for item in experiment.image.preprocessing]


def class_weights(images: pd.DataFrame, classes: tuple[str, ...]) -> list[float]:
    """Inverse class frequencies of the training part, with mean 1 over its images.

    Raises:
        UserError: if a class has no training image.
    """
    counts = images["label"].value_counts().reindex(list(classes), fill_value=0)
    if (counts == 0).any():
        raise UserError(f"balancing.class_weights: no training image of {', '.join(counts.index[counts == 0])}.")
    return [float(len(images) / (len(classes) * count)) for count in counts]


def _sampler(experiment: Experiment, images: pd.DataFrame) -> Any:
    """What the epochs draw from, fitted on the training part; None for each image once."""
    settings, seed = experiment.balancing, experiment.train.seed
    if settings.name == "none":
        return None
    entry, labels = balance.get(settings.name), images["label"].to_numpy(object)
    batch = experiment.batch_augmentation
    if entry.info.get("needs_losses"):
        if batch and batch_augment.get(batch.name).info.get("mixes_images"):
            raise UserError(
                f"balancing '{settings.name}' goes by the loss of each image, but batch_augmentation '{batch.name}' mixes "
                "images: leave one of them out."
            )
        return entry.builder(labels=labels, seed=seed, **settings.arguments)
    sampler = entry.builder(**settings.arguments)
    if entry.info.get("needs_features"):
        log.info("Looking for like images of each class")
        sampler.fit(thumbnail_features(images["image"].tolist(), seed=seed), labels)
        for note in sampler.notes:
            log.info("%s", note)
    return sampler

"""Writes run folders with the files of a finished run, without training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from keras_skin.evaluation import segmentation
from keras_skin.evaluation.evaluate import stamped, summarise
from keras_skin.experiment.loading import load_experiment

BINARY = ("benign", "malignant")
SIZE = (24, 32)


def truth_of(number):
    """The true mask of an image, bool (H, W)."""
    mask = np.zeros(SIZE, bool)
    mask[4 + number % 3 : 18, 6 : 20 + number % 5] = True
    return mask


def images(count=40, classes=BINARY, dataset="isic2016"):
    """The images of a test split: image_id, dataset, split, label, group_id. Every fifth shares its group with the next."""
    random = np.random.default_rng(0)
    labels = [
        classes[index] for index in np.r_[np.arange(len(classes)), random.integers(len(classes), size=count - len(classes))]
    ]
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{number:07d}" for number in range(count)],
            "dataset": dataset,
            "split": "test",
            "label": labels,
            "group_id": [f"P{number - (number % 5 == 1):04d}" for number in range(count)],
        }
    )


def predict(table, classes=BINARY, skill=1.0, shift=2, seed=0, tasks=("mask", "label")):
    """Predictions and masks of a model. `skill` raises the logit of the true class; `shift` is the largest shift of a mask."""
    random, masks = np.random.default_rng(seed), {}
    rows = table.drop(columns="group_id").copy()
    if "label" in tasks:
        logits = random.normal(size=(len(rows), len(classes))) + skill * np.eye(len(classes))[rows["label"].map(classes.index)]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rows["predicted"] = [classes[index] for index in probabilities.argmax(axis=1)]
        rows[[f"probability_{name}" for name in classes]] = probabilities
    if "mask" in tasks:
        scores = []
        for image_id in rows["image_id"]:
            truth = truth_of(int(image_id[-7:]))
            masks[image_id] = np.roll(truth, tuple(random.integers(-shift, shift + 1, size=2)), axis=(0, 1))
            score = segmentation.score_mask(truth, masks[image_id])
            scores.append({**score, **{name + segmentation.MODEL_SIZE: score[name] for name in segmentation.METRICS}})
        rows = pd.concat([rows, pd.DataFrame(scores, index=rows.index)], axis=1)
    return rows, masks


def write_run(
    path: Path,
    table=None,
    classes=BINARY,
    experiment="jrl_isic2016",
    overrides=(),
    finished=True,
    stamp="",
    record=(),
    **model,
):
    """Writes a run folder. `record` updates run.json, `model` holds arguments of `predict`."""
    table = images(classes=classes) if table is None else table
    predictions, masks = predict(table, classes, **model)
    path.mkdir(parents=True)
    settings = load_experiment(experiment, overrides)
    (path / "experiment.json").write_text(settings.to_json())
    defaults = {"data_dir": None, "demo": False, "dry_run": False, "classes": list(classes), "finished": finished}
    (path / "run.json").write_text(json.dumps({**defaults, **dict(record)}))
    if not finished:
        return path
    evaluation = summarise(predictions, classes, table["group_id"].tolist(), resamples=0)
    if stamp:
        evaluation = stamped(evaluation, stamp, "why")
    (path / "metrics.json").write_text(json.dumps({"test": evaluation.metrics}))
    predictions.to_csv(path / "predictions.csv", index=False)
    trained = [item.name for item in (settings.data.train, *settings.data.extra_train)]
    training = pd.DataFrame(
        {"image_id": "ISIC_9999999", "group_id": "ISIC_9999999", "label": classes[0], "split": "train", "dataset": trained}
    )
    splits = pd.concat([table[["image_id", "group_id", "label", "split", "dataset"]], training])
    splits.to_csv(path / "splits.csv", index=False)
    for image_id, mask in masks.items():
        (path / "masks" / "test").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path / "masks" / "test" / f"{image_id}.png")
    return path

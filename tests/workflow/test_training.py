"""What an experiment says of balancing, batch augmentation, pre-processing, cache and protocol reaches the training."""

import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_skin import models
from keras_skin.data.datasets import readers
from keras_skin.data.images.load import load_image
from keras_skin.experiment import load_experiment
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder
from keras_skin.workflow import load_run, start
from keras_skin.workflow.opened_run import build_model
from keras_skin.workflow.prediction import open_exported
from keras_skin.workflow.training import class_weights, record_prior
from tests.tiny_run import stratified

CLASSES = readers.get("ham10000").info["classes"]
COUNTS = {"NV": 24, **{name: 10 for name in CLASSES if name != "NV"}}
HAM = [
    *stratified("ham10000"),
    'augmentation={"name": "flips_rotations"}',
    "model.name=small_for_tests",
    "image.size=[32, 32]",
    "train.epochs=2",
    "train.batch_size=16",
    "train.precision=float32",
    "explain.images=0",
    "explain.measured=0",
    "explain.classes=[]",
    "export.enabled=false",
]


@pytest.fixture(autouse=True, scope="module")
def small():
    @models.register("small_for_tests")
    def build(image_size, classes):
        image = keras.Input((*image_size, 3), name="image")
        x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
        x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="encoder_1")(x)
        x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="encoder_2")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model({"image": image}, {"label": keras.layers.Dense(classes, dtype="float32")(x)})

    yield
    del models.registry._entries["small_for_tests"]


@pytest.fixture(scope="module")
def ham(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ham")
    readers.get("ham10000").info["render"](folder / "ham10000", counts=COUNTS, size=(40, 40))
    return folder


def run(ham, out, *more):
    return start(load_experiment("resnet50_isic2016", [*HAM, *more]), "small", out, data_dir=str(ham))


@pytest.mark.slow
def test_blends_batches_pre_processing_store_and_protocol_together(ham, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "cache"))
    folder = run(
        ham,
        tmp_path,
        "split.protocol=paper",
        'balancing={"name": "smote", "class_weights": true}',
        'batch_augmentation={"name": "cutmix"}',
        'image.preprocessing=[{"name": "shades_of_grey"}, {"name": "clahe"}]',
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    stamps = {value["stamp"] for split in metrics.values() for task in split.values() for value in task.values()}
    assert stamps == {"groups may straddle"}
    assert "Groups may straddle: split.protocol" in (folder / "report.html").read_text()
    assert (folder / "figures" / "class_balance.png").is_file()
    assert "loss" in pd.read_csv(folder / "history.csv")
    assert len(list((tmp_path / "cache").glob("images/*/manifest.json"))) == 1  # one store for all splits


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_prior_and_flips_are_in_what_is_validated_measured_reloaded_and_exported(ham, tmp_path, precision):
    folder = run(
        ham,
        tmp_path,
        'balancing={"name": "oversample"}',
        'predict={"prior": "training", "tta": "flips"}',
        "train.ema=0.9",
        f"train.precision={precision}",
        "export.enabled=true",
        'export.editions=["float32", "bfloat16"]',
    )
    finished = load_run(folder)
    prior = finished.record["label_prior"]
    assert len(set(prior["shown"].values())) == 1
    assert prior["wanted"]["NV"] > prior["wanted"]["MEL"] > 0
    expected = {name: math.log(7 * count / sum(prior["wanted"].values())) for name, count in prior["wanted"].items()}
    assert prior["shift"] == pytest.approx(expected)

    table = finished.predictions[finished.predictions["split"] == "validation"]
    files = {path.stem: path for path in (ham / "ham10000").rglob("*.jpg")}
    images = np.stack([load_image(str(files[name]), (32, 32)).numpy().round() for name in table["image_id"]])
    measured = table[[f"probability_{name}" for name in finished.classes]].to_numpy()
    plain = build_model(finished.experiment, 7)
    plain.load_weights(finished.best_weights)
    logits = [plain({"image": np.flip(images, axes)})["label"].numpy() for axes in ((), (1,), (2,), (1, 2))]
    averaged = keras.ops.softmax(np.mean(logits, axis=0) + finished.label_shift)
    np.testing.assert_allclose(measured, averaged, atol=1e-4)
    loss = -np.log(keras.ops.softmax(logits[0] + finished.label_shift))
    truth = [finished.classes.index(name) for name in table["label"]]
    best = finished.history.sort_values(finished.experiment.train.monitor, ascending=False, kind="stable").iloc[0]
    validated = np.mean(loss[np.arange(len(truth)), truth])
    assert validated == pytest.approx(best["val_loss"], abs=1e-4 if precision == "float32" else 0.02)
    for edition, tolerance in (("saved_model", 1e-4), ("saved_model_bfloat16", 0.02)):
        exported = open_exported(folder / edition)(
            image_bytes=tf.constant([files[name].read_bytes() for name in table["image_id"]])
        )
        np.testing.assert_allclose(exported["probabilities"], measured, atol=tolerance)
    for text in ("Test-time flips", "Class prior", "shift of the logits: "):
        assert text in (folder / "report.html").read_text()
        assert text.lower() in (folder / "saved_model" / "1" / "model_card.md").read_text().lower()


@pytest.mark.slow
def test_a_curriculum_is_drawn_and_learns_from_the_losses(ham, tmp_path):
    folder = run(
        ham, tmp_path, 'balancing={"name": "curriculum", "start_share": 0.5, "full_after": 1, "replay_probability": 0.3}'
    )
    assert (folder / "figures" / "curriculum.png").is_file()
    assert not any(key.endswith("sample_losses") for key in pd.read_csv(folder / "history.csv"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "stamp" not in metrics["test"]["classification"]["accuracy"]


def test_what_does_not_go_together_is_refused_before_the_training(ham, tmp_path):
    with pytest.raises(UserError, match="depends on the loss of each image, but batch_augmentation 'mixup' mixes images"):
        run(ham, tmp_path, "balancing.name=curriculum", 'batch_augmentation={"name": "mixup"}')
    with pytest.raises(UserError, match=r"'hair_removal' cannot be exported.*export\.enabled=false"):
        run(ham, tmp_path, 'image.preprocessing=[{"name": "hair_removal"}]', "export.enabled=true")
    with pytest.raises(UserError, match=r"balancing 'partial' takes no 'strenght'.*Did you mean 'strength'"):
        run(ham, tmp_path, 'balancing={"name": "partial", "strenght": 0.2}')
    assert list(tmp_path.iterdir()) == []


def test_class_weights_have_mean_one_over_the_images():
    table = pd.DataFrame({"label": ["a"] * 6 + ["b"] * 2})
    weights = class_weights(table, ("a", "b"))
    assert weights == pytest.approx([8 / 12, 8 / 4])
    assert (6 * weights[0] + 2 * weights[1]) / 8 == pytest.approx(1)
    with pytest.raises(UserError, match="no training image of c"):
        class_weights(table, ("a", "b", "c"))


@pytest.mark.slow
def test_a_backbone_is_unfrozen_stage_by_stage_and_latency_is_told(ham, tmp_path):
    folder = run(
        ham,
        tmp_path,
        'train.backbone={"rate": 0.1, "frozen_epochs": 1}',
    )
    assert "backbone: 0 of 2 stages are trained" in (folder / "run.log").read_text()
    assert "backbone: 2 of 2 stages are trained" in (folder / "run.log").read_text()
    latency = json.loads((folder / "latency.json").read_text())
    assert [item["batch_size"] for item in latency["measured"] + latency["skipped"]] == [1, 32]
    assert "Latency, batch 1" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_named_weights_are_loaded_once_and_not_where_others_follow(tmp_path):
    file = tmp_path / "own.weights.h5"
    experiment = load_experiment("resnet50_isic2016", ["image.size=[32, 32]", f"model.weights={file}"])
    source = build_model(experiment, 2)
    assert source.count_params() > 0  # without the file, which is not there
    with pytest.raises(UserError, match=r"own\.weights\.h5"):
        build_model(experiment, 2, pretrained=True)


def test_a_prior_of_given_shares_names_every_class(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("run.json", {})
    run = SimpleNamespace(
        experiment=load_experiment("jrl_ph2", ['predict.prior={"malignant": 1, "benign": 2}']), update_record=folder.update_record
    )
    shift = record_prior(run, {"benign": 80.0, "malignant": 20.0})
    assert shift == pytest.approx([math.log(2 / 3 / 0.8), math.log(1 / 3 / 0.2)])
    with pytest.raises(UserError, match="has shares of malignant, benign; expected those of all classes: MEL, NV"):
        record_prior(run, {"MEL": 1.0, "NV": 1.0})

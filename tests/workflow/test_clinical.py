"""Clinical metadata from the experiment to the exported model."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_skin import models
from keras_skin.data.datasets import readers
from keras_skin.experiment import load_experiment
from keras_skin.experiment.tables import load_table
from keras_skin.explain.__main__ import main as explain
from keras_skin.registry import UserError
from keras_skin.workflow import load_run, resume, start
from keras_skin.workflow.prepare import prepare_data
from tests.tiny_run import stratified

PAD = [
    *stratified("pad_ufes_20"),
    'augmentation={"name": "none"}',
    "model.name=fused_for_tests",
    "image.size=[32, 32]",
    "train.epochs=1",
    "train.batch_size=16",
    "train.precision=float32",
    "explain.images=2",
    "explain.measured=4",
    "explain.classes=[]",
]


@pytest.fixture(autouse=True, scope="module")
def fused():
    """A model that a user registers: a small convolution and the metadata, concatenated."""

    @models.register("fused_for_tests")
    def build(image_size, classes, metadata_width=0):
        image, metadata = keras.Input((*image_size, 3), name="image"), keras.Input((metadata_width,), name="metadata")
        x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
        x = keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="cam_features")(x)
        x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), keras.layers.Dense(4)(metadata)])
        return keras.Model({"image": image, "metadata": metadata}, {"label": keras.layers.Dense(classes, dtype="float32")(x)})

    yield
    del models.registry._entries["fused_for_tests"]


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    folder, classes = tmp_path_factory.mktemp("pad"), readers.get("pad_ufes_20").info["classes"]
    readers.get("pad_ufes_20").info["render"](folder / "pad_ufes_20", counts=dict.fromkeys(classes, 24), size=(40, 40))
    return folder


def experiment(*more):
    return load_experiment("resnet50_isic2016", [*PAD, *more])


@pytest.mark.slow
def test_the_encoder_is_fitted_on_the_training_part_and_gives_every_part_its_numbers(pad):
    prepared = prepare_data(experiment('metadata={"preset": "pad_ufes_20_81"}'), pad)
    assert prepared.model_arguments["metadata_width"] == 81
    ages = prepared.rows("train")["age"].replace("", np.nan).astype(float)
    assert prepared.metadata.fields[0].name == "age"
    assert prepared.metadata.fields[0].mean == pytest.approx(ages.mean())
    for part in ("train", "validation", "test"):
        assert prepared.encoded(prepared.rows(part)).shape == (len(prepared.rows(part)), 81)


def test_builders_are_told_what_the_training_part_decides_on(pad):
    prepared = prepare_data(experiment('metadata={"missing": "mask", "inputs": ["age", "smoke", "itch"]}'), pad)
    values, train = prepared.model_arguments, prepared.rows("train")
    assert values["class_counts"] == [int((train["label"] == name).sum()) for name in prepared.classes]
    assert len(values["metadata_fields"]) == 3
    assert values["metadata_width"] == sum(values["metadata_fields"]) + 3
    assert values["metadata_fields"][0] == 1
    assert prepare_data(experiment("metadata={}"), pad).model_arguments["metadata_fields"] == []


def test_incomplete_rows_are_left_out_before_the_split(pad):
    everything = prepare_data(experiment("metadata={}"), pad)
    whole = prepare_data(experiment('metadata={"missing": "drop", "inputs": ["age", "smoke"]}'), pad)
    blank = everything.table[(everything.table[["age", "smoke"]] == "").any(axis=1)]
    assert len(blank) > 0
    assert set(everything.table["image_id"]) - set(whole.table["image_id"]) == set(blank["image_id"])
    assert (whole.excluded["reason"] == "metadata are not complete").sum() == len(blank)


@pytest.fixture(scope="module")
def isic2019(tmp_path_factory):
    folder, classes = tmp_path_factory.mktemp("isic2019"), readers.get("isic2019").info["classes"]
    readers.get("isic2019").info["render"](folder / "isic2019", counts=dict.fromkeys(classes, 12), size=(24, 32))
    return folder


@pytest.mark.parametrize(
    ("table", "labels"),
    [
        (
            "dualrefnet_isic2019",
            ("No metadata, DenseNet121", "Concat, DenseNet121", "AuxNet, DenseNet121", "Proposed, DenseNet121", "Visual, VGG13"),
        ),
        (
            "dualrefnet_isic2019_lite",
            (
                "No metadata",
                "Metadata",
                "Metadata, super-resolution",
                "Metadata, super-resolution, regularisation",
            ),
        ),
    ],
)
def test_every_rung_of_the_ladder_is_trained_and_measured_on_the_same_images(isic2019, table, labels):
    """Images with unknown metadata are left out in the rung without metadata too, so that the splits are the same."""
    rows = load_table(table)
    splits = []
    for label in labels:
        prepared = prepare_data(rows.row(label).experiment_of(0), isic2019)
        assert (prepared.excluded["reason"] == "metadata are not complete").sum() > 0, label
        splits.append(prepared.table.set_index("image_id")["split"].to_dict())
    assert all(split == splits[0] for split in splits)
    everything = prepare_data(load_experiment("dualrefnet_isic2019_no_metadata", ["data.complete=[]"]), isic2019)
    assert len(everything.table) > len(splits[0])


def test_a_complete_field_that_a_data_set_does_not_have(pad):
    with pytest.raises(UserError, match=r"the data set 'pad_ufes_20' has no sex\. It has: age.* Set data\.complete to fields"):
        prepare_data(experiment('data.complete=["sex"]'), pad)


def test_metadata_that_a_data_set_or_a_model_does_not_have(pad):
    with pytest.raises(UserError, match=r"the data set 'pad_ufes_20' has no sex\. It has: age"):
        prepare_data(experiment('metadata={"inputs": ["age", "sex"]}'), pad)
    with pytest.raises(UserError, match="the model 'jrl' takes no clinical metadata"):
        load_experiment("jrl_isic2016", ["metadata={}"])


@pytest.mark.slow
def test_a_run_with_metadata_through_export_and_back(pad, tmp_path, capsys):
    folder = start(experiment('metadata={"missing": "impute"}', "train.epochs=2"), "fused", tmp_path, data_dir=str(pad))
    run = load_run(folder)
    explained = json.loads((folder / "metrics.json").read_text())["explanations"]
    assert set(explained) == {"cam_features", "metadata_shap"}
    shap = pd.read_csv(folder / "explain" / "metadata_shap.csv")
    assert set(shap["field"]) == {"image", *(field.name for field in run.metadata.fields), "base", "gap", "logit"}
    values = json.loads((folder / "saved_model/1/assets/model.json").read_text())["signatures"]["serving_default"]["inputs"]
    assert set(values) == {"image_bytes", *(field.name for field in run.metadata.fields)}
    prepared = prepare_data(run.experiment, pad, metadata=run.metadata)
    table = prepared.rows("test").head(3)
    served = tf.saved_model.load(str(folder / "saved_model/1")).signatures["serving_default"](
        image_bytes=tf.constant([Path(path).read_bytes() for path in table["image"]]),
        **{
            field.name: tf.constant(table[field.name].tolist())
            if field.kind == "categorical"
            else tf.constant([float(value or -1) for value in table[field.name]])
            for field in run.metadata.fields
        },
    )
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"image_id": str}).set_index("image_id")
    columns = [f"probability_{name}" for name in run.classes]
    np.testing.assert_allclose(served["probabilities"], predictions.loc[table["image_id"], columns], atol=1e-4)
    with pytest.raises(UserError, match="is finished"):
        resume(folder)
    values = page_of_a_patient(run, table.iloc[0], tmp_path / "page.html", capsys)
    for name, value in zip(run.classes, predictions.loc[table["image_id"].iloc[0], columns], strict=True):
        assert f"{name} {value:.3f}" in values


def page_of_a_patient(run, row, page, capsys):
    """What the command says of a row, whose answers it is given."""
    answers = [f"--metadata={field.name}={row[field.name]}" for field in run.metadata.fields if row[field.name]]
    assert explain([str(run.path), row["image"], *answers, "--html", str(page)]) == 0
    values = capsys.readouterr().out
    assert "SHAP values" in page.read_text()
    assert explain([str(run.path), row["image"], "--metadata", "smok=True", "--metadata", "region=MOON"]) == 2
    wrong = capsys.readouterr().err
    assert "Did you mean 'smoke'" in wrong
    assert "region=MOON: not among the answers" in wrong
    return values

"""The figures that need the model: what they draw, of which images."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from keras_skin import models
from keras_skin.data.datasets import readers
from keras_skin.evaluation.measured_run import read_embedding
from keras_skin.evaluation.super_resolution import psnr
from keras_skin.experiment import load_experiment
from keras_skin.run_folder import RunFolder
from keras_skin.workflow import model_figures as module
from keras_skin.workflow.model_figures import model_figures
from keras_skin.workflow.opened_run import ActiveRun
from keras_skin.workflow.prepare import prepare_data
from tests.tiny_run import stratified

CLASSES = readers.get("ham10000").info["classes"]


@pytest.fixture(scope="module")
def experiment():
    return load_experiment("resnet50_isic2016", [*stratified("ham10000"), "image.size=[32, 32]", "train.batch_size=7"])


@pytest.fixture(scope="module")
def prepared(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ham")
    readers.get("ham10000").info["render"](folder / "ham10000", counts=dict.fromkeys(CLASSES, 12), size=(40, 40))
    return prepare_data(experiment, folder)


@pytest.fixture
def active(experiment, prepared, tmp_path):
    """Makes a run of this data that executes, with another model."""

    def make(model, demo=False):
        RunFolder(tmp_path).write_text("experiment.json", experiment.to_json())
        RunFolder(tmp_path).write_json("run.json", {"demo": demo})
        return ActiveRun(tmp_path, model, data=prepared)

    return make


def model(super_resolution=True, layer="label"):
    image = keras.Input((32, 32, 3), name="image")
    features = keras.layers.GlobalAveragePooling2D()(image)
    outputs = {"label": keras.layers.Dense(len(CLASSES), name=layer)(features)}
    if super_resolution:
        target = keras.layers.Reshape((1, 64, 64, 3))(keras.layers.Rescaling(1 / 255)(keras.layers.UpSampling2D(2)(image)))
        darker = keras.layers.Rescaling(1, offset=-0.1)(target)
        outputs["super_resolution"] = keras.layers.Concatenate(axis=1, name="super_resolution")([darker, target])
    return keras.Model({"image": image}, outputs)


def evaluated(prepared, split="test"):
    """All are predicted to be of the first class."""
    return {split: SimpleNamespace(predictions=prepared.rows(split).assign(predicted=prepared.classes[0]))}


@pytest.mark.slow
def test_features_of_the_classifier_with_their_classes(active, prepared, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "embedding_figure", lambda *arguments, **keywords: calls.append(arguments) or arguments[4])
    monkeypatch.setattr(module, "EMBEDDED", 10)
    (picture,) = model_figures(active(model(False)), evaluated(prepared))
    features, truth, predicted, classes, path = calls[0]
    table = prepared.rows("test")
    assert len(table) > 10 == len(features) == len(truth)
    assert len(set(truth)) == len(CLASSES), "classes in turn"
    assert set(predicted) == {CLASSES[0]}
    assert classes == prepared.classes
    means = {
        row["image_id"]: image.mean(axis=(0, 1))
        for row, image in zip(table.to_dict("records"), pictures(active(model(False)), table), strict=True)
    }
    saved = read_embedding(tmp_path, "test")
    np.testing.assert_array_equal(saved.features, features)
    assert [table.set_index("image_id")["label"][image_id] for image_id in saved.image_ids] == list(truth)
    for feature, label in zip(features, truth, strict=True):
        near = min(means, key=lambda image_id: np.abs(means[image_id] - feature).max())
        np.testing.assert_allclose(feature, means[near], atol=1e-2)
        assert table.set_index("image_id").loc[near, "label"] == label
    assert path == tmp_path / "figures" / "test_embeddings.png"
    assert f"of 10 images of test (of {len(table)}, the classes in turn)" in picture.caption


def pictures(run, table):
    return [inputs["image"] for inputs, _ in run.batches(table).unbatch().as_numpy_iterator()]


@pytest.mark.slow
def test_super_resolved_images_beside_what_the_model_saw(active, prepared, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "super_resolution_figure", lambda images, path, **style: calls.extend(images) or path)
    pictures_drawn = model_figures(active(model()), evaluated(prepared))
    assert [picture.path.name for picture in pictures_drawn] == ["test_embeddings.png", "test_super_resolution.png"]
    assert len(calls) == module.SUPER_RESOLVED
    for image in calls:
        np.testing.assert_allclose(image.input / 255, image.target[::2, ::2], atol=1e-5)
        assert psnr(image.output, image.target) == pytest.approx(20, abs=0.01)
    assert "mean PSNR 20.0 dB" in pictures_drawn[1].caption


@pytest.mark.slow
def test_the_validation_part_where_there_is_no_test_part(active, prepared):
    pictures_drawn = model_figures(active(model(), demo=True), evaluated(prepared, "validation"))
    assert [picture.path.name for picture in pictures_drawn] == ["validation_embeddings.png", "validation_super_resolution.png"]
    assert all(picture.path.is_file() for picture in pictures_drawn)


def test_a_model_without_such_layers_has_no_such_figures(active, prepared):
    assert not model_figures(active(model(False, "other")), evaluated(prepared))


@pytest.mark.slow
def test_every_column_of_the_metadata_is_attributed_on_test_images(tmp_path_factory, tmp_path, monkeypatch, request):
    """A linear head: the SHAP values of a column are its weight times its distance from the background's mean."""
    folder, classes = tmp_path_factory.mktemp("pad"), readers.get("pad_ufes_20").info["classes"]
    readers.get("pad_ufes_20").info["render"](folder / "pad_ufes_20", counts=dict.fromkeys(classes, 12), size=(40, 40))
    settings = [*stratified("pad_ufes_20"), "image.size=[32, 32]", 'metadata={"preset": "pad_ufes_20_81"}', "model.name=fused"]
    monkeypatch.setattr(module, "ATTRIBUTED", 9)

    request.addfinalizer(lambda: models.registry._entries.pop("fused"))

    @models.register("fused")
    def build(image_size, classes, metadata_width=0):
        image, metadata = keras.Input((*image_size, 3), name="image"), keras.Input((metadata_width,), name="metadata")
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
        joined = keras.layers.Concatenate()([pooled, metadata])
        return keras.Model({"image": image, "metadata": metadata}, {"label": keras.layers.Dense(classes, name="label")(joined)})

    experiment = load_experiment("resnet50_isic2016", settings)
    prepared = prepare_data(experiment, folder)
    network = build((32, 32), len(classes), 81)
    RunFolder(tmp_path).write_text("experiment.json", experiment.to_json())
    RunFolder(tmp_path).write_json("run.json", {"demo": False})
    run = ActiveRun(tmp_path, network, prepared.metadata, data=prepared)
    assert module._column_attributions(run, "test") is None, "without a background there is nothing to be relative to"
    background = prepared.encoded(prepared.rows("train"))[:5]
    (tmp_path / "explain").mkdir()
    np.savez(tmp_path / "explain" / "shap_background.npz", np.zeros((5, 3), "float32"), background)
    drawn = []
    monkeypatch.setattr(module, "attribution_bars", lambda *drawing, **_: drawn.append(drawing) or drawing[3])
    picture = module._column_attributions(run, "test")
    values, names, drawn_classes, path = drawn[0]
    assert path == picture.path == tmp_path / "figures" / "test_metadata_columns.png"
    assert "9 images of test, stacked by class: the 20 strongest of 81 columns" in picture.caption
    assert (values.shape, tuple(drawn_classes)) == ((9, 20, len(classes)), tuple(classes))
    assert len(set(names)) == 20
    assert set(names) <= set(prepared.metadata.column_names)
    table = pd.read_csv(tmp_path / "explain" / "metadata_shap_columns.csv", dtype={"image_id": str})
    assert set(prepared.metadata.column_names) <= set(table["field"])
    assert set(table["image_id"]) <= set(prepared.rows("test")["image_id"])
    one = table[(table["field"] == names[0]) & (table["class"] == classes[0])].set_index("image_id")["shap"]
    rows = prepared.rows("test").set_index("image_id", drop=False).loc[one.index]
    column = prepared.metadata.column_names.index(names[0])
    weight = keras.ops.convert_to_numpy(network.get_layer("label").kernel)[3 + column, 0]
    expected = weight * (prepared.encoded(rows)[:, column] - background[:, column].mean())
    np.testing.assert_allclose(one, expected, atol=1e-4)

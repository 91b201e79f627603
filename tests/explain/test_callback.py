"""The callback: which files it writes, from which weights, and how it fails early."""

import cv2
import keras
import numpy as np
import pytest

from keras_skin.explain.callback import ExplainSample, GradCAMCallback, stratified_sample
from keras_skin.explain.grad_cam import GradCAM
from keras_skin.registry import UserError

CLASSES = ("benign", "malignant")
SIZE = (16, 20)


def small_model(outputs=("mask", "label")):
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="cam_features")(x)
    heads = {
        "mask": keras.layers.Conv2D(1, 1, name="mask")(keras.layers.UpSampling2D(2)(x)),
        "label": keras.layers.Dense(2, name="label")(keras.layers.GlobalAveragePooling2D()(x)),
    }
    return keras.Model({"image": image}, {key: heads[key] for key in outputs})


@pytest.fixture
def samples():
    generator = np.random.default_rng(1)
    images = generator.uniform(0, 255, (3, *SIZE, 3)).astype("float32")
    mask = np.zeros((64, 80), np.uint8)
    mask[20:40, 30:60] = 1
    return [
        ExplainSample("a", {"image": images[0]}, 0, mask),
        {"image_id": "../b", "inputs": {"image": images[1]}, "label": 1, "image": generator.integers(0, 255, (64, 80, 3))},
        ExplainSample("c/d", {"image": images[2]}),
    ]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def set_bias(model, bias):
    model.get_layer("label").set_weights([model.get_layer("label").get_weights()[0], np.asarray(bias, "float32")])


def test_writes_maps_overlays_and_sheets(tmp_path, samples):
    keras.utils.set_random_seed(0)
    model = small_model()
    set_bias(model, [9, 0])
    sheets = GradCAMCallback(samples, tmp_path / "explain", CLASSES, explain_classes=["malignant"], batch_size=2).explain(model)
    assert files(tmp_path / "explain") == sorted(
        [f"{folder}/grad_cam_{name}.{kind}" for folder in ("a", "b", "c_d") for name in CLASSES for kind in ("png", "npy")]
        + ["sheet.png", "sheet_malignant.png"]
    )
    assert [sheet.path.name for sheet in sheets] == ["sheet.png", "sheet_malignant.png"]
    assert "predicted class" in sheets[0].caption
    assert "malignant" in sheets[1].caption
    expected = GradCAM(model)({"image": samples[0].inputs["image"][None]}, 1)[0]
    raw = np.load(tmp_path / "explain" / "a" / "grad_cam_malignant.npy", allow_pickle=False)
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-8)
    sheet = cv2.imread(str(sheets[0].path))
    assert sheet.shape[1] > 3 * 320


def test_on_train_end_explains_the_weights_the_model_has_then(tmp_path, samples):
    model = small_model()
    model.compile("sgd", loss={"mask": "mse", "label": "mse"})
    callback = GradCAMCallback(samples, tmp_path, CLASSES)

    class BestWeights(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            set_bias(self.model, [0, 1e4])

    x = np.zeros((2, *SIZE, 3), "float32")
    y = {"mask": np.zeros((2, *SIZE, 1)), "label": np.zeros((2, 2))}
    model.fit({"image": x}, y, verbose=0, callbacks=[BestWeights(), callback])
    assert [sheet.path for sheet in callback.sheets] == [tmp_path / "sheet.png"]
    assert (tmp_path / "a" / "grad_cam_malignant.png").is_file()
    assert not (tmp_path / "a" / "grad_cam_benign.png").exists()
    set_bias(model, [1e4, 0])
    (tmp_path / "a" / "shap.png").write_bytes(b"another explainer's")
    callback.explain(model)
    assert [name for name in files(tmp_path) if name.startswith("a/")] == [
        "a/grad_cam_benign.npy",
        "a/grad_cam_benign.png",
        "a/shap.png",
    ]


def test_a_model_without_label_is_explained_by_its_predicted_lesion(tmp_path, samples):
    model = small_model(outputs=("mask",))
    sheets = GradCAMCallback(samples, tmp_path, CLASSES, explain_classes=["benign"]).explain(model)
    assert "predicted lesion" in sheets[0].caption
    assert len(sheets) == 1
    assert (tmp_path / "a" / "grad_cam_mask.png").is_file()


def test_no_evidence_is_said_in_the_picture(tmp_path, samples):
    model = small_model()
    model.get_layer("label").set_weights([np.full((4, 2), -1.0, "float32"), np.zeros(2, "float32")])
    callback = GradCAMCallback(samples[:1], tmp_path, CLASSES, synthetic=True)
    sheets = callback.explain(model)
    assert not np.load(tmp_path / "a" / "grad_cam_benign.npy").any()
    assert sheets[0].caption.startswith("SYNTHETIC")
    blank = cv2.imread(str(tmp_path / "a" / "grad_cam_benign.png"))
    model.get_layer("label").set_weights([np.ones((4, 2), "float32"), np.zeros(2, "float32")])
    callback.explain(model)
    assert blank.shape[0] > cv2.imread(str(tmp_path / "a" / "grad_cam_benign.png")).shape[0]


def test_mistakes_are_found_before_training(tmp_path, samples):
    with pytest.raises(UserError, match="melanoma"):
        GradCAMCallback(samples, tmp_path, CLASSES, explain_classes=["melanoma"])
    model = small_model()
    model.compile("sgd", loss={"mask": "mse", "label": "mse"})
    callback = GradCAMCallback(samples, tmp_path, CLASSES, layer="encoder_5")
    with pytest.raises(UserError, match="encoder_5"):
        model.fit(
            {"image": np.zeros((2, *SIZE, 3))},
            {"mask": np.zeros((2, *SIZE, 1)), "label": np.zeros((2, 2))},
            verbose=0,
            callbacks=[callback],
        )
    assert GradCAMCallback([], tmp_path, CLASSES).explain(model) == []


def test_equal_folder_names_are_told_apart(tmp_path, samples):
    twice = [samples[0]._replace(image_id="x/y"), samples[0]._replace(image_id="x_y"), samples[0]._replace(image_id="..")]
    GradCAMCallback(twice, tmp_path / "explain", CLASSES).explain(small_model())
    assert sorted(path.name for path in (tmp_path / "explain").iterdir() if path.is_dir()) == ["unnamed", "x_y", "x_y_2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explain"]


def test_stratified_sample_takes_classes_in_turn():
    labels = ["benign"] * 50 + ["malignant"] * 3
    chosen = stratified_sample(labels, 8, seed=0)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert (chosen >= 50).sum() == 3
    assert len(chosen) == 8
    np.testing.assert_array_equal(chosen, stratified_sample(labels, 8, seed=0))
    assert (chosen != stratified_sample(labels, 8, seed=1)).any()
    assert stratified_sample(labels, 100, seed=0).tolist() == list(range(53))
    assert stratified_sample(labels, 0, seed=0).size == 0
    assert stratified_sample([], 4, seed=0).size == 0

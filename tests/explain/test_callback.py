"""The callback: which files it writes, from which weights, what it measures, and how it fails early."""

import cv2
import keras
import numpy as np
import pytest

from keras_skin.explain.callback import ExplainCallback
from keras_skin.explain.grad_cam import GradCAM
from keras_skin.explain.samples import ExplainSample
from keras_skin.explain.views import predict
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


def sheet_top(sheet, width):
    """Row of the first picture of a sheet: the first that is not white at all of its columns."""
    return int(np.argmax((sheet[:, 10 : 10 + width] < 250).all(axis=(1, 2))))


def test_writes_maps_overlays_and_sheets(tmp_path, samples):
    keras.utils.set_random_seed(0)
    model = small_model()
    set_bias(model, [9, 0])
    callback = ExplainCallback(samples, tmp_path / "explain", CLASSES, explain_classes=["malignant"], batch_size=2, measure=False)
    sheets = callback.explain(model).sheets
    assert files(tmp_path / "explain") == sorted(
        [f"{folder}/grad_cam_{name}.{kind}" for folder in ("a", "b", "c_d") for name in CLASSES for kind in ("png", "npy")]
        + [
            f"{folder}/class_mask_{name}{end}"
            for folder in ("a", "b", "c_d")
            for name in CLASSES
            for end in (".png", "_overlay.png")
        ]
        + [f"{folder}/image.png" for folder in ("a", "b", "c_d")]
        + ["sheet_class_masks.png", "sheet_grad_cam.png", "sheet_grad_cam_malignant.png"]
    )
    assert [sheet.path.name for sheet in sheets] == [
        "sheet_grad_cam.png",
        "sheet_grad_cam_malignant.png",
        "sheet_class_masks.png",
    ]
    assert "predicted class" in sheets[0].caption
    assert "malignant" in sheets[1].caption
    lesion = cv2.imread(str(tmp_path / "explain" / "a" / "class_mask_benign.png"))[..., 0] > 0
    np.testing.assert_array_equal(lesion, predict(model, {"image": samples[0].inputs["image"][None]})["mask"][0, ..., 0] > 0.5)
    expected = GradCAM(model)({"image": samples[0].inputs["image"][None]}, 1)[0]
    raw = np.load(tmp_path / "explain" / "a" / "grad_cam_malignant.npy", allow_pickle=False)
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-8)
    sheet, others = (cv2.imread(str(item.path)) for item in sheets[:2])
    assert sheet.shape[1] > 4 * 320 > others.shape[1] > 3 * 320
    original = cv2.imread(str(tmp_path / "explain" / "a" / "image.png"))
    rows, columns = (slice(start, start + size) for start, size in zip((sheet_top(sheet, 320), 10), original.shape, strict=False))
    np.testing.assert_array_equal(sheet[rows, columns], original)


def test_on_train_end_explains_the_weights_at_that_time(tmp_path, samples):
    model = small_model()
    model.compile("sgd", loss={"mask": "mse", "label": "mse"})
    callback = ExplainCallback(samples, tmp_path, CLASSES, class_masks=False, measure=False)

    class BestWeights(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            set_bias(self.model, [0, 1e4])

    x = np.zeros((2, *SIZE, 3), "float32")
    y = {"mask": np.zeros((2, *SIZE, 1)), "label": np.zeros((2, 2))}
    model.fit({"image": x}, y, verbose=0, callbacks=[BestWeights(), callback])
    assert [sheet.path for sheet in callback.result.sheets] == [tmp_path / "sheet_grad_cam.png"]
    assert (tmp_path / "a" / "grad_cam_malignant.png").is_file()
    assert not (tmp_path / "a" / "grad_cam_benign.png").exists()
    set_bias(model, [1e4, 0])
    (tmp_path / "a" / "shap.png").write_bytes(b"another explainer's")
    callback.explain(model)
    assert [name for name in files(tmp_path) if name.startswith("a/")] == [
        "a/grad_cam_benign.npy",
        "a/grad_cam_benign.png",
        "a/image.png",
        "a/shap.png",
    ]


def test_a_model_without_label_is_explained_by_its_predicted_lesion(tmp_path, samples):
    model = small_model(outputs=("mask",))
    sheets = ExplainCallback(samples, tmp_path, CLASSES, explain_classes=["benign"], measure=False).explain(model).sheets
    assert "predicted lesion" in sheets[0].caption
    assert len(sheets) == 1
    assert (tmp_path / "a" / "grad_cam_mask.png").is_file()


def test_no_evidence_is_a_remark_in_the_picture(tmp_path, samples):
    model = small_model()
    model.get_layer("label").set_weights([np.full((4, 2), -1.0, "float32"), np.zeros(2, "float32")])
    callback = ExplainCallback(samples[:1], tmp_path, CLASSES, synthetic=True, measure=False)
    sheets = callback.explain(model).sheets
    assert not np.load(tmp_path / "a" / "grad_cam_benign.npy").any()
    assert sheets[0].caption.startswith("SYNTHETIC")
    blank = cv2.imread(str(tmp_path / "a" / "grad_cam_benign.png"))
    model.get_layer("label").set_weights([np.ones((4, 2), "float32"), np.zeros(2, "float32")])
    callback.explain(model)
    assert blank.shape[0] > cv2.imread(str(tmp_path / "a" / "grad_cam_benign.png")).shape[0]


def test_mistakes_are_found_before_training(tmp_path, samples):
    with pytest.raises(UserError, match="melanoma"):
        ExplainCallback(samples, tmp_path, CLASSES, explain_classes=["melanoma"])
    with pytest.raises(UserError, match="Did you mean 'grad_cam'"):
        ExplainCallback(samples, tmp_path, CLASSES, cam="gradcam")
    with pytest.raises(UserError, match="Did you mean 'occlusion'"):
        ExplainCallback(samples, tmp_path, CLASSES, methods=["oclusion"])
    model = small_model()
    model.compile("sgd", loss={"mask": "mse", "label": "mse"})
    callback = ExplainCallback(samples, tmp_path, CLASSES, layers="encoder_5")
    with pytest.raises(UserError, match="encoder_5"):
        model.fit(
            {"image": np.zeros((2, *SIZE, 3))},
            {"mask": np.zeros((2, *SIZE, 1)), "label": np.zeros((2, 2))},
            verbose=0,
            callbacks=[callback],
        )
    assert ExplainCallback([], tmp_path, CLASSES).explain(model) == ([], {}, [])


def test_equal_folder_names_get_numbers(tmp_path, samples):
    twice = [samples[0]._replace(image_id="x/y"), samples[0]._replace(image_id="x_y"), samples[0]._replace(image_id="..")]
    ExplainCallback(twice, tmp_path / "explain", CLASSES, measure=False).explain(small_model())
    assert sorted(path.name for path in (tmp_path / "explain").iterdir() if path.is_dir()) == ["unnamed", "x_y", "x_y_2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explain"]


def test_every_second_epoch_has_its_own_folder(tmp_path, samples):
    model = small_model(outputs=("label",))
    model.compile("sgd", loss={"label": "mse"})
    callback = ExplainCallback(samples, tmp_path, CLASSES, every=2, max_pictures=1, measure=False)
    model.fit({"image": np.zeros((2, *SIZE, 3))}, {"label": np.zeros((2, 2))}, epochs=5, verbose=0, callbacks=[callback])
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == ["epoch_002", "epoch_004"]
    assert len(list((tmp_path / "epoch_004").glob("*/grad_cam_*.npy"))) == 1


def two_branches():
    inputs = {name: keras.Input((*SIZE, 3), name=name) for name in ("image", "segmented_image")}
    names = ("cam_features", "cam_features_segmented")
    branches = [
        keras.layers.Conv2D(4, 3, strides=4, activation="relu", name=name)(keras.layers.Rescaling(1 / 255)(image))
        for name, image in zip(names, inputs.values(), strict=True)
    ]
    inputs["metadata"] = keras.Input((3,), name="metadata")
    pooled = [keras.layers.GlobalAveragePooling2D()(branch) for branch in branches]
    hidden = keras.layers.Dense(8, activation="tanh")(keras.layers.Concatenate()([*pooled, inputs["metadata"]]))
    return keras.Model(inputs, {"label": keras.layers.Dense(2, name="label")(hidden)})


@pytest.mark.slow
def test_everything_at_once_on_two_branches_with_metadata(tmp_path):
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    mask = np.zeros((32, 40), bool)
    mask[8:24, 10:30] = True

    def inputs(count):
        images = generator.uniform(0, 255, (2, count, *SIZE, 3)).astype("float32")
        return {"image": images[0], "segmented_image": images[1], "metadata": generator.random((count, 3), np.float32)}

    arrays = inputs(6)
    answers = [{"age": f"{i}0" if i else "", "sex": ""} for i in range(6)]
    samples = [
        ExplainSample(f"im{i}", {key: value[i] for key, value in arrays.items()}, i % 2, mask, metadata=answers[i])
        for i in range(6)
    ]
    methods = ("integrated_gradients", "smoothgrad", "occlusion", "image_shap")
    callback = ExplainCallback(
        samples,
        tmp_path,
        CLASSES,
        methods=methods,
        max_pictures=2,
        background=inputs(4),
        metadata_columns=("age", "sex", "sex"),
    )
    result = callback.explain(two_branches())
    assert set(result.metrics) == {"cam_features", "cam_features_segmented", "metadata_shap"}
    assert result.metrics["cam_features"]["relevance_inside"]["n"] == 6
    written = files(tmp_path)
    assert {"faithfulness.csv", "faithfulness.png", "faithfulness_segmented.png"} <= set(written)
    assert {"metadata_shap.csv", "metadata_shap_bar.png", "metadata_shap_beeswarm.png", "shap_background.npz"} <= set(written)
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        for stem in ("grad_cam", "grad_cam_segmented", *methods):
            (raw,) = [path for path in folder.glob(f"{stem}_*.npy") if stem != "grad_cam" or "segmented" not in path.name]
            assert np.isfinite(np.load(raw)).all()
            assert raw.with_suffix(".png").is_file()
        assert len(list(folder.glob("metadata_shap_*.png"))) == 1
    assert all(sheet.path.is_file() for sheet in result.sheets)

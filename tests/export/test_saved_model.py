"""The export: its numbers in a process that has only TensorFlow, its files, and the float32 copy of a mixed-precision model."""

import base64
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_skin
from keras_skin.data.images.decode import decode_image
from keras_skin.data.images.load import model_image, segmented_image
from keras_skin.explain.grad_cam import GradCAM
from keras_skin.export import endpoints
from keras_skin.export.endpoints import Segmenter
from keras_skin.export.saved_model import export_model
from keras_skin.registry import UserError
from tests.export.small_models import CLASSES, OTHER, SIZE, AgeAndSex, branched_model, photograph, seeded_model, segmenter_model

CLIENT = """
import base64, json, sys
import numpy as np
import tensorflow as tf
folder, uploads, arrays, answers = sys.argv[1:]
loaded = tf.saved_model.load(folder)
files = [base64.b64decode(item) for item in json.load(open(uploads))]
results = {"bytes": loaded.signatures["serving_default"](image_bytes=tf.constant(files)),
           "images": loaded.signatures["predict_images"](image=tf.constant(np.load(arrays)))}
answer = {"keras_skin": sorted(name for name in sys.modules if name.startswith("keras_skin"))}
for endpoint, outputs in results.items():
    answer[endpoint] = {key: [base64.b64encode(item).decode() for item in value.numpy()] if value.dtype == tf.string
                        else value.numpy().tolist() for key, value in outputs.items()}
    answer[endpoint + "_dtypes"] = {key: value.dtype.name for key, value in outputs.items()}
json.dump(answer, open(answers, "w"))
"""


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return photograph("JPEG", 40, 70, 4, exif=exif)


UPLOADS = {
    "jpeg": photograph("JPEG", 60, 90, 0),
    "empty": b"",
    "png": photograph("PNG", 24, 32, 1),
    "text": b"no image",
    "bmp": photograph("BMP", 33, 21, 2),
    "truncated": photograph("JPEG", 60, 90, 0)[:-300],
    "small": photograph("PNG", 7, 9, 3),
    "turned": turned(),
}
BAD = ("empty", "text", "truncated")
UPRIGHT = {"jpeg": (60, 90), "png": (24, 32), "bmp": (33, 21), "small": (7, 9), "turned": (70, 40)}


@pytest.fixture(scope="module")
def model():
    return seeded_model()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export_model(
        model,
        tmp_path_factory.mktemp("export") / "saved_model",
        classes=CLASSES,
        image_size=SIZE,
        name="joint",
        synthetic=True,
        extra={"experiment": "a title"},
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (3, *SIZE, 3)).astype("float32")


@pytest.fixture(scope="module")
def answers(exported, images, tmp_path_factory):
    """What a fresh process outside the checkout, which has only TensorFlow, gets from the export."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "client.py").write_text(CLIENT)
    (folder / "uploads.json").write_text(json.dumps([base64.b64encode(data).decode() for data in UPLOADS.values()]))
    np.save(folder / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "client.py", str(exported), "uploads.json", "images.npy", "answers.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "answers.json").read_text())


@pytest.fixture(scope="module")
def serve(exported):
    return tf.saved_model.load(str(exported)).signatures["serving_default"]


def expected_outputs(model, images):
    outputs = {key: np.asarray(value, "float64") for key, value in model({"image": images}, training=False).items()}
    shares = np.exp(outputs["label"] - outputs["label"].max(axis=1, keepdims=True))
    probabilities = shares / shares.sum(axis=1, keepdims=True)
    return {
        "mask": 1 / (1 + np.exp(-outputs["mask"])),
        "probabilities": probabilities,
        "embedding": outputs["embedding"],
        "label": [CLASSES[i] for i in probabilities.argmax(axis=1)],
    }


def strings(values):
    return [base64.b64decode(value).decode() for value in values]


def test_predict_images_gives_the_same_numbers_without_keras_skin(model, images, answers):
    assert answers["keras_skin"] == []
    expected = expected_outputs(model, images)
    assert set(answers["images"]) == set(expected)
    assert strings(answers["images"]["label"]) == expected.pop("label")
    for key, value in expected.items():
        np.testing.assert_allclose(answers["images"][key], value, atol=1e-4)
        assert answers["images_dtypes"][key] == "float32"
    assert np.ptp(expected["mask"]) > 0.2


def test_uploads_go_through_the_image_path_of_training(model, answers):
    good = [name for name in UPLOADS if name not in BAD]
    rows = [list(UPLOADS).index(name) for name in good]
    images = tf.stack([model_image(decode_image(tf.constant(UPLOADS[name]), SIZE), SIZE) for name in good])
    expected = expected_outputs(model, images)
    answer = answers["bytes"]
    assert set(answer) == {*expected, "mask_png_bytes", "valid"}
    assert [strings(answer["label"])[row] for row in rows] == expected.pop("label")
    for key, value in expected.items():
        np.testing.assert_allclose(np.asarray(answer[key])[rows], value, atol=1e-4)


def test_bad_uploads_are_blank_and_spare_the_others(answers):
    answer = answers["bytes"]
    assert answer["valid"] == [name not in BAD for name in UPLOADS]
    for row, name in enumerate(UPLOADS):
        if name in BAD:
            assert answer["label"][row] == answer["mask_png_bytes"][row] == ""
            assert not np.any(answer["probabilities"][row])
            assert not np.any(answer["mask"][row])
            assert not np.any(answer["embedding"][row])
        else:
            assert sum(answer["probabilities"][row]) == pytest.approx(1)


def test_mask_png_has_the_size_of_the_upright_upload(answers):
    for row, name in enumerate(UPLOADS):
        if name not in BAD:
            mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answers["bytes"]["mask_png_bytes"][row]))))
            assert mask.shape == UPRIGHT[name]
            assert set(np.unique(mask)) <= {0, 255}
            at_model_size = np.asarray(answers["bytes"]["mask"][row])
            expected = tf.image.resize(at_model_size, UPRIGHT[name], antialias=True)[..., 0].numpy()
            assert ((mask == 255) == (expected > 0.5)).mean() > 0.995
            if name == "png":
                np.testing.assert_array_equal(mask == 255, at_model_size[..., 0] > 0.5)


def test_a_single_upload_equals_its_row_in_the_batch(serve, answers):
    row = list(UPLOADS).index("bmp")
    alone = serve(image_bytes=tf.constant([UPLOADS["bmp"]]))
    np.testing.assert_allclose(alone["probabilities"][0], answers["bytes"]["probabilities"][row], atol=1e-5)
    np.testing.assert_allclose(alone["mask"][0], answers["bytes"]["mask"][row], atol=1e-5)


def png_that_announces(height, width):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


WHOLE = {kind: photograph(kind, 20, 30, 5) for kind in ("JPEG", "PNG", "BMP")}
WHOLE["progressive JPEG"] = photograph("JPEG", 20, 30, 5, progressive=True)
REFUSED = {
    "one byte": b"\xff",
    "JPEG magic": b"\xff\xd8\xff",
    "PNG magic": b"\x89PNG\r\n\x1a\n",
    "BMP magic": b"BM",
    "zeros": bytes(100),
    "table": b"image_id,label\n1,benign\n",
    "TIFF": photograph("TIFF", 20, 30, 5),
    "GIF": photograph("GIF", 20, 30, 5),
    "bomb": png_that_announces(20_001, 20_001),
    "no pixels": png_that_announces(0, 0),
    **{
        f"{kind} cut at {share}": data[: int(len(data) * share)]
        for kind, data in WHOLE.items()
        for share in (0.02, 0.1, 0.5, 0.95)
    },
    **{f"{kind} without its last byte": data[:-1] for kind, data in WHOLE.items()},
}


def test_every_refused_upload_spares_its_neighbour(serve):
    names = [name for refused in REFUSED for name in (refused, "PNG")]
    served = serve(image_bytes=tf.constant([{**REFUSED, **WHOLE}[name] for name in names]))
    wrong = [name for name, valid in zip(names, served["valid"].numpy(), strict=True) if valid != (name == "PNG")]
    assert not wrong
    assert np.ptp(served["mask"].numpy()[1::2], axis=0).max() < 1e-5
    assert (served["mask_png_bytes"].numpy()[::2] == b"").all()
    assert not serve(image_bytes=tf.constant([b"", b""]))["valid"].numpy().any()


def test_changed_bytes_never_raise(serve):
    generator = np.random.default_rng(1)
    changed = [generator.bytes(generator.integers(1, 300)) for _ in range(50)]
    for data in [*WHOLE.values(), REFUSED["TIFF"]]:
        for _ in range(60):
            copy = bytearray(data)
            for position in generator.integers(0, min(len(copy), 700), generator.integers(1, 6)):
                copy[position] = generator.integers(256)
            changed.append(bytes(copy))
    served = serve(image_bytes=tf.constant(changed))
    assert 0 < served["valid"].numpy().mean() < 1
    assert np.isfinite(served["mask"]).all()


def test_assets_tell_what_the_model_is(exported):
    assert (exported / "assets" / "labels.txt").read_text().split() == list(CLASSES)
    about = json.loads((exported / "assets" / "model.json").read_text())
    assert about["name"] == "joint"
    assert about["image_size"] == list(SIZE)
    assert about["classes"] == list(CLASSES)
    assert about["keras_skin"] == keras_skin.__version__
    assert about["experiment"] == "a title"
    assert about["synthetic"]
    assert "SYNTHETIC" in about["training_images"]
    assert about["signatures"]["serving_default"]["inputs"] == {"image_bytes": {"shape": [None], "dtype": "string"}}
    assert about["signatures"]["predict_images"]["outputs"]["mask"] == {"shape": [None, *SIZE, 1], "dtype": "float32"}
    assert about["signatures"]["serving_default"]["outputs"]["probabilities"]["shape"] == [None, 2]


def test_weights_are_written_once_and_only_those_that_serve(exported, model):
    stored = tf.train.list_variables(str(exported / "variables" / "variables"))
    used = keras.Model(model.input, {key: model.output[key] for key in ("mask", "label", "embedding")})
    count = sum(int(np.prod(shape)) for name, shape in stored if "OBJECT_GRAPH" not in name)
    assert count == used.count_params() < model.count_params()


def test_an_export_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, exported):
    model, arguments = seeded_model(keys=("label",)), {"classes": CLASSES, "image_size": SIZE, "name": "labels"}
    with pytest.raises(UserError, match="already exists"):
        export_model(model, exported.parent, **arguments, version=1)
    with pytest.raises(TypeError):
        export_model(model, tmp_path, **arguments, extra={"not": object()})

    def fails(path, *_, **__):
        Path(path).mkdir()
        raise OSError("no space left")

    monkeypatch.setattr(endpoints.Endpoints, "serve", lambda self, inputs: {"valid": inputs["image_bytes"] == ""})
    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", lambda self, path, **_: fails(path))
    with pytest.raises(OSError, match="no space"):
        export_model(model, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def invert(image):
    return 255.0 - image


@pytest.mark.slow
def test_preprocessing_and_a_mask_alone_as_a_later_version(exported, images, tmp_path):
    (tmp_path / "7").mkdir()
    model = seeded_model(keys=("mask",))
    folder = export_model(model, tmp_path, classes=CLASSES, image_size=SIZE, name="unet", preprocessing=[invert])
    assert (exported.name, folder.name) == ("1", "8")
    loaded = tf.saved_model.load(str(folder))
    outputs = loaded.signatures["predict_images"](image=tf.constant(images))
    assert set(outputs) == {"mask"}
    np.testing.assert_allclose(outputs["mask"], tf.sigmoid(model({"image": 255 - images})["mask"]), atol=1e-5)
    served = loaded.signatures["serving_default"](image_bytes=tf.constant([UPLOADS["png"]]))
    assert set(served) == {"mask", "mask_png_bytes", "valid"}
    inverted = model_image(decode_image(tf.constant(UPLOADS["png"])), SIZE, [invert])
    np.testing.assert_allclose(served["mask"], tf.sigmoid(model({"image": inverted[None]})["mask"]), atol=1e-5)
    assert json.loads((folder / "assets" / "model.json").read_text())["preprocessing"] == ["invert"]


@pytest.mark.slow
def test_a_model_with_metadata_takes_its_fields_by_name(tmp_path):
    image, metadata = keras.Input((*SIZE, 3), name="image"), keras.Input((3,), name="metadata")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    label = keras.layers.Dense(2, dtype="float32")(keras.layers.Concatenate()([pooled, metadata]))
    model = keras.Model({"image": image, "metadata": metadata}, {"label": label})
    target = export_model(model, tmp_path, classes=CLASSES, image_size=SIZE, name="fused", metadata=AgeAndSex())
    about = json.loads((target / "assets" / "model.json").read_text())
    assert set(about["signatures"]["serving_default"]["inputs"]) == {"image_bytes", "age", "sex"}
    loaded = tf.saved_model.load(str(target))
    uploads = [photograph("PNG", 24, 32, seed) for seed in (1, 2, 3)]
    served = loaded.signatures["serving_default"](
        image_bytes=tf.constant(uploads), age=tf.constant([55.0, -1.0, 30.0]), sex=tf.constant(["f", "", "m"])
    )
    images = tf.stack([tf.cast(decode_image(upload), tf.float32) for upload in uploads])
    encoded = tf.constant([[1.1, 1, 1], [0, 0, 0], [0.6, 1, 0]])
    expected = tf.nn.softmax(model({"image": images, "metadata": encoded})["label"])
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-6)
    again = loaded.signatures["predict_images"](image=images, metadata=encoded)
    np.testing.assert_allclose(again["probabilities"], expected, atol=1e-6)
    with pytest.raises(UserError, match="inputs must be a dict with just 'image', got"):
        export_model(model, tmp_path, classes=CLASSES, image_size=SIZE, name="fused")
    narrow = type("Narrow", (AgeAndSex,), {"width": 2})()
    with pytest.raises(UserError, match="its input 'metadata' has 3 columns, but the encoder makes 2"):
        export_model(model, tmp_path, classes=CLASSES, image_size=SIZE, name="fused", metadata=narrow)


@pytest.mark.slow
def test_a_mixed_model_is_exported_with_float32_outputs(mixed_bfloat16, tmp_path, images):
    mixed = seeded_model(keys=("label", "embedding"))
    folder = export_model(mixed, tmp_path, classes=CLASSES, image_size=SIZE, name="mixed")
    signatures = tf.saved_model.load(str(folder)).signatures
    outputs = signatures["predict_images"](image=tf.constant(images))
    assert set(outputs) == {"label", "probabilities", "embedding"}
    assert set(signatures["serving_default"].structured_outputs) == {*outputs, "valid"}
    assert outputs["embedding"].dtype == outputs["probabilities"].dtype == tf.float32


def test_mistakes_are_named_together(tmp_path):
    image, other = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="metadata")
    pooled = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(image), other])
    model = keras.Model({"image": image, "metadata": other}, {"label": keras.layers.Dense(3)(pooled)})
    with pytest.raises(UserError, match=r"metadata.*3 classes, but 2 names"):
        export_model(model, tmp_path, classes=CLASSES, image_size=(8, 8), name="two")
    with pytest.raises(UserError, match="expected"):
        export_model(seeded_model(), tmp_path, classes=CLASSES, image_size=(8, 8), name="size")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("order", [(), (invert,)])
def test_a_chain_of_segmenter_and_classifier_is_one_export(tmp_path, order):
    keras.utils.set_random_seed(5)
    classifier, cutter = branched_model(), segmenter_model()
    target = export_model(
        classifier,
        tmp_path,
        classes=CLASSES,
        image_size=SIZE,
        name="chained",
        metadata=AgeAndSex(),
        segmenter=Segmenter(cutter, OTHER, order),
    )
    loaded = tf.saved_model.load(str(target))
    uploads = [photograph("PNG", 48, 64, 1), b"no image", photograph("PNG", 30, 50, 2)]
    fields = {"age": tf.constant([55.0, 1.0, -1.0]), "sex": tf.constant(["f", "m", ""])}
    served = loaded.signatures["serving_default"](image_bytes=tf.constant(uploads), **fields)
    assert served["valid"].numpy().tolist() == [True, False, True]
    explained = loaded.signatures["explain"](image_bytes=tf.constant(uploads), **fields)
    for row, metadata in ((0, [1.1, 1, 1]), (2, [0, 0, 0])):
        decoded = decode_image(uploads[row])
        logits = cutter({"image": model_image(decoded, OTHER, order)[None]})["mask"]
        lesion = tf.cast(logits > 0, tf.float32)
        assert 0.05 < float(tf.reduce_mean(lesion)) < 0.95
        image = model_image(decoded, SIZE)[None]
        inputs = {"image": image, "segmented_image": segmented_image(image, lesion), "metadata": tf.constant([metadata])}
        np.testing.assert_allclose(served["probabilities"][row], tf.nn.softmax(classifier(inputs)["label"])[0], atol=1e-5)
        np.testing.assert_allclose(served["mask"][row], tf.sigmoid(logits)[0], atol=1e-5)
        assert tf.io.decode_png(served["mask_png_bytes"][row]).shape[:2] == decoded.shape[:2]
        for layer, name in (("cam_features", "grad_cam"), ("cam_features_segmented", "grad_cam_segmented")):
            np.testing.assert_allclose(explained[name][row], GradCAM(classifier, layer)(inputs)[0], atol=1e-5)
            features = keras.Model(classifier.input, classifier.get_layer(layer).output)(inputs)
            np.testing.assert_allclose(explained[layer][row], features[0], atol=1e-5)
        assert explained["label"][row] == served["label"][row]
    assert not np.any(explained["grad_cam"][1])
    assert served["mask_png_bytes"][1] == b""
    assert np.any(explained["grad_cam"])
    with pytest.raises(UserError, match=r"inputs must be a dict with 'image' and 'metadata', got .*segmented_image"):
        export_model(classifier, tmp_path, classes=CLASSES, image_size=SIZE, name="chained", metadata=AgeAndSex())
    with pytest.raises(UserError, match="its segmenter must predict a 'mask' from an 'image' alone"):
        export_model(
            classifier,
            tmp_path,
            classes=CLASSES,
            image_size=SIZE,
            name="c",
            metadata=AgeAndSex(),
            segmenter=Segmenter(classifier, SIZE),
        )


def test_two_exports_of_one_model_have_equal_variables(tmp_path):
    """In this process and in another one, where memory addresses differ."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from small_models import CLASSES, SIZE, seeded_model\n"
        "from keras_skin.export.saved_model import export_model\n"
        "model = seeded_model()\n"
        "for folder in sys.argv[1:]: export_model(model, folder, classes=CLASSES, image_size=SIZE, name='joint')\n"
    )
    folders = [str(tmp_path / name) for name in ("a", "b", "c")]
    for names in (folders[:2], folders[2:]):
        subprocess.run([sys.executable, "-c", script, *names], check=True)
    first, *others = [{path.name: path.read_bytes() for path in Path(folder, "1", "variables").iterdir()} for folder in folders]
    assert len(first) == 2
    assert others == [first, first]

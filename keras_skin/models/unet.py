"""The U-Net of paper 001: its segmentation baseline, and the body of its joint model (jrl.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_skin.layers.conv_block import conv_block, convolution
from keras_skin.layers.min_max_scaling import MinMaxScaling
from keras_skin.layers.reverse_joint_gate import ReverseJointGate
from keras_skin.models import register
from keras_skin.registry import UserError

FILTERS = (32, 64, 128, 256, 320, 320)
SCALINGS = ("255", "min_max")


@register(
    "unet",
    paper="Al-masni et al., Bioengineering 2024, 11, 1173 (table 3, Seg)",
    tiny={"image_size": (32, 32), "filters": (4, 4, 8, 8)},
    published_params=(({}, 10.71e6),),
    params_tolerance=0.005,
)
def UNet(
    image_size: tuple[int, int] = (192, 256),
    filters: Sequence[int] = FILTERS,
    scaling: Literal["255", "min_max"] = "255",
    classes: int = 2,
) -> keras.Model:
    """U-Net with nnU-Net's widths and strided convolutions: a mask as the only output.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, section 3.4.1. Six encoder levels of two 3x3 convolutions, each with
    batch normalisation and ReLU, the first of levels 2 to 6 with stride 2; a decoder of 2x2 transposed convolutions, skip
    concatenation and two 3x3 convolutions; a 1x1 convolution as head. 10.71 M parameters.

    Args:
        image_size: height and width, each a multiple of 2 ** (levels - 1), 32 for six levels.
        filters: features of the levels, finest first.
        scaling: `"255"` divides the image by 255; `"min_max"` scales each channel of each image to its own range, the literal
            reading of section 3.2.
        classes: accepted for uniformity with the other builders; a mask has no classes.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask": (B, H, W, 1) float32 logits}. Feature layers: `encoder_1`
        (finest) to `encoder_6`, `decoder_5` to `decoder_1`, and `cam_features`, an alias of the deepest.

    Raises:
        UserError: if the image size does not fit the number of levels, or the scaling is unknown.

    Example:

    >>> UNet(image_size=(64, 64), filters=(4, 8)).output_shape
    (None, 64, 64, 1)

    **Deviations from the paper**:

    - The head is one logit (sigmoid) instead of a softmax over two maps: the same family of functions.
    - Section 3.2 scales images "in a channel-wise manner" to [0, 1]. By default all are divided by 255, which keeps colour and
      brightness; `scaling="min_max"` removes them.
    - Not in the paper: convolutions before a normalisation without bias, He initialisation, batch-norm momentum 0.9.
    - The paper's text appends the 1x1 convolution "to the last layer of the encoder path"; its figure 3 shows the decoder's end.
    """
    image = image_input(image_size, filters)
    skips = encoder(image, filters, scaling)
    x = keras.layers.Identity(name="cam_features")(skips[-1])
    for level in range(len(filters) - 1, 0, -1):
        x = DecoderLevel(level, filters[level - 1])(x, skips[level - 1])
    mask = mask_head()(x)
    return keras.Model({"image": image}, {"mask": keras.layers.Identity(name="mask", dtype="float32")(mask)}, name="unet")


def image_input(image_size: tuple[int, int], levels: Sequence[int]) -> Any:
    """Returns the symbolic image (B, H, W, 3) in 0..255; raises a UserError if its size cannot be halved for every level."""
    multiple = 2 ** (len(levels) - 1)
    height, width = image_size
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise UserError(
            f"image_size is {height}x{width}, but {len(levels)} levels need a height and a width that are multiples "
            f"of {multiple}; the nearest is {_nearest(height, multiple)}x{_nearest(width, multiple)}."
        )
    return keras.Input((height, width, 3), name="image")


def _nearest(size: int, multiple: int) -> int:
    return max(1, round(size / multiple)) * multiple


def encoder(image: Any, filters: Sequence[int], scaling: str = "255") -> list[Any]:
    """Scales the image to [0, 1] and returns the features of every level, finest first; raises a UserError if `scaling` is
    unknown."""
    if scaling not in SCALINGS:
        raise UserError(f"scaling is {scaling!r}, expected one of {', '.join(SCALINGS)}.")
    # bfloat16 has eight bits of mantissa and would round 201 to 200, so the scaling is float32 under every policy.
    is_range = scaling == "255"
    scale = (
        keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")
        if is_range
        else MinMaxScaling(dtype="float32", name="scale")
    )
    x = scale(image)
    levels = []
    for level, features in enumerate(filters, start=1):
        name = f"encoder_{level}"
        x = conv_block(x, convolution(features, strides=1 if level == 1 else 2, name=f"{name}_conv_1"), f"{name}_1")
        x = conv_block(x, convolution(features, name=f"{name}_conv_2"), name)
        levels.append(x)
    return levels


class DecoderLevel:
    """The kernels of one decoder level; every call is a pass through them with its own batch normalisations.

    Args:
        level: number of the level, 1 is the finest, or a text in its place for the names of its layers.
        features: number of channels.
    """

    def __init__(self, level: int | str, features: int) -> None:
        self.name = f"decoder_{level}"
        self.upsample = keras.layers.Conv2DTranspose(features, 2, strides=2, name=f"{self.name}_upsample")
        self.convolution_1 = convolution(features, name=f"{self.name}_conv_1")
        self.convolution_2 = convolution(features, name=f"{self.name}_conv_2")

    def __call__(self, x: Any, skip: Any, prefix: str = "") -> Any:
        """Returns features (B, H, W, features) from those of the coarser level, (B, H/2, W/2, C), and the encoder's or None."""
        return self.second(self.first(x, skip, prefix), prefix)

    def first(self, x: Any, skip: Any, prefix: str = "") -> Any:
        """Returns the features after the first convolution."""
        x = self.upsample(x)
        if skip is not None:
            x = keras.layers.Concatenate(name=f"{prefix}{self.name}_skip")([x, skip])
        return conv_block(x, self.convolution_1, f"{prefix}{self.name}_1")

    def second(self, x: Any, prefix: str = "", units: Any = None, gate: str = "relu") -> Any:
        """Returns the features after the second convolution, whose input is weighted by a classifier's `units` (B, features)."""
        if units is not None:
            x = ReverseJointGate(gate, name=f"{prefix}{self.name}_gate")([x, units])
        return conv_block(x, self.convolution_2, f"{prefix}{self.name}")


def mask_head() -> keras.layers.Conv2D:
    """Returns the 1x1 convolution to one mask logit, in float32."""
    return keras.layers.Conv2D(1, 1, dtype="float32", name="mask_head")

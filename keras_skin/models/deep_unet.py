"""Deep-UNet: the segmentation network of paper 002."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_skin.layers.aspp import atrous_spatial_pyramid
from keras_skin.layers.attention_gate import depthwise_attention_gate
from keras_skin.layers.conv_block import conv_block
from keras_skin.layers.depthwise_separable import separable_convolution
from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.models.unet import image_input, mask_head
from keras_skin.models.unet_backbone import FILTERS, STRIDES, check_pyramid

SUPERVISED = {2: "mask_aux_1", 3: "mask_aux_2"}


@register(
    "deep_unet",
    paper="Atiq and Fattah, Towards Explainable Skin Cancer Classification (paper 002), section 4.1",
    tiny={"image_size": (64, 64), "backbone": "resnet18", "filters": (4, 4, 8, 8, 8), "features": 8},
)
def DeepUNet(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 2,
    backbone: str = "efficientnet_b3",
    weights: str | None = None,
    filters: Sequence[int] = FILTERS,
    features: int = 256,
) -> keras.Model:
    """U-Net on EfficientNet-B3 with a pyramid of dilated convolutions, attention gates and deep supervision: a mask.

    Source: Atiq and Fattah, Towards Explainable Skin Cancer Classification: A Dual-Network Attention Model with Lesion
    Segmentation and Clinical Metadata Fusion, section 4.1.1 and figure 1.

    - Encoder: EfficientNet-B3 up to its last block (384 channels, 7x7 at 224x224), without the 1536-channel top.
    - Bottleneck: atrous spatial pyramid with dilations 1, 2 and 3.
    - Skip connections: depthwise attention gates.
    - Decoder: at each of five levels a 2x2 transposed convolution, the gated skip (at strides 16, 8, 4 and 2), and twice a
      depthwise separable 3x3 convolution with batch normalisation and ReLU; then a 1x1 convolution.
    - Deep supervision: decoder levels 2 and 3 have their own masks, resized to the image's size. Train them with the same loss as
      the mask, weighted 0.2 and 0.1 (equation 4). The exported model does not contain them.

    13.96 M parameters, 56 MB as float32.

    Args:
        image_size: height and width, multiples of 32.
        classes: accepted for uniformity with the other builders; a mask has no classes.
        backbone: the encoder, a name of `BACKBONES` with features at strides 2 to 32.
        weights: weights of the encoder: None, `"imagenet"` as in the paper, or a path, see `build_backbone`.
        filters: features of the five decoder levels, finest first.
        features: channels of the atrous pyramid.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask", "mask_aux_1", "mask_aux_2"}, each (B, H, W, 1) float32
        logits; `mask_aux_1` is of decoder level 2 (half the image's size), `mask_aux_2` of level 3. Feature layers: `encoder_1`
        (stride 2) to `encoder_5` (stride 32), `decoder_5` (stride 16) to `decoder_1` (the image's size), `gate_1_mask` to
        `gate_4_mask` (the attention gates), and `cam_features`, an alias of the pyramid's output.

    Raises:
        UserError: if an argument is out of range, or the weights are not available.

    Example:

    >>> DeepUNet(image_size=(64, 64)).output_shape["mask"]
    (None, 64, 64, 1)

    **Deviations from the paper**:

    - The paper prints neither the widths of pyramid and decoder nor the supervised decoder levels. The widths are those of the
      common implementation with this encoder.
    - The first loss weight, 0.2, is taken as that of the finer of the two supervised levels.
    - The "Size (MB)" of its table 1, 204.26 for this network, is not the size of the weights. It is best explained as the weights
      plus, for one image, the outputs of all layers with weights: 55.8 + 141.9 = 197.7 MB here. This gives the printed order of
      all four networks: U-Net 185.6 (printed: 200.44), this one, DeepLabV3+ 204.9 (211.31), U-Net++ 224.0 (273.32).
      `tools/model_footprint.py` prints these numbers.
    """
    check_pyramid(backbone, filters)
    image = image_input(image_size, STRIDES)
    levels = build_backbone(backbone, image, weights).levels
    x = atrous_spatial_pyramid(levels[STRIDES[-1]], features)
    x = keras.layers.Identity(name="cam_features")(x)
    outputs = {}
    for level in range(len(filters), 0, -1):
        stride = STRIDES[level - 1]
        skip = depthwise_attention_gate(levels[stride], f"gate_{level - 1}") if stride > 1 else None
        x = _decoder_level(x, skip, filters[level - 1], level)
        if level in SUPERVISED:
            outputs[SUPERVISED[level]] = _auxiliary_mask(x, stride, SUPERVISED[level])
    outputs["mask"] = keras.layers.Identity(name="mask", dtype="float32")(mask_head()(x))
    return keras.Model({"image": image}, outputs, name="deep_unet")


def _decoder_level(x: Any, skip: Any, features: int, level: int) -> Any:
    """Returns features (B, 2h, 2w, features) from those of the coarser level, (B, h, w, C), and optionally the encoder's."""
    name = f"decoder_{level}"
    x = keras.layers.Conv2DTranspose(features, 2, strides=2, name=f"{name}_upsample")(x)
    if skip is not None:
        x = keras.layers.Concatenate(name=f"{name}_skip")([x, skip])
    x = conv_block(x, separable_convolution(features, name=f"{name}_conv_1"), f"{name}_1")
    return conv_block(x, separable_convolution(features, name=f"{name}_conv_2"), name)


def _auxiliary_mask(features: Any, stride: int, name: str) -> Any:
    """Returns float32 logits of a mask (B, H, W, 1) from features at a fraction of its size."""
    logits = keras.layers.Conv2D(1, 1, dtype="float32", name=f"{name}_head")(features)
    return keras.layers.UpSampling2D(stride, interpolation="bilinear", dtype="float32", name=name)(logits)

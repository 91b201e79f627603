"""DeepLabV3+ on any backbone with a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_skin.layers.conv_block import conv_block, convolution
from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.models.unet import image_input, mask_head
from keras_skin.models.unet_backbone import FILTERS, STRIDES, check_pyramid, mask_model

LOW_LEVEL_FEATURES = 48


@register(
    "deeplabv3plus",
    paper="DeepLabV3+ with an EfficientNet-B3 encoder, peer of Deep-UNet (table 1)",
    tiny={"image_size": (64, 64), "backbone": "resnet18", "features": 8},
)
def DeepLabV3Plus(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 2,
    backbone: str = "efficientnet_b3",
    weights: str | None = None,
    features: int = 256,
    dilations: Sequence[int] = (6, 12, 18),
) -> keras.Model:
    """A backbone with atrous spatial pyramid pooling, and a decoder with one skip connection: a mask as the only output.

    Source: Chen et al., ECCV 2018, section 3, with an EfficientNet-B3 encoder as the DeepLabV3+ of table 1 of the Deep-UNet and
    TDBN paper. The backbone keeps stride 16 to its end (its last strides become dilations). The pooled pyramid is upsampled by
    four, concatenated with 48 features of the encoder at stride 4, refined by two 3x3 convolutions, and upsampled by four.
    14.67 M parameters with EfficientNet-B3.

    Args:
        image_size: height and width, multiples of 32.
        classes: accepted for uniformity with the other builders; a mask has no classes.
        backbone: a name of `BACKBONES` with features at strides 2 to 32.
        weights: weights of the backbone: None, `"imagenet"` or a path, see `build_backbone`.
        features: channels of the pyramid pooling and of the decoder.
        dilations: dilations of the pyramid's three 3x3 convolutions.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"mask": (B, H, W, 1) float32 logits}. Feature layers: `encoder_1`
        (stride 2) to `encoder_5` (stride 16, like `encoder_4`), `cam_features`, an alias of it, and `decoder_1` (stride 4).

    Raises:
        UserError: if an argument is out of range, or the weights are not available.

    Example:

    >>> DeepLabV3Plus(image_size=(64, 64), backbone="mobilenet_v2").output_shape
    (None, 64, 64, 1)

    **Deviations from the paper**: convolutions are plain instead of depthwise separable, in the pyramid (KerasCV's layer) and in
    the decoder. As in the paper, the mask's logits are upsampled without learnt weights.
    """
    check_pyramid(backbone, FILTERS)
    image = image_input(image_size, STRIDES)
    levels = build_backbone(backbone, image, weights, output_stride=16).levels
    deepest = keras.layers.Identity(name="cam_features")(levels[16])
    pooled = keras.layers.UpSampling2D(4, interpolation="bilinear", name="pooled")(_pyramid_pooling(features, dilations)(deepest))
    low = conv_block(levels[4], convolution(LOW_LEVEL_FEATURES, kernel_size=1, name="low_level_conv"), "low_level")
    x = keras.layers.Concatenate(name="decoder_1_skip")([pooled, low])
    x = conv_block(x, convolution(features, name="decoder_1_conv_1"), "decoder_1_1")
    x = conv_block(x, convolution(features, name="decoder_1_conv_2"), "decoder_1")
    logits = keras.layers.UpSampling2D(4, interpolation="bilinear", dtype="float32", name="enlarged")(mask_head()(x))
    return mask_model(image, logits, "deeplabv3plus")


def _pyramid_pooling(features: int, dilations: Sequence[int]) -> keras.layers.Layer:
    import keras_cv  # takes seconds, and no other model needs it

    return keras_cv.layers.SpatialPyramidPooling(list(dilations), num_channels=features, name="pyramid_pooling")

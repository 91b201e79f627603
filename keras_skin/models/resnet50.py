"""ResNet50 with a dense head: the classification baseline of paper 001."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_skin.layers.batch_normalization import with_fused_batch_normalization
from keras_skin.layers.classifier import classifier
from keras_skin.models import register
from keras_skin.registry import UserError

# Mean of ImageNet's blue, green and red: what Keras' ResNet50 weights were trained with (no division, no [0, 1]).
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
SMALLEST = 32


@register(
    "resnet50",
    paper="Al-masni et al., Bioengineering 2024, 11, 1173 (table 3, Cls)",
    tiny={"image_size": (32, 32)},
    published_params=(({}, 23.84e6),),
    params_tolerance=0.005,
)
def resnet50(image_size: tuple[int, int] = (192, 256), classes: int = 2, weights: str | None = None) -> keras.Model:
    """ResNet50, global average pooling, dense layers of 128, 64 and 32 units, classes.

    Source: He et al., CVPR 2016, as the baseline of Al-masni et al., Bioengineering 2024, 11, 1173, section 4.1, with the dense
    head of its joint model. 23.86 M parameters; the paper prints 23.84 M.

    Args:
        image_size: height and width, 32 or more.
        classes: number of classes, at least 2.
        weights: `None` to start from random numbers, or `"imagenet"`, which Keras downloads once.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"label": (B, classes) float32 logits}. Feature layers: `encoder_1`
        (stride 2) to `encoder_5` (stride 32), and `cam_features`, an alias of the deepest.

    Raises:
        UserError: if an argument is out of range, or if the ImageNet weights can neither be found nor downloaded.

    Example:

    >>> resnet50(image_size=(64, 64)).output_shape
    {'label': (None, 2)}

    **Deviations from the paper**:

    - It does not say whether ImageNet weights were used: they are by request. Without them images are scaled to [0, 1] as in its
      section 3.2; with them they are centred as those weights expect.
    - The head's widths are those of the joint model's figure 3; the text names none for the baseline.
    """
    _check(image_size, classes, weights)
    image = keras.Input((*image_size, 3), name="image")
    # Scaling is float32 under every policy: bfloat16 would turn 201 into 200.
    if weights == "imagenet":
        mean = keras.layers.Normalization(mean=IMAGENET_MEAN_BGR, variance=(1.0,) * 3, dtype="float32", name="scale")
        x = mean(ops.flip(image, axis=-1))
    else:
        x = keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")(image)
    backbone = _backbone(x, weights)
    features = keras.layers.Identity(name="cam_features")(backbone.output)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    label, _ = classifier(pooled, classes)
    model = keras.Model({"image": image}, {"label": label}, name="resnet50")
    return with_fused_batch_normalization(model, rename=FEATURE_LAYERS)


# The last layer of each stage in keras.applications, and what we call it.
FEATURE_LAYERS = {
    "conv1_relu": "encoder_1",
    "conv2_block3_out": "encoder_2",
    "conv3_block4_out": "encoder_3",
    "conv4_block6_out": "encoder_4",
    "conv5_block3_out": "encoder_5",
}


def _backbone(x: Any, weights: str | None) -> keras.Model:
    try:
        return keras.applications.ResNet50(include_top=False, weights=weights, input_tensor=x)
    except Exception as error:
        # keras.utils.get_file raises a bare Exception for every failure of the network.
        if weights is None or not str(error).startswith("URL fetch failure"):
            raise
        raise UserError(
            f"The ImageNet weights of ResNet50 could not be downloaded ({error}). Run once with a network, or put the file "
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 into ~/.keras/models (or $KERAS_HOME/models), or set the "
            "model's weights to null to start from random numbers."
        ) from error


def _check(image_size: tuple[int, int], classes: int, weights: str | None) -> None:
    problems = []
    if min(image_size) < SMALLEST:
        problems.append(f"image_size is {image_size[0]}x{image_size[1]}, expected {SMALLEST}x{SMALLEST} or more")
    if classes < 2:
        problems.append(f"classes is {classes}, expected 2 or more")
    if weights not in (None, "imagenet"):
        problems.append(f"weights is {weights!r}, expected null or 'imagenet'")
    if problems:
        raise UserError("The resnet50 model cannot be built: " + "; ".join(problems) + ".")

"""ResNet50 with a dense head: the classification baseline of paper 001."""

from __future__ import annotations

import keras

from keras_skin.layers.classifier import classifier
from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.registry import UserError


@register(
    "resnet50",
    paper="Al-masni et al., Bioengineering 2024, 11, 1173 (table 3, Cls)",
    # At 32 pixels the deepest normalisations would see four numbers per channel and batch.
    tiny={"image_size": (64, 64)},
    published_params=(({}, 23.84e6),),
    params_tolerance=0.005,
)
def ResNet50(image_size: tuple[int, int] = (192, 256), classes: int = 2, weights: str | None = None) -> keras.Model:
    """ResNet50, global average pooling, dense layers of 128, 64 and 32 units, classes.

    Source: He et al., CVPR 2016, as the baseline of Al-masni et al., Bioengineering 2024, 11, 1173, section 4.1, with the dense
    head of its joint model. 23.86 M parameters; the paper prints 23.84 M.

    Args:
        image_size: height and width, 32 or more.
        classes: number of classes, at least 2.
        weights: `None` to start from random numbers, `"imagenet"`, or a weight file: see `build_backbone`.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"label": (B, classes) float32 logits}. Feature layers: `encoder_1`
        (stride 2) to `encoder_5` (stride 32), and `cam_features`, an alias of the deepest.

    Raises:
        UserError: if an argument is out of range, or the ImageNet weights are not available.

    Example:

    >>> ResNet50(image_size=(64, 64)).output_shape
    (None, 2)

    **Deviations from the paper**:

    - The paper does not report whether it used ImageNet weights; here they are an argument.
    - Images are always centred as those weights expect; section 3.2 of the paper scales them to [0, 1]. The normalisation after
      the first convolution removes the difference in scale.
    - The head's widths are those of the joint model's figure 3; the paper prints none for the baseline.
    """
    if classes < 2:
        raise UserError(f"The resnet50 model cannot be built: classes is {classes}, expected 2 or more.")
    image = keras.Input((*image_size, 3), name="image")
    features = build_backbone("resnet50", image, weights).deepest
    features = keras.layers.Identity(name="cam_features")(features)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    label, _ = classifier(pooled, classes)
    return keras.Model({"image": image}, {"label": label}, name="resnet50")

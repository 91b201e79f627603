"""ResNet18 with multi-scale feature aggregation: the light classifier of paper 003."""

from __future__ import annotations

from typing import Literal

import keras

from keras_skin.layers.classifier import classifier
from keras_skin.layers.multi_scale import POOLINGS, multi_scale_aggregation
from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.registry import UserError

AGGREGATIONS = ("multi_scale", "none")


@register(
    "msfa_resnet18",
    paper="003, section III and table IV",
    tiny={"image_size": (64, 64)},
    # The paper prints the second; the first is ResNet18 without its ImageNet head, as He et al., CVPR 2016, have it.
    published_params=(({"aggregation": "none"}, 11.18e6), ({}, 11.5e6)),
    params_tolerance=0.01,
)
def MSFAResNet18(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 7,
    aggregation: Literal["multi_scale", "none"] = "multi_scale",
    pooling: Literal["window", "grid"] = "window",
    weights: str | None = None,
    backbone: str = "resnet18",
) -> keras.Model:
    """ResNet18 with averages of its last feature map at three scales before the classifier.

    Source: paper 003 (light multi-scale ResNet18 on HAM10000), sections III-B and III-C, figures 1 and 2: ResNet18, multi-scale
    feature aggregation (`multi_scale_aggregation`) on its last feature map, global average pooling, one dense layer.

    With seven classes it has 11.45 M parameters, of which the aggregation has 0.26 M; the paper prints about 11.5 M and less than
    0.3 M. A full 1x1 convolution from the 1536 averaged channels to 512 would add 0.79 M, 11.98 M in total. The aggregation's
    bottleneck of 128 channels meets both numbers.

    Args:
        image_size: height and width, 32 or more.
        classes: number of classes, at least 2.
        aggregation: `"multi_scale"`, or `"none"` for the plain ResNet18 of the ablation.
        pooling: whether 4, 8 and 16 are windows of so many positions or grids of so many cells, see `multi_scale_aggregation`.
        weights: weights of the backbone: `None` to start from random numbers, `"imagenet"`, or a path: see `build_backbone`.
        backbone: a name of `BACKBONES`; the paper's is resnet18.

    Returns:
        Model from {"image": (B, H, W, 3) float32, 0..255} to {"label": (B, classes) float32 logits}. Feature layers: `encoder_1`
        (stride 2) to `encoder_5` (stride 32), and `cam_features`, an alias of the deepest, the input of the aggregation.

    Raises:
        UserError: if an argument is out of range, or the weights are not available.

    Example:

    >>> MSFAResNet18(image_size=(64, 64)).output_shape
    {'label': (None, 7)}

    **Deviations from the paper**:

    - Those of `multi_scale_aggregation`.
    - `backbone` other than resnet18, which has other channels and numbers of parameters.
    - The paper describes the classification head only in figure 2; here it is the head of ResNet18.
    - The paper does not name the layer for Grad-CAM. Here it is the last of ResNet18, before the aggregation: on a 7x7 map the
      windows of 8 and 16 average nearly all positions, so the aggregated map has lost them.
    - The baseline of table IV is `classifier` with two streams.
    """
    problems = []
    if classes < 2:
        problems.append(f"classes is {classes}, expected 2 or more")
    if aggregation not in AGGREGATIONS:
        problems.append(f"aggregation is {aggregation!r}, expected one of {', '.join(AGGREGATIONS)}")
    if pooling not in POOLINGS:
        problems.append(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if problems:
        raise UserError("The msfa_resnet18 model cannot be built: " + "; ".join(problems) + ".")
    image = keras.Input((*image_size, 3), name="image")
    x = keras.layers.Identity(name="cam_features")(build_backbone(backbone, image, weights).deepest)
    if aggregation == "multi_scale":
        x = multi_scale_aggregation(x, pooling=pooling)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    label, _ = classifier(pooled, classes, widths=())
    return keras.Model({"image": image}, {"label": label}, name="msfa_resnet18")

"""Any backbone of the table with the head that it has in image classification."""

from __future__ import annotations

import keras

from keras_skin.layers.classifier import classifier
from keras_skin.models import register
from keras_skin.models.backbones import build_backbone
from keras_skin.registry import UserError


@register(
    "classifier",
    paper="baselines of papers 002 (tables 2 and 3) and 003 (table IV)",
    tiny={"image_size": (64, 64), "backbone": "resnet18"},
    # Paper 003 prints 22 to 25 M for two streams.
    published_params=(({"streams": 2}, 22.4e6),),
    params_tolerance=0.005,
)
def Classifier(
    image_size: tuple[int, int] = (224, 224),
    classes: int = 7,
    backbone: str = "resnet18",
    weights: str | None = None,
    streams: int = 1,
    segmented: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """A backbone, global average pooling, dropout, and one dense layer.

    Source: the baselines of paper 002 (Atiq and Fattah), tables 2 and 3, and the "multi-stream CNN" of paper 003 (Kohli et al.),
    table IV. The head is the one that ResNet, DenseNet, Xception, MobileNetV2 and EfficientNet have for ImageNet.

    Args:
        image_size: height and width, 32 or more.
        classes: number of classes, at least 2.
        backbone: a name of `BACKBONES`.
        weights: weights of the backbones: None to start from random numbers, `"imagenet"`, or a path, see `build_backbone`.
        streams: number of backbones, at least 1. Each sees the whole image and has its own weights; their last maps are
            concatenated.
        segmented: whether the model sees the lesion cut out of the image instead of the image.
        dropout: dropout before the dense layer, in [0, 1).

    Returns:
        Model from {"image" or "segmented_image": (B, H, W, 3) float32, 0..255} to {"label": (B, classes) float32 logits}. Feature
        layers: `encoder_1` and so on; of the second stream `stream_2_encoder_1` and so on. `cam_features` is the map that is
        pooled.

    Raises:
        UserError: listing all arguments that are out of range, or if the weights are not available.

    Example:

    >>> Classifier(image_size=(64, 64)).output_shape
    {'label': (None, 7)}

    **Deviations from the paper**:

    - Neither paper describes the heads of its baselines. Paper 002 names known networks, so they have their own heads.
    - A vision transformer's patches are averaged instead of taking its class token, so that Grad-CAM has a map.
    - Paper 003 does not describe its baseline but for "multi-stream", 22 to 25 M parameters, and, in section II-B, two networks
      whose information is combined. Two streams of ResNet18 have 22.4 M. Both start from the same ImageNet weights and differ
      by the dense layer's random start.
    """
    problems = []
    if classes < 2:
        problems.append(f"classes is {classes}, expected 2 or more")
    if streams < 1:
        problems.append(f"streams is {streams}, expected 1 or more")
    if not 0 <= dropout < 1:
        problems.append(f"dropout is {dropout}, expected 0 or more and less than 1")
    if problems:
        raise UserError("The classifier model cannot be built: " + "; ".join(problems) + ".")
    name = "segmented_image" if segmented else "image"
    image = keras.Input((*image_size, 3), name=name)
    prefixes = ("", *(f"stream_{number}_" for number in range(2, streams + 1)))
    maps = [build_backbone(backbone, image, weights, prefix).deepest for prefix in prefixes]
    features = keras.layers.Concatenate(name="streams")(maps) if streams > 1 else maps[0]
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(keras.layers.Identity(name="cam_features")(features))
    label, _ = classifier(pooled, classes, widths=(), dropout=dropout)
    return keras.Model({name: image}, {"label": label}, name="classifier")

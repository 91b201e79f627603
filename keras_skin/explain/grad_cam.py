"""Grad-CAM: maps of the evidence for a class or for a predicted lesion on a feature layer, a whole batch in one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_skin.registry import UserError, did_you_mean

NO_EVIDENCE = "no positive evidence"

# Gradients of a wide feature map lie below 6e-8, the smallest number of float16. They are scaled up, and divided in float32.
_FLOAT16_SCALE = 1024.0

FEATURES = "cam_features"
"""Name of the layer to explain in every model; the names of further branches start with it."""


class GradCAM:
    """Maps of the positive evidence for a class on a named feature layer (paper 003, section III-E, equations 3 and 4).

    Equation 3: alpha_k^c = (1/Z) sum_ij dy^c / dA_ij^k. Equation 4: L^c = ReLU(sum_k alpha_k^c A^k), where A is the layer's
    output, Z its number of positions and y^c the logit of class c. Each image is explained by its own logit alone, so a map does
    not depend on the rest of the batch. Logit, alpha and map are float32 in any model precision.

    For an output with four dimensions (`output="mask"`) y is the mean logit over the pixels that the model predicts as lesion
    (Seg-Grad-CAM). An image without such pixels has no positive evidence.

    Args:
        model: functional `keras.Model` with any number of inputs and outputs.
        layer: name of a layer with output (B, h, w, K). A layer inside a nested model is written `"backbone/stage_4"`. If the
            layer is called several times, its last call is explained.
        output: key of the output whose logits are explained: `"label"` (B, classes) or `"mask"` (B, H, W, channels).
        method: `"grad_cam"`, or `"grad_cam++"` (Chattopadhyay et al., WACV 2018, equations 10, 16 and 19), which weights
            channels by their positive gradients, small regions more than equation 3.

    Raises:
        UserError: if the model has no such layer or output, or if the layer has no influence on the output.

    Example:

    ```python
    cam = GradCAM(model)
    maps = cam({"image": images})                  # (B, h, w), for the predicted class of each image
    heat, has_evidence = normalise(cam.upsample(maps, (192, 256)))
    ```

    **Deviations from the paper**: none in the equations. The paper does not name the layer; `cam_features` is each model's last
    spatial layer before its classifier.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str = FEATURES,
        output: str = "label",
        method: Literal["grad_cam", "grad_cam++"] = "grad_cam",
    ) -> None:
        if method not in ("grad_cam", "grad_cam++"):
            raise UserError(f"method is {method!r}, expected 'grad_cam' or 'grad_cam++'. Score-CAM is the class `ScoreCAM`.")
        self.model = model
        self.layer = layer
        self.output = output
        self.method = method
        self._target = _find_layer(model, layer)
        outputs = model.output
        if isinstance(outputs, Mapping) and output not in outputs:
            raise UserError(
                f"The model has no output '{output}' to explain.{did_you_mean(output, outputs)} It has: {', '.join(outputs)}."
            )
        self.channels = int((outputs[output] if isinstance(outputs, Mapping) else outputs).shape[-1])
        specs = keras.tree.map_structure(lambda tensor: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype), model.input)
        self._specs = specs
        self._graph = tf.function(self.compute, input_signature=[specs, tf.TensorSpec((None,), tf.int32)], autograph=False)

    def __call__(self, inputs: Any, class_index: int | Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Returns the maps at the layer's resolution.

        Args:
            inputs: the model's inputs, usually `{"image": (B, H, W, 3) float32 in 0..255}`; other keys are ignored.
            class_index: class (or mask channel) to explain for each image, (B,) or one number for all; None is the predicted
                class.

        Returns:
            float32 array (B, h, w), >= 0.

        Raises:
            UserError: if an input is missing or a class does not exist.
        """
        tensors, indices = self.prepare(inputs, class_index)
        return self._graph(tensors, tf.constant(indices)).numpy()

    def prepare(self, inputs: Any, class_index: int | Sequence[int] | np.ndarray | None = None) -> tuple[Any, np.ndarray]:
        """Returns the inputs as tensors and the class of each image (B,) int32, -1 for the predicted one; checks both."""
        tensors = self._select(inputs)
        batch = int(keras.tree.flatten(tensors)[0].shape[0])
        indices = np.broadcast_to(np.asarray(-1 if class_index is None else class_index, np.int32), (batch,))
        if class_index is not None and not ((indices >= 0) & (indices < self.channels)).all():
            raise UserError(f"Class indices to explain must lie in 0..{self.channels - 1}, got {sorted(set(indices.tolist()))}.")
        return tensors, indices

    def compute(self, inputs: Any, class_index: tf.Tensor) -> tf.Tensor:
        """The same on tensors, for use inside another graph: `class_index` (B,) int32, -1 is the predicted class."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            features, scores = self.features_and_scores(inputs, class_index, tape.watch)
            scale = _FLOAT16_SCALE if features.dtype == tf.float16 else 1.0
            total = scale * tf.reduce_sum(scores)
        gradients = tape.gradient(total, features)
        if gradients is None:
            raise UserError(f"Layer '{self.layer}' has no influence on output '{self.output}', so there is nothing to explain.")
        features, gradients = tf.cast(features, tf.float32), tf.cast(gradients, tf.float32) / scale
        weigh = _channel_weights if self.method == "grad_cam" else _channel_weights_plus_plus
        return tf.nn.relu(tf.reduce_sum(weigh(features, gradients) * features, axis=-1))  # equation 4

    def features_and_scores(
        self, inputs: Any, class_index: tf.Tensor, watch: Callable[[tf.Tensor], None] | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the layer's output (B, h, w, K) and the score to explain (B,) float32.

        Args:
            inputs: the model's inputs as tensors.
            class_index: (B,) int32, -1 is the predicted class.
            watch: called with the layer's output before later layers use it.
        """
        with _recorded_calls(self._target, watch) as calls:
            outputs = self.model(inputs, training=False)
        logits = outputs[self.output] if isinstance(outputs, Mapping) else outputs
        features = calls[-1] if calls else None
        if not isinstance(features, tf.Tensor) or features.shape.rank != 4:
            problem = "is not called" if features is None else f"has {getattr(features, 'shape', 'several outputs')}"
            raise UserError(
                f"Grad-CAM needs a layer with one output of shape (batch, height, width, channels), but '{self.layer}' {problem}."
            )
        return features, _scores(tf.cast(logits, tf.float32), class_index)

    def check(self) -> None:
        """Builds the graph without running it, so that a wrong layer is reported before the training."""
        self._graph.get_concrete_function()

    @staticmethod
    def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Returns maps (B, h, w) resized bilinearly to `size` (height, width), float32."""
        return tf.image.resize(tf.convert_to_tensor(maps, tf.float32)[..., None], size)[..., 0].numpy()

    def _select(self, inputs: Any) -> Any:
        if isinstance(self._specs, dict):
            missing = [name for name in self._specs if name not in inputs]
            if missing:
                raise UserError(f"The model to explain also needs the inputs: {', '.join(missing)}.")
            inputs = {name: inputs[name] for name in self._specs}
        return keras.tree.map_structure(lambda spec, value: tf.cast(value, spec.dtype), self._specs, inputs)


def normalise(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divides each map by its own maximum.

    Args:
        maps: (B, h, w), >= 0.

    Returns:
        Maps in 0..1, float32 (B, h, w), and (B,) bool: whether a map has positive evidence. A map without it is zero; label it
        with `NO_EVIDENCE` instead of showing a blank picture.
    """
    finite = np.where(np.isfinite(maps), maps, 0.0).astype(np.float32)
    maxima = finite.max(axis=(1, 2), initial=0.0)
    has_evidence = maxima > 0.0
    return finite / np.where(has_evidence, maxima, 1.0)[:, None, None], has_evidence


def feature_layers(model: keras.Model) -> list[str]:
    """Returns the names of the layers to explain: `cam_features` and those of further branches."""
    maps = [layer for layer in model.layers if layer.name.startswith(FEATURES) and len(getattr(layer.output, "shape", ())) == 4]
    names = [layer.name for layer in maps]
    return sorted(names) or [FEATURES]


def _channel_weights(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Returns the weights of equation 3, (B, 1, 1, K)."""
    return tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)


def _channel_weights_plus_plus(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Returns the weights of Grad-CAM++, equations 16 and 19 for exp(y) in place of y, (B, 1, 1, K)."""
    squared = gradients**2
    denominator = 2.0 * squared + tf.reduce_sum(features, axis=(1, 2), keepdims=True) * squared * gradients
    shares = tf.math.divide_no_nan(squared, denominator)
    return tf.reduce_sum(shares * tf.nn.relu(gradients), axis=(1, 2), keepdims=True)


def _scores(logits: tf.Tensor, class_index: tf.Tensor) -> tf.Tensor:
    """Returns the score y of each image, (B,)."""
    if logits.shape.rank == 2:
        predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return tf.gather(logits, tf.where(class_index < 0, predicted, class_index), axis=1, batch_dims=1)
    if logits.shape.rank == 4:
        planes = tf.gather(tf.transpose(logits, (0, 3, 1, 2)), tf.maximum(class_index, 0), axis=1, batch_dims=1)
        foreground = planes > 0.0
        pixels = tf.reduce_sum(tf.cast(foreground, tf.float32), axis=(1, 2))
        return tf.reduce_sum(tf.where(foreground, planes, 0.0), axis=(1, 2)) / tf.maximum(pixels, 1.0)
    raise UserError(f"Grad-CAM explains outputs (batch, classes) or (batch, height, width, channels), not {logits.shape}.")


def _find_layer(model: keras.Model, path: str) -> keras.layers.Layer:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise UserError("Grad-CAM needs a functional keras.Model, one with inputs and outputs.")
    target: Any = model
    for name in path.split("/"):
        layers = {layer.name: layer for layer in getattr(target, "layers", [])}
        if name not in layers:
            raise UserError(
                f"Model '{target.name}' has no layer '{name}' (from '{path}').{did_you_mean(name, layers)} "
                "Feature layers are called encoder_1, decoder_1, cam_features; "
                "a layer of a nested model is written 'model/layer'."
            )
        target = layers[name]
    return target


@contextmanager
def _recorded_calls(layer: keras.layers.Layer, watch: Callable[[tf.Tensor], None] | None) -> Iterator[list[Any]]:
    """Collects the outputs of `layer`, and passes each to `watch` before later layers use it.

    Unlike a second keras.Model, this also reaches layers of nested models and layers that are called several times, and it keeps
    the layers before this one off the tape.
    """
    calls: list[Any] = []
    original = layer.__dict__.get("call")
    call = layer.call

    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        if watch is not None and isinstance(result, tf.Tensor):
            watch(result)
        calls.append(result)
        return result

    layer.__dict__["call"] = recorded
    try:
        yield calls
    finally:
        if original is None:
            del layer.__dict__["call"]
        else:
            layer.__dict__["call"] = original

"""The functions behind an export's signatures: predictions from files, predictions from images, explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from keras_skin.data.images.decode import image_shape
from keras_skin.data.images.load import decode_or_blank, preprocess_image, resize_image, segmented_image
from keras_skin.explain.grad_cam import FEATURES, GradCAM, feature_layers
from keras_skin.export.contract import EXPLAIN, IMAGE_BYTES, PREDICT_IMAGES, SERVING_DEFAULT

SERVED = ("label", "mask", "embedding")
_PARALLEL_UPLOADS = 4  # decoding and resizing an upload of 100 million pixels needs 1.5 GB

Tensors = dict[str, Any]  # tensors or their specifications, by name
Preprocessing = Sequence[Callable[[tf.Tensor], tf.Tensor]]


class Metadata(Protocol):
    """The interface of a fitted metadata encoder that the export uses."""

    @property
    def fields(self) -> Sequence[Any]:
        """The clinical fields. Each has a `name` and a `kind`: `"numeric"` with the training range `low` to `high`, or
        `"categorical"` with its known `values`."""

    @property
    def width(self) -> int:
        """Number of encoded columns."""

    def graph(self, fields: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Encodes one (B,) tensor per field, strings ("" is missing) or float32 (-1 is missing), as (B, width) float32."""


class Segmenter(NamedTuple):
    """The model that cuts the lesion out for the input `segmented_image`: it predicts a `mask` (logits) from images of
    `image_size` after `preprocessing`."""

    model: keras.Model
    image_size: tuple[int, int]
    preprocessing: Preprocessing = ()


@dataclass(eq=False)
class Endpoints:
    """The signatures of one model; `export_model` documents their inputs and outputs.

    Outputs that only training uses are dropped from the models, together with their weights. `predictor` predicts instead of
    `model`, which is then only explained.
    """

    model: keras.Model
    classes: Sequence[str]
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    metadata: Metadata | None
    segmenter: Segmenter | None
    predictor: keras.Model | None = None

    def __post_init__(self) -> None:
        self._predictor = _served(self.predictor or self.model)
        self.model = _served(self.model)
        if self.segmenter is not None:
            self.segmenter = self.segmenter._replace(model=_served(self.segmenter.model))

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of the models in a fixed order, each once."""
        models = [self.model, self._predictor, *([self.segmenter.model] if self.segmenter else [])]
        return list({id(variable): variable for model in models for variable in model.variables}.values())

    def all(self) -> list[tuple[str, Tensors, Callable[[Tensors], Tensors]]]:
        """The name, inputs and function of each signature."""
        upload = {IMAGE_BYTES: tf.TensorSpec((None,), tf.string, name=IMAGE_BYTES)}
        image = {"image": tf.TensorSpec((None, *self.image_size, 3), tf.float32, name="image")}
        if self.metadata is not None:
            kinds = {"numeric": tf.float32, "categorical": tf.string}
            upload |= {field.name: tf.TensorSpec((None,), kinds[field.kind], name=field.name) for field in self.metadata.fields}
            image["metadata"] = tf.TensorSpec((None, self.metadata.width), tf.float32, name="metadata")
        endpoints: list[tuple[str, Tensors, Callable[[Tensors], Tensors]]] = [
            (SERVING_DEFAULT, upload, self.serve),
            (PREDICT_IMAGES, image, self.predict_images),
        ]
        if self._features:
            endpoints.append((EXPLAIN, upload, self.explain))
        return endpoints

    def serve(self, inputs: Tensors) -> Tensors:
        """Predictions for whole files."""
        model_inputs, mask, sizes, valid = self._read(inputs)
        outputs = self._predict(model_inputs, mask)
        outputs = {key: _blank_where_invalid(value, valid) for key, value in outputs.items()}
        if "mask" in outputs:
            outputs["mask_png_bytes"] = tf.map_fn(
                lambda row: _mask_png(*row),
                (outputs["mask"], sizes, valid),
                fn_output_signature=tf.TensorSpec((), tf.string),
                parallel_iterations=_PARALLEL_UPLOADS,
            )
        return {**outputs, "valid": valid}

    def predict_images(self, inputs: Tensors) -> Tensors:
        """Predictions for decoded images."""
        for_segmenter = inputs["image"]
        if self.segmenter is not None and self.segmenter.image_size != self.image_size:
            for_segmenter = resize_image(for_segmenter, self.segmenter.image_size)
        return self._predict(*self._prepare(inputs["image"], for_segmenter, inputs.get("metadata")))

    def explain(self, inputs: Tensors) -> Tensors:
        """Features and Grad-CAM for whole files."""
        model_inputs, mask, _, valid = self._read(inputs)
        predictions = self._predict(model_inputs, mask)
        outputs: Tensors = {key: value for key, value in predictions.items() if key in ("label", "probabilities")}
        features = keras.Model(self.model.input, {name: self.model.get_layer(name).output for name in self._features})
        outputs |= features(model_inputs)
        explained = tf.fill(tf.shape(valid), -1)
        if "probabilities" in predictions:
            explained = tf.argmax(predictions["probabilities"], axis=-1, output_type=tf.int32)
        for name in self._features:
            cam = GradCAM(self.model, name, "label" if "label" in self.model.output else "mask")
            outputs[name.replace(FEATURES, "grad_cam")] = cam.compute(model_inputs, explained)
        outputs = {key: value if value.dtype == tf.string else tf.cast(value, tf.float32) for key, value in outputs.items()}
        return {**{key: _blank_where_invalid(value, valid) for key, value in outputs.items()}, "valid": valid}

    @property
    def _features(self) -> list[str]:
        """The feature layers that Grad-CAM explains."""
        layers = {layer.name for layer in self.model.layers}
        return [name for name in feature_layers(self.model) if name in layers and set(self.model.output) & {"label", "mask"}]

    def _read(self, inputs: Tensors) -> tuple[Tensors, tf.Tensor | None, tf.Tensor, tf.Tensor]:
        """The model's inputs, the segmenter's logits, the uploads' sizes (B, 2) and whether they are valid (B,)."""
        segmenter_size = self.segmenter.image_size if self.segmenter else self.image_size

        def read(contents: tf.Tensor) -> tuple[tf.Tensor, ...]:
            image, valid = decode_or_blank(contents, self.image_size)
            for_segmenter = image if segmenter_size == self.image_size else decode_or_blank(contents, segmenter_size)[0]
            size = tf.cond(valid, lambda: tf.cast(image_shape(contents), tf.int32), lambda: tf.zeros(2, tf.int32))
            return (
                tf.ensure_shape(image, (*self.image_size, 3)),
                tf.ensure_shape(for_segmenter, (*segmenter_size, 3)),
                size,
                valid,
            )

        specs = (
            *(tf.TensorSpec((*size, 3), tf.float32) for size in (self.image_size, segmenter_size)),
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((), tf.bool),
        )
        images, for_segmenter, sizes, valid = tf.map_fn(
            read, inputs[IMAGE_BYTES], fn_output_signature=specs, parallel_iterations=_PARALLEL_UPLOADS
        )
        encoded = None
        if self.metadata is not None:
            encoded = self.metadata.graph({field.name: inputs[field.name] for field in self.metadata.fields})
        return *self._prepare(images, for_segmenter, encoded), sizes, valid

    def _prepare(
        self, images: tf.Tensor, for_segmenter: tf.Tensor, metadata: tf.Tensor | None
    ) -> tuple[Tensors, tf.Tensor | None]:
        """The model's inputs from resized images, and the segmenter's logits."""
        inputs, mask = {"image": _preprocessed(images, self.preprocessing)}, None
        if self.segmenter is not None:
            segmenter_inputs = {"image": _preprocessed(for_segmenter, self.segmenter.preprocessing)}
            mask = tf.cast(self.segmenter.model(segmenter_inputs, training=False)["mask"], tf.float32)
            inputs["segmented_image"] = segmented_image(inputs["image"], tf.cast(mask > 0.0, tf.float32))
        if metadata is not None:
            inputs["metadata"] = metadata
        return {key: inputs[key] for key in self.model.input}, mask

    def _predict(self, inputs: Tensors, mask: tf.Tensor | None) -> Tensors:
        """Predictions from the model's logits, in float32; a segmenter's logits become the mask."""
        logits = {key: tf.cast(value, tf.float32) for key, value in self._predictor(inputs, training=False).items()}
        logits |= {} if mask is None else {"mask": mask}
        outputs = {}
        if "label" in logits:
            outputs["probabilities"] = tf.nn.softmax(logits["label"])
            outputs["label"] = tf.gather(tf.constant(list(self.classes)), tf.argmax(logits["label"], axis=-1))
        if "mask" in logits:
            outputs["mask"] = tf.sigmoid(logits["mask"])
        if "embedding" in logits:
            outputs["embedding"] = logits["embedding"]
        return outputs


def _served(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, {key: model.output[key] for key in SERVED if key in model.output})


def _preprocessed(images: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    if not preprocessing:  # rounding alone needs no loop over images
        return preprocess_image(images)
    return tf.map_fn(lambda image: preprocess_image(image, preprocessing), images)


def _blank_where_invalid(value: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Replaces invalid rows by zeros or empty strings."""
    return tf.where(tf.reshape(valid, [-1] + [1] * (value.shape.rank - 1)), value, tf.zeros_like(value))


def _mask_png(mask: tf.Tensor, size: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """PNG of the mask at the upload's size; probabilities are resized, then thresholded at 0.5."""

    def encoded() -> tf.Tensor:
        lesion = resize_image(mask, size) > 0.5
        return tf.io.encode_png(tf.cast(lesion, tf.uint8) * 255)

    return tf.cond(valid, encoded, lambda: tf.constant(""))

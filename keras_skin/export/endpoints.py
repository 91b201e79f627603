"""What an exported model computes: from whole files, from images, and its explanation; each a function for one signature."""

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
_PARALLEL_UPLOADS = 4  # an upload of 100 million pixels needs 1.5 GB while it is decoded and resized

Tensors = dict[str, Any]  # of tensors, or of their specifications
Preprocessing = Sequence[Callable[[tf.Tensor], tf.Tensor]]


class Metadata(Protocol):
    """What the export needs of a fitted metadata encoder."""

    @property
    def fields(self) -> Sequence[Any]:
        """Each has a `name` and a `kind`: `"numeric"`, with the `low` and `high` seen in training, or `"categorical"`, with its
        known `values`."""

    @property
    def width(self) -> int:
        """Number of columns."""

    def graph(self, fields: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """(B, width) float32 from one (B,) tensor per field: strings ("" is missing) or float32 (-1 is missing)."""


class Segmenter(NamedTuple):
    """What cuts the lesion out for a model with the input `segmented_image`: `model` makes a `mask` (logits) of images of
    `image_size` to which `preprocessing` was applied."""

    model: keras.Model
    image_size: tuple[int, int]
    preprocessing: Preprocessing = ()


@dataclass(frozen=True)
class Endpoints:
    """The signatures of one model; see `export_model` for what they take and return."""

    model: keras.Model
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    metadata: Metadata | None
    segmenter: Segmenter | None

    @classmethod
    def of(
        cls,
        model: keras.Model,
        classes: Sequence[str],
        image_size: tuple[int, int],
        preprocessing: Preprocessing,
        metadata: Metadata | None,
        segmenter: Segmenter | None,
    ) -> Endpoints:
        """Without the outputs that only training needs, and without the weights that make them."""
        if segmenter is not None:
            segmenter = segmenter._replace(model=_served(segmenter.model))
        return cls(_served(model), tuple(classes), image_size, preprocessing, metadata, segmenter)

    def all(self) -> list[tuple[str, Tensors, Callable[[Tensors], Tensors]]]:
        """Name, inputs and function of each signature."""
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
        seen, mask, sizes, valid = self._read(inputs)
        outputs = self._predict(seen, mask)
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
        seen, mask, _, valid = self._read(inputs)
        predicted = self._predict(seen, mask)
        outputs: Tensors = {key: value for key, value in predicted.items() if key in ("label", "probabilities")}
        outputs |= keras.Model(self.model.input, {name: self.model.get_layer(name).output for name in self._features})(seen)
        unspecified = tf.fill(tf.shape(valid), -1)
        for name in self._features:
            cam = GradCAM(self.model, name, "label" if "label" in self.model.output else "mask")
            outputs[name.replace(FEATURES, "grad_cam")] = cam.compute(seen, unspecified)
        outputs = {key: value if value.dtype == tf.string else tf.cast(value, tf.float32) for key, value in outputs.items()}
        return {**{key: _blank_where_invalid(value, valid) for key, value in outputs.items()}, "valid": valid}

    @property
    def _features(self) -> list[str]:
        """Feature layers that Grad-CAM is taken of."""
        here = {layer.name for layer in self.model.layers}
        return [name for name in feature_layers(self.model) if name in here and set(self.model.output) & {"label", "mask"}]

    def _read(self, inputs: Tensors) -> tuple[Tensors, tf.Tensor | None, tf.Tensor, tf.Tensor]:
        """What the model takes, the segmenter's logits, the uploads' sizes (B, 2) and whether they are valid (B,)."""
        other = self.segmenter.image_size if self.segmenter else self.image_size

        def read(contents: tf.Tensor) -> tuple[tf.Tensor, ...]:
            image, valid = decode_or_blank(contents, self.image_size)
            for_segmenter = image if other == self.image_size else decode_or_blank(contents, other)[0]
            size = tf.cond(valid, lambda: tf.cast(image_shape(contents), tf.int32), lambda: tf.zeros(2, tf.int32))
            return (
                tf.ensure_shape(image, (*self.image_size, 3)),
                tf.ensure_shape(for_segmenter, (*other, 3)),
                size,
                valid,
            )

        specs = (
            *(tf.TensorSpec((*size, 3), tf.float32) for size in (self.image_size, other)),
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
        """What the model takes of images that were only resized, and the segmenter's logits."""
        seen, mask = {"image": _preprocessed(images, self.preprocessing)}, None
        if self.segmenter is not None:
            given = {"image": _preprocessed(for_segmenter, self.segmenter.preprocessing)}
            mask = tf.cast(self.segmenter.model(given, training=False)["mask"], tf.float32)
            seen["segmented_image"] = segmented_image(seen["image"], tf.cast(mask > 0.0, tf.float32))
        if metadata is not None:
            seen["metadata"] = metadata
        return {key: seen[key] for key in self.model.input}, mask

    def _predict(self, seen: Tensors, mask: tf.Tensor | None) -> Tensors:
        """Probabilities and class names from the model's logits, in float32; of a chain also the segmenter's mask."""
        logits = {key: tf.cast(value, tf.float32) for key, value in self.model(seen, training=False).items()}
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
    if not preprocessing:  # a loop over images would only slow the rounding down
        return preprocess_image(images)
    return tf.map_fn(lambda image: preprocess_image(image, preprocessing), images)


def _blank_where_invalid(value: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Zeros (or empty strings) in the rows that are not valid."""
    return tf.where(tf.reshape(valid, [-1] + [1] * (value.shape.rank - 1)), value, tf.zeros_like(value))


def _mask_png(mask: tf.Tensor, size: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """PNG of the mask at the upload's size: probabilities are enlarged, then cut at 0.5."""

    def encoded() -> tf.Tensor:
        lesion = resize_image(mask, size) > 0.5
        return tf.io.encode_png(tf.cast(lesion, tf.uint8) * 255)

    return tf.cond(valid, encoded, lambda: tf.constant(""))

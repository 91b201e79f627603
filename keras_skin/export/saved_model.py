"""Export to TensorFlow Serving: one SavedModel, from the bytes of an upload to class names and a mask of the upload's size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

import keras_skin
from keras_skin.data.images import decode_or_blank, image_shape, resize_image
from keras_skin.registry import UserError, atomic_path


class Metadata(Protocol):
    """What the export needs of a fitted metadata encoder."""

    @property
    def fields(self) -> Sequence[Any]:
        """Each has a `name` and a `kind`, `"numeric"` or `"categorical"`."""

    @property
    def width(self) -> int:
        """Number of columns."""

    def graph(self, fields: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """(B, width) float32 from one (B,) tensor per field: strings ("" is missing) or float32 (-1 is missing)."""


SERVED = ("label", "mask", "embedding")
_PARALLEL_UPLOADS = 4  # an upload of 100 million pixels needs 1.5 GB while it is decoded and resized


def export_model(
    model: keras.Model,
    folder: str | Path,
    *,
    classes: Sequence[str],
    image_size: tuple[int, int],
    name: str,
    preprocessing: Sequence[Callable[[tf.Tensor], tf.Tensor]] = (),
    metadata: Metadata | None = None,
    synthetic: bool = False,
    extra: Mapping[str, Any] | None = None,
    version: int | None = None,
) -> Path:
    """Writes `folder/<version>/` with the serving contract that all models share.

    `serving_default` takes `image_bytes` (B,) string: whole JPEG, PNG or BMP files. `predict_images` takes `image` (B, H, W, 3)
    float32 RGB in 0..255 at the model's size. A model with metadata takes one more input per field, (B,): strings with "" for
    what is not known, numbers with -1; `predict_images` takes them encoded, `metadata` (B, M) float32.

    Both return, as far as the model has them, `label` (B,) string (class name), `probabilities` (B, K) float32, `mask`
    (B, H, W, 1) float32 probabilities at the model's size and `embedding` (B, D) float32; `serving_default` adds `mask_png` (B,)
    string, a PNG of the mask (0 and 255) at the upright upload's size, and `valid` (B,) bool. An upload that cannot be decoded
    has `valid` false, zeros and empty strings, and leaves the rest of its batch alone. Damage that no decoder notices is not
    noticed here either: bytes changed inside the compressed pixels of a JPEG, or the pixels of a BMP, give a valid but spoilt
    image.

    What training only needs (`mask_aux_1`, `super_resolution`, ...) is left out. Class names, input size and signatures lie in
    `assets/labels.txt` and `assets/model.json`. The folder gets its name when it is complete.

    Args:
        model: functional model with the contract's input `image` and outputs of float32 logits. A model trained in mixed
            precision keeps it; give a float32 model with the same weights for exact agreement.
        folder: where versions are kept; created if need be.
        classes: class names in the order of the label output.
        image_size: (height, width) of the model's input.
        name: the model's name, kept in `model.json`.
        preprocessing: functions of one image (H, W, 3) float32 in 0..255 at the model's size, applied in this order in both
            signatures.
        metadata: the fitted encoder of a model with the input `metadata`.
        synthetic: whether the model was trained on drawn images; `model.json` then says SYNTHETIC.
        extra: more entries for `model.json`, JSON values only.
        version: number of the version; by default the next that is free, from 1.

    Returns:
        The version's folder.

    Raises:
        UserError: if the model has other inputs than `image` and, with an encoder of that width, `metadata`, nothing to serve, or
            another number of classes, or if the version exists.
    """
    _check(model, classes, image_size, metadata)
    json.dumps(extra)  # found now rather than after minutes of tracing
    folder = Path(folder)
    target = folder / str(_next_version(folder) if version is None else version)
    if target.exists():
        raise UserError(f"{target} exists already; exports are never overwritten.")
    model = keras.Model(model.input, {key: model.output[key] for key in SERVED if key in model.output})
    archive = keras.export.ExportArchive()  # finds the variables its endpoints use; track(model) would write them a second time
    upload = {"image_bytes": tf.TensorSpec((None,), tf.string, name="image_bytes")}
    image = {"image": tf.TensorSpec((None, *image_size, 3), tf.float32, name="image")}
    if metadata is not None:
        kinds = {"numeric": tf.float32, "categorical": tf.string}
        upload |= {field.name: tf.TensorSpec((None,), kinds[field.kind], name=field.name) for field in metadata.fields}
        image["metadata"] = tf.TensorSpec((None, metadata.width), tf.float32, name="metadata")
    signatures = {}
    for endpoint, specs, function in (
        ("serving_default", upload, _bytes_endpoint(model, classes, image_size, preprocessing, metadata)),
        ("predict_images", image, _images_endpoint(model, classes, preprocessing)),
    ):
        graph = archive.add_endpoint(endpoint, function, input_signature=[specs])
        outputs = graph.get_concrete_function().structured_outputs
        signatures[endpoint] = {
            "inputs": {key: _describe(spec) for key, spec in specs.items()},
            "outputs": {key: _describe(outputs[key]) for key in sorted(outputs)},
        }
    about = {
        **(extra or {}),
        "name": name,
        "classes": list(classes),
        "image_size": list(image_size),
        "preprocessing": [getattr(step, "__name__", type(step).__name__) for step in preprocessing],
        "synthetic": synthetic,
        "training_images": "SYNTHETIC: drawn by a program" if synthetic else "real",
        "keras_skin": keras_skin.__version__,
        "tensorflow": tf.__version__,
        "signatures": signatures,
    }
    with atomic_path(target) as temporary:
        archive.write_out(str(temporary), verbose=False)
        assets = temporary / "assets"
        assets.mkdir(exist_ok=True)
        (assets / "labels.txt").write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")
        (assets / "model.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def _bytes_endpoint(
    model: keras.Model,
    classes: Sequence[str],
    image_size: tuple[int, int],
    preprocessing: Sequence[Callable],
    metadata: Metadata | None,
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    def read(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, valid = decode_or_blank(contents, image_size)
        size = tf.cond(valid, lambda: tf.cast(image_shape(contents), tf.int32), lambda: tf.zeros(2, tf.int32))
        return tf.ensure_shape(image, (*image_size, 3)), size, valid

    def serve(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        specs = (tf.TensorSpec((*image_size, 3), tf.float32), tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.bool))
        images, sizes, valid = tf.map_fn(
            read, inputs["image_bytes"], fn_output_signature=specs, parallel_iterations=_PARALLEL_UPLOADS
        )
        seen = {"image": _preprocessed(images, preprocessing)}
        if metadata is not None:
            seen["metadata"] = metadata.graph({field.name: inputs[field.name] for field in metadata.fields})
        outputs = _served_outputs(model, seen, classes)
        outputs = {key: _blank_where_invalid(value, valid) for key, value in outputs.items()}
        if "mask" in outputs:
            outputs["mask_png"] = tf.map_fn(
                lambda row: _mask_png(*row),
                (outputs["mask"], sizes, valid),
                fn_output_signature=tf.TensorSpec((), tf.string),
                parallel_iterations=_PARALLEL_UPLOADS,
            )
        return {**outputs, "valid": valid}

    return serve


def _images_endpoint(
    model: keras.Model, classes: Sequence[str], preprocessing: Sequence[Callable]
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    def predict_images(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return _served_outputs(model, {**inputs, "image": _preprocessed(inputs["image"], preprocessing)}, classes)

    return predict_images


def _preprocessed(images: tf.Tensor, preprocessing: Sequence[Callable]) -> tf.Tensor:
    if not preprocessing:
        return images

    def apply(image: tf.Tensor) -> tf.Tensor:
        for step in preprocessing:
            image = step(image)
        return tf.ensure_shape(tf.cast(image, tf.float32), images.shape[1:])

    return tf.map_fn(apply, images)


def _served_outputs(model: keras.Model, inputs: dict[str, tf.Tensor], classes: Sequence[str]) -> dict[str, tf.Tensor]:
    """Probabilities and class names from the model's logits, in float32."""
    predicted = model(inputs, training=False)
    logits = {key: tf.cast(value, tf.float32) for key, value in predicted.items()}
    outputs = {}
    if "label" in logits:
        outputs["probabilities"] = tf.nn.softmax(logits["label"])
        outputs["label"] = tf.gather(tf.constant(list(classes)), tf.argmax(logits["label"], axis=-1))
    if "mask" in logits:
        outputs["mask"] = tf.sigmoid(logits["mask"])
    if "embedding" in logits:
        outputs["embedding"] = logits["embedding"]
    return outputs


def _blank_where_invalid(value: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Zeros (or empty strings) in the rows that are not valid."""
    return tf.where(tf.reshape(valid, [-1] + [1] * (value.shape.rank - 1)), value, tf.zeros_like(value))


def _mask_png(mask: tf.Tensor, size: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """PNG of the mask at the upload's size: probabilities are enlarged, then cut at 0.5."""

    def encoded() -> tf.Tensor:
        lesion = resize_image(mask, size) > 0.5
        return tf.io.encode_png(tf.cast(lesion, tf.uint8) * 255)

    return tf.cond(valid, encoded, lambda: tf.constant(""))


def _check(model: keras.Model, classes: Sequence[str], image_size: tuple[int, int], metadata: Metadata | None) -> None:
    mistakes = []
    inputs = model.input if isinstance(model.input, Mapping) else {}
    outputs = model.output if isinstance(model.output, Mapping) else {}
    expected = ["image"] if metadata is None else ["image", "metadata"]
    if sorted(inputs) != expected:
        wanted = "just 'image'" if metadata is None else "'image' and 'metadata'"
        mistakes.append(f"its inputs must be a dict with {wanted}, got {sorted(inputs) or model.input}")
    elif metadata is not None and inputs["metadata"].shape[1] != metadata.width:
        mistakes.append(f"its input 'metadata' is {inputs['metadata'].shape[1]} wide, but the encoder {metadata.width}")
    elif tuple(inputs["image"].shape[1:]) not in {(*image_size, 3), (None, None, 3)}:
        mistakes.append(f"its input 'image' has shape {inputs['image'].shape}, expected {(None, *image_size, 3)}")
    if not set(outputs) & set(SERVED):
        mistakes.append(f"it has none of the outputs {', '.join(SERVED)}")
    if "label" in outputs and outputs["label"].shape[-1] != len(classes):
        mistakes.append(f"its output 'label' has {outputs['label'].shape[-1]} classes, but {len(classes)} names were given")
    if mistakes:
        raise UserError(f"Model '{model.name}' cannot be exported: {'; '.join(mistakes)}.")


def _next_version(folder: Path) -> int:
    taken = [int(path.name) for path in folder.glob("*") if path.name.isdigit()] if folder.is_dir() else []
    return max(taken, default=0) + 1


def _describe(spec: Any) -> dict[str, Any]:
    return {"shape": list(spec.shape), "dtype": spec.dtype.name}

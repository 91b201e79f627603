"""Export to TensorFlow Serving: one SavedModel, from the bytes of an upload to class names and a mask of the upload's size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import keras_skin
from keras_skin.export.endpoints import SERVED, Endpoints, Metadata, Segmenter
from keras_skin.registry import UserError, atomic_path


def export_model(
    model: keras.Model,
    folder: str | Path,
    *,
    classes: Sequence[str],
    image_size: tuple[int, int],
    name: str,
    preprocessing: Sequence[Callable[[tf.Tensor], tf.Tensor]] = (),
    metadata: Metadata | None = None,
    segmenter: Segmenter | None = None,
    synthetic: bool = False,
    extra: Mapping[str, Any] | None = None,
    version: int | None = None,
) -> Path:
    """Writes `folder/<version>/` with the serving contract that all models share.

    `serving_default` takes `image_bytes` (B,) string: whole JPEG, PNG or BMP files. `predict_images` takes `image` (B, H, W, 3)
    float32 RGB in 0..255 at the model's size. A model with metadata takes one more input per field, (B,): strings with "" for
    what is not known, numbers with -1; `predict_images` takes them encoded, `metadata` (B, M) float32.

    Both return, as far as the model has them, `label` (B,) string (class name), `probabilities` (B, K) float32, `mask`
    (B, H, W, 1) float32 probabilities at the model's size and `embedding` (B, D) float32; `serving_default` adds
    `mask_png_bytes` (B,) string, a PNG of the mask (0 and 255) at the upright upload's size (the ending `_bytes` has TensorFlow
    Serving's REST interface send it as base64), and `valid` (B,) bool. An upload that cannot be decoded has `valid` false, zeros
    and empty strings, and leaves the rest of its batch alone. Damage that no decoder notices is not noticed here either: bytes
    changed inside the compressed pixels of a JPEG, or the pixels of a BMP, give a valid but spoilt image.

    `explain` takes what `serving_default` takes. It returns `label`, `probabilities`, `valid`, and for every feature layer of the
    model (`cam_features`, and of a second branch `cam_features_segmented`) its features (B, h, w, C) float32 and, as
    `grad_cam` and `grad_cam_segmented`, (B, h, w) float32, the Grad-CAM of the predicted class (of the predicted lesion where the
    model makes masks only), not normalised: all zero is no positive evidence.

    A model with the input `segmented_image` is exported with the segmenter that makes it; `mask` is then the segmenter's, at the
    segmenter's size. `predict_images` gives the segmenter the same image, resized; where the sizes differ, this is not quite
    what `serving_default` does, which resizes the upload itself to both sizes.

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
        segmenter: what cuts the lesion out for a model with the input `segmented_image`.
        synthetic: whether the model was trained on drawn images; `model.json` then says SYNTHETIC.
        extra: more entries for `model.json`, JSON values only.
        version: number of the version; by default the next that is free, from 1.

    Returns:
        The version's folder.

    Raises:
        UserError: if the model has other inputs than `image` and, with an encoder of that width, `metadata`, and with a segmenter
            `segmented_image`, nothing to serve, or another number of classes, or if the version exists.
    """
    _check(model, classes, image_size, metadata, segmenter)
    json.dumps(extra)  # found now rather than after minutes of tracing
    folder = Path(folder)
    target = folder / str(_next_version(folder) if version is None else version)
    if target.exists():
        raise UserError(f"{target} exists already; exports are never overwritten.")
    endpoints = Endpoints.of(model, classes, image_size, preprocessing, metadata, segmenter)
    archive = keras.export.ExportArchive()  # finds the variables its endpoints use; track(model) would write them a second time
    signatures = {}
    for endpoint, specs, function in endpoints.all():
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


def _check(
    model: keras.Model,
    classes: Sequence[str],
    image_size: tuple[int, int],
    metadata: Metadata | None,
    segmenter: Segmenter | None,
) -> None:
    mistakes = []
    inputs = model.input if isinstance(model.input, Mapping) else {}
    outputs = model.output if isinstance(model.output, Mapping) else {}
    expected = {"image"} | ({"metadata"} if metadata is not None else set())
    expected |= {"segmented_image"} if segmenter else set()
    pictures = [name for name in ("image", "segmented_image") if name in inputs]
    optional = {"image"} if segmenter else set()  # the lesion alone is enough
    if set(inputs) not in (expected, expected - optional):
        wanted = ("just " if len(expected) == 1 else "") + " and ".join(f"'{name}'" for name in sorted(expected))
        mistakes.append(f"its inputs must be a dict with {wanted}, got {sorted(inputs) or model.input}")
    elif metadata is not None and inputs["metadata"].shape[1] != metadata.width:
        mistakes.append(f"its input 'metadata' is {inputs['metadata'].shape[1]} wide, but the encoder {metadata.width}")
    for name in pictures:
        if tuple(inputs[name].shape[1:]) not in {(*image_size, 3), (None, None, 3)}:
            mistakes.append(f"its input '{name}' has shape {inputs[name].shape}, expected {(None, *image_size, 3)}")
    if segmenter is not None and (set(segmenter.model.input) != {"image"} or "mask" not in segmenter.model.output):
        mistakes.append("its segmenter must make a 'mask' of an 'image' alone")
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

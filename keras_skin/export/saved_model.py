"""Export to TensorFlow Serving: one SavedModel, from the bytes of an upload to class names and a mask of the upload's size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_skin.export.about import describe, specs, write_about
from keras_skin.export.contract import CONTRACT, breaking_changes
from keras_skin.export.endpoints import SERVED, Endpoints, Metadata, Segmenter
from keras_skin.export.examples import write_examples
from keras_skin.export.plain import write_images, write_litert
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
    edition: str = "float32",
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

    What training only needs (`mask_aux_1`, `super_resolution`, ...) is left out. Class names, clinical vocabulary, input size and
    signatures lie in `assets/labels.txt` and `assets/model.json`, and for people in `model_card.md`; requests to copy, and where
    tensorflow-serving-api is installed warm-up requests, in `assets.extra/`. The folder gets its name when it is complete.

    A later version must understand what clients of the version before it send, and say no less: signatures may be added, not
    changed. `CONTRACT` numbers what this text says.

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
        extra: more entries for `model.json` and the model card, see `describe`; JSON values only.
        version: number of the version; by default the next that is free, from 1.
        edition: one of `EDITIONS`. `"bfloat16"` differs by the model given, one under a mixed policy; `"images"` and `"litert"`
            have `predict_images` alone, without class names.

    Returns:
        The version's folder.

    Raises:
        UserError: if the model has other inputs than `image` and, with an encoder of that width, `metadata`, and with a segmenter
            `segmented_image`, nothing to serve, or another number of classes, if the version exists, if clients of the version
            before would not understand this one, or if LiteRT cannot do what the model does.
    """
    _check(model, classes, image_size, metadata, segmenter)
    json.dumps(extra)  # found now rather than after minutes of tracing
    endpoints = Endpoints.of(model, classes, image_size, preprocessing, metadata, segmenter)
    folder = Path(folder)
    earlier = _versions(folder)
    target = folder / str(max(earlier, default=0) + 1 if version is None else version)
    if target.exists():
        raise UserError(f"{target} exists already; exports are never overwritten.")
    with atomic_path(target) as temporary:
        signatures = WRITERS[edition](endpoints, temporary)
        about = describe(endpoints, signatures, name=name, edition=edition, synthetic=synthetic, extra=extra)
        _refuse_breaking(folder, earlier, about)
        warm_up = edition in SERVED_EDITIONS and write_examples(temporary, about)
        write_about(temporary, about, warm_up=warm_up)
    return target


def write_served(endpoints: Endpoints, folder: Path) -> dict[str, Any]:
    """Writes the SavedModel with all signatures.

    Returns:
        The signatures, described as in `model.json`.
    """
    archive = keras.export.ExportArchive()  # finds the variables its endpoints use; track(model) would write them a second time
    signatures = {}
    for name, inputs, function in endpoints.all():
        graph = archive.add_endpoint(name, function, input_signature=[inputs])
        outputs = graph.get_concrete_function().structured_outputs
        signatures[name] = {"inputs": specs(inputs), "outputs": specs({key: outputs[key] for key in sorted(outputs)})}
    archive.write_out(str(folder), verbose=False)
    return signatures


SERVED_EDITIONS = ("float32", "bfloat16")
WRITERS = {"float32": write_served, "bfloat16": write_served, "litert": write_litert, "images": write_images}


def _refuse_breaking(folder: Path, earlier: Sequence[int], about: Mapping[str, Any]) -> None:
    """A server puts a later version in the place of the earlier one; only another contract may surprise its clients."""
    told = folder / str(max(earlier, default=0)) / "assets" / "model.json"
    before = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    if before.get("contract") != CONTRACT:
        return
    changes = breaking_changes(before, about)
    if changes:
        raise UserError(
            f"'{folder}' holds version {max(earlier)}. A server would put this export in its place, and clients would not "
            f"understand it: {'; '.join(changes)}. Export it into another folder, to be served under another name."
        )


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


def _versions(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.glob("*") if path.name.isdigit()] if folder.is_dir() else []

"""Export to TensorFlow Serving: one SavedModel that takes uploaded files and returns class names and masks of their size."""

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
from keras_skin.export.plain import write_archive, write_images, write_litert
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
    predictor: keras.Model | None = None,
) -> Path:
    """Exports a model to `folder/<version>/`, with the serving contract that all models share.

    `serving_default` takes `image_bytes` (B,) string: whole JPEG, PNG or BMP files. `predict_images` takes `image` (B, H, W, 3)
    float32 RGB in 0..255 at the model's size. A model with metadata takes one more input per field, (B,): strings and
    numbers, with "" and -1 for unknown; `predict_images` takes them encoded, `metadata` (B, M) float32.

    Both return, as far as the model has them, `label` (B,) string (class name), `probabilities` (B, K) float32, `mask`
    (B, H, W, 1) float32 probabilities at the model's size and `embedding` (B, D) float32; `serving_default` adds
    `mask_png_bytes` (B,) string, a PNG of the mask (0 and 255) at the upright upload's size (TensorFlow Serving's REST interface
    sends names ending in `_bytes` as base64), and `valid` (B,) bool. An upload that cannot be decoded gets `valid` false, zeros
    and empty strings; the rest of its batch is unaffected. Damage that decoders do not detect is not detected here either:
    changed bytes in the compressed pixels of a JPEG or the pixels of a BMP give a valid but damaged image.

    `explain` takes the inputs of `serving_default`. It returns `label`, `probabilities`, `valid`, and for every feature layer
    (`cam_features`, in a second branch `cam_features_segmented`) its features (B, h, w, C) float32 and, as `grad_cam` and
    `grad_cam_segmented`, (B, h, w) float32, the Grad-CAM of the predicted class (of the predicted lesion if the model only
    predicts masks). The maps are not normalised; all zero means no positive evidence.

    A model with the input `segmented_image` is exported together with its segmenter; `mask` is then the segmenter's, at the
    segmenter's size. `predict_images` resizes the given image for the segmenter, while `serving_default` resizes the upload to
    both sizes, so that the two differ slightly where the sizes differ.

    Outputs that only training uses (`mask_aux_1`, `super_resolution`, ...) are left out. `assets/labels.txt` and
    `assets/model.json` hold the class names, clinical vocabulary, input size and signatures, `model_card.md` describes them for
    people. `assets.extra/` holds example requests and, if tensorflow-serving-api is installed, warm-up requests. The folder gets
    its name when it is complete.

    A later version must accept the requests of the earlier version's clients and return all of its outputs: signatures may be
    added, not changed. `CONTRACT` numbers the contract that this text describes.

    Args:
        model: functional model with the input `image` and float32 logits as outputs. A mixed-precision model stays one; for exact
            agreement, pass a float32 model with the same weights.
        folder: the folder of all versions; created if missing.
        classes: class names in the order of the label output.
        image_size: (height, width) of the model's input.
        name: the model's name, kept in `model.json`.
        preprocessing: functions of one image (H, W, 3) float32 in 0..255 at the model's size, applied in this order in all
            signatures.
        metadata: the fitted encoder of a model with the input `metadata`.
        segmenter: the model that cuts the lesion out, for a model with the input `segmented_image`.
        synthetic: whether the model was trained on synthetic images, which `model.json` records.
        extra: more entries for `model.json` and the model card, see `describe`; JSON values only.
        version: version number; the next free one by default, starting at 1.
        edition: one of `EDITIONS`. For `"bfloat16"`, pass a model with a mixed policy. `"images"` and `"litert"` only have
            `predict_images`, without class names.
        predictor: model of the same inputs that predicts instead of `model`, for example one that averages mirror images; `model`
            is then only explained. None is `model`.

    Returns:
        The version's folder.

    Raises:
        UserError: if the model's inputs or classes do not fit the arguments, if it has no output to serve, if the version exists,
            if this version would break clients of the earlier one, or if LiteRT lacks an operation of the model.
    """
    _check(model, classes, image_size, metadata, segmenter)
    json.dumps(extra)  # fails now rather than after minutes of tracing
    endpoints = Endpoints(model, classes, image_size, preprocessing, metadata, segmenter, predictor)
    folder = Path(folder)
    earlier = _versions(folder)
    target = folder / str(max(earlier, default=0) + 1 if version is None else version)
    if target.exists():
        raise UserError(f"{target} already exists, and exports are never overwritten. Choose another version or folder.")
    with atomic_path(target) as temporary:
        signatures = WRITERS[edition](endpoints, temporary)
        about = describe(endpoints, signatures, name=name, edition=edition, synthetic=synthetic, extra=extra)
        _refuse_breaking(folder, earlier, about)
        warm_up = edition in SERVED_EDITIONS and write_examples(temporary, about)
        write_about(temporary, about, warm_up=warm_up)
    return target


def write_served(endpoints: Endpoints, folder: Path) -> dict[str, Any]:
    """Writes the SavedModel with all signatures and returns them as `model.json` describes them."""
    archive = keras.export.ExportArchive()  # tracks its endpoints' variables; track(model) would write them twice
    signatures = {}
    for name, inputs, function in endpoints.all():
        graph = archive.add_endpoint(name, function, input_signature=[inputs])
        outputs = graph.get_concrete_function().structured_outputs
        signatures[name] = {"inputs": specs(inputs), "outputs": specs({key: outputs[key] for key in sorted(outputs)})}
    write_archive(archive, folder, endpoints.variables)
    return signatures


SERVED_EDITIONS = ("float32", "bfloat16")
WRITERS = {"float32": write_served, "bfloat16": write_served, "litert": write_litert, "images": write_images}


def _refuse_breaking(folder: Path, earlier: Sequence[int], about: Mapping[str, Any]) -> None:
    """Refuses a version that breaks clients of the earlier one, which a server replaces by it, unless the contract differs."""
    about_file = folder / str(max(earlier, default=0)) / "assets" / "model.json"
    before = json.loads(about_file.read_text(encoding="utf-8")) if about_file.is_file() else {}
    if before.get("contract") != CONTRACT:
        return
    changes = breaking_changes(before, about)
    if changes:
        raise UserError(
            f"'{folder}' holds version {max(earlier)}. A server would replace it by this export, which would break its "
            f"clients: {'; '.join(changes)}. Export it into another folder, to be served under another name."
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
    optional = {"image"} if segmenter else set()  # some models see the cut-out lesion alone
    if set(inputs) not in (expected, expected - optional):
        names = ("just " if len(expected) == 1 else "") + " and ".join(f"'{name}'" for name in sorted(expected))
        mistakes.append(f"its inputs must be a dict with {names}, got {sorted(inputs) or model.input}")
    elif metadata is not None and inputs["metadata"].shape[1] != metadata.width:
        mistakes.append(f"its input 'metadata' has {inputs['metadata'].shape[1]} columns, but the encoder makes {metadata.width}")
    for name in pictures:
        if tuple(inputs[name].shape[1:]) not in {(*image_size, 3), (None, None, 3)}:
            mistakes.append(f"its input '{name}' has shape {inputs[name].shape}, expected {(None, *image_size, 3)}")
    if segmenter is not None and (set(segmenter.model.input) != {"image"} or "mask" not in segmenter.model.output):
        mistakes.append("its segmenter must predict a 'mask' from an 'image' alone")
    if not set(outputs) & set(SERVED):
        mistakes.append(f"it has none of the outputs {', '.join(SERVED)}")
    if "label" in outputs and outputs["label"].shape[-1] != len(classes):
        mistakes.append(f"its output 'label' has {outputs['label'].shape[-1]} classes, but {len(classes)} names were given")
    if mistakes:
        raise UserError(f"Model '{model.name}' cannot be exported: {'; '.join(mistakes)}.")


def _versions(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.glob("*") if path.name.isdigit()] if folder.is_dir() else []

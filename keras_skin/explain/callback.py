"""Writes explanations of a few fixed validation images when a fit ends, or whenever it is asked to."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_skin.explain.grad_cam import NO_EVIDENCE, GradCAM, normalise
from keras_skin.explain.overlay import contact_sheet, overlay, write_png
from keras_skin.registry import UserError, atomic_path, did_you_mean

_LEGEND = "green: true mask   magenta: predicted mask   red to white: evidence, each map divided by its own maximum"


class ExplainSample(NamedTuple):
    """One image to explain.

    `inputs` is what the model takes, without the batch axis; `label` the index of the true class; `mask` the true mask (h, w)
    of any size; `image` the picture to draw on, RGB 0..255 of any size, by default `inputs["image"]`.
    """

    image_id: str
    inputs: Mapping[str, np.ndarray]
    label: int | None = None
    mask: np.ndarray | None = None
    image: np.ndarray | None = None


class Sheet(NamedTuple):
    """A contact sheet on disk and the sentence that belongs below it."""

    path: Path
    caption: str


class GradCAMCallback(keras.callbacks.Callback):
    """Grad-CAM of the predicted class, and of any class asked for, on fixed images.

    Writes `FOLDER/<image_id>/grad_cam_<class>.png` (overlay with the contours of both masks) and `.npy` (raw map, float32, at
    the layer's own resolution), and the contact sheets `FOLDER/sheet.png` (predicted class) and `FOLDER/sheet_<class>.png`. A
    model without label output is explained by the mean logit of its predicted lesion, in `grad_cam_mask.*`.

    Given to `fit`, it checks layer and outputs when training begins and writes when it ends; it must then stand behind the
    callback that loads the best weights back. Where the weights are restored after `fit`, call `explain(model)` instead: a
    second call replaces what the first wrote.

    Args:
        samples: images to explain, as `ExplainSample` or as mappings with its fields.
        folder: where the files go.
        classes: class names, in the order of the label output.
        explain_classes: names of classes to explain besides the predicted one.
        layer: feature layer, see `GradCAM`.
        synthetic: whether the pictures say SYNTHETIC.
        batch_size: images per step.

    Raises:
        UserError: if a class to explain is unknown.

    Example:

    ```python
    chosen = stratified_sample(labels, 12, seed=0)
    samples = [ExplainSample(ids[i], {"image": images[i]}, labels[i]) for i in chosen]
    model.fit(data, callbacks=[GradCAMCallback(samples, "explain", ["benign", "malignant"])])
    ```
    """

    def __init__(
        self,
        samples: Iterable[ExplainSample | Mapping[str, Any]],
        folder: str | Path,
        classes: Sequence[str],
        *,
        explain_classes: Sequence[str] = (),
        layer: str = "cam_features",
        synthetic: bool = False,
        batch_size: int = 8,
    ) -> None:
        super().__init__()
        self.samples = [sample if isinstance(sample, ExplainSample) else ExplainSample(**sample) for sample in samples]
        self.folder = Path(folder)
        self.classes = tuple(classes)
        unknown = [name for name in explain_classes if name not in self.classes]
        if unknown:
            raise UserError(
                f"Cannot explain class {', '.join(map(repr, unknown))}.{did_you_mean(unknown[0], self.classes)} "
                f"Classes: {', '.join(self.classes)}."
            )
        self.explain_classes = tuple(dict.fromkeys(explain_classes))
        self.layer = layer
        self.synthetic = synthetic
        self.batch_size = batch_size
        self.sheets: list[Sheet] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.samples:
            self._grad_cam(self.model).check()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.sheets = self.explain(self.model)

    def explain(self, model: keras.Model) -> list[Sheet]:
        """Explains every sample with the model's present weights and writes all files.

        Returns:
            The contact sheets, that of the predicted class first; empty if there are no samples.
        """
        if not self.samples:
            return []
        cam = self._grad_cam(model)
        asked = [None, *map(self.classes.index, self.explain_classes)] if cam.output == "label" else [None]
        names = _folder_names([sample.image_id for sample in self.samples])
        tiles: dict[int | None, list[np.ndarray]] = {index: [] for index in asked}
        for start in range(0, len(self.samples), self.batch_size):
            batch = self.samples[start : start + self.batch_size]
            inputs = {key: np.stack([sample.inputs[key] for sample in batch]) for key in batch[0].inputs}
            predictions = _predict(model, inputs)
            maps = {index: cam(inputs, index) for index in asked}
            for i, sample in enumerate(batch):
                prediction = {key: value[i] for key, value in predictions.items()}
                drawn = {index: maps[index][i] for index in asked}
                for index, tile in self._write_sample(sample, self.folder / names[start + i], prediction, drawn).items():
                    tiles[index].append(tile)
        return [self._write_sheet(cam, index, tiles[index]) for index in asked]

    def _grad_cam(self, model: keras.Model) -> GradCAM:
        has_label = not isinstance(model.output, Mapping) or "label" in model.output
        return GradCAM(model, self.layer, "label" if has_label else "mask")

    def _write_sample(
        self, sample: ExplainSample, folder: Path, prediction: dict[str, np.ndarray], maps: dict[int | None, np.ndarray]
    ) -> dict[int | None, np.ndarray]:
        image = sample.inputs["image"] if sample.image is None else sample.image
        tiles, written = {}, set()
        for index, raw in maps.items():
            heat, has_evidence = normalise(raw[None])
            tiles[index] = overlay(
                image,
                heat[0] if has_evidence[0] else None,
                true_mask=sample.mask,
                predicted_mask=prediction.get("mask"),
                caption=self._caption(sample, prediction, index),
                remark="" if has_evidence[0] else NO_EVIDENCE,
                synthetic=self.synthetic,
            )
            stem = f"grad_cam_{self._map_name(prediction, index)}"
            _write(folder / f"{stem}.png", write_png(tiles[index]))
            _write(folder / f"{stem}.npy", _npy(raw))
            written |= {f"{stem}.png", f"{stem}.npy"}
        for old in folder.glob("grad_cam_*"):  # the predicted class may have been another one before
            if old.name not in written:
                old.unlink()
        return tiles

    def _map_name(self, prediction: dict[str, np.ndarray], index: int | None) -> str:
        if "label" not in prediction:
            return "mask"
        return _file_name(self.classes[int(np.argmax(prediction["label"])) if index is None else index])

    def _caption(self, sample: ExplainSample, prediction: dict[str, np.ndarray], index: int | None) -> list[str]:
        truth = "unknown" if sample.label is None else self.classes[int(sample.label)]
        lines = [str(sample.image_id)]
        if "label" not in prediction:
            share = float(np.mean(prediction["mask"] > 0.5))
            return [*lines, f"predicted lesion: {share:.0%} of the picture"]
        probabilities = prediction["label"]
        predicted = int(np.argmax(probabilities))
        lines += [f"truth: {truth}", f"predicted: {self.classes[predicted]}, p = {probabilities[predicted]:.2f}"]
        if index is not None:
            lines.append(f"map for: {self.classes[index]}, p = {probabilities[index]:.2f}")
        return lines

    def _write_sheet(self, cam: GradCAM, index: int | None, tiles: list[np.ndarray]) -> Sheet:
        if cam.output == "mask":
            subject, path = "the predicted lesion (mean logit of its pixels)", self.folder / "sheet.png"
        elif index is None:
            subject, path = "the predicted class", self.folder / "sheet.png"
        else:
            subject, path = f"class {self.classes[index]}", self.folder / f"sheet_{_file_name(self.classes[index])}.png"
        caption = f"Grad-CAM of {subject} on layer {self.layer}"
        _write(path, write_png(contact_sheet(tiles, title=[caption, _LEGEND], synthetic=self.synthetic)))
        return Sheet(path, f"SYNTHETIC: {caption}" if self.synthetic else caption)


def stratified_sample(labels: Sequence[Any], n: int, seed: int) -> np.ndarray:
    """Indices of up to `n` entries, taken from the classes in turn, so that rare classes are seen too.

    Returns:
        Sorted int array; a pure function of its arguments.
    """
    generator = np.random.default_rng(seed)
    values = np.asarray(labels, dtype=str)
    queues = [generator.permutation(np.flatnonzero(values == value)) for value in np.unique(values)]
    ranks = np.concatenate([np.arange(len(queue)) for queue in queues] or [np.empty(0, int)])
    order = np.argsort(ranks, kind="stable")
    return np.sort(np.concatenate([*queues, np.empty(0, int)]).astype(int)[order[:n]])


def _predict(model: keras.Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities of the outputs that are drawn, float32."""
    wanted = {name: inputs[name] for name in model.input} if isinstance(model.input, Mapping) else inputs["image"]
    outputs = model(wanted, training=False)
    outputs = outputs if isinstance(outputs, Mapping) else {"label": outputs}
    squash = {"label": keras.ops.softmax, "mask": keras.ops.sigmoid}
    return {
        name: keras.ops.convert_to_numpy(function(keras.ops.cast(outputs[name], "float32")))
        for name, function in squash.items()
        if name in outputs
    }


def _folder_names(image_ids: Sequence[str]) -> list[str]:
    """One folder name per image, each of them different and without any way out of the folder."""
    names: list[str] = []
    for image_id in image_ids:
        name, number = _file_name(image_id), 2
        while name in names:
            name, number = f"{_file_name(image_id)}_{number}", number + 1
        names.append(name)
    return names


def _file_name(text: str) -> str:
    return re.sub(r"[^\w-]+", "_", str(text)).strip("_") or "unnamed"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)

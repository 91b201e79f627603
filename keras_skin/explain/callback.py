"""Explains a few fixed images when a fit ends, and measures whether the explanations mean anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_skin.evaluation.explanations import red_lines
from keras_skin.explain.attribution_files import write_summary, write_waterfall
from keras_skin.explain.class_specific import CLASS_MASK, class_masks, write_class_masks
from keras_skin.explain.faithfulness import FRACTIONS, Faithfulness, measure_faithfulness
from keras_skin.explain.grad_cam import GradCAM, feature_layers
from keras_skin.explain.map_files import MapWriter, Question, Sheet, branch
from keras_skin.explain.saliency import METHODS, TITLES, Saliency, check_methods
from keras_skin.explain.samples import ExplainSample, as_samples, folder_names, stack_inputs, stratified_sample
from keras_skin.explain.score_cam import ScoreCAM
from keras_skin.explain.shap_values import Attributions, MetadataShap
from keras_skin.explain.views import METADATA, explained_output, image_names, in_batches, predict
from keras_skin.figures.explanations import faithfulness_figure
from keras_skin.registry import UserError, atomic_path, did_you_mean, escape_table

Cam = Literal["grad_cam", "grad_cam++", "score_cam"]
CAMS = {"grad_cam": "Grad-CAM", "grad_cam++": "Grad-CAM++", "score_cam": "Score-CAM"}
SHAP_BACKGROUND = "shap_background.npz"


class Explanations(NamedTuple):
    """The result of an `ExplainCallback`.

    Attributes:
        sheets: pictures with their captions.
        metrics: `{layer or "metadata_shap": {metric: {"value", "ci95", "n"}}}`.
        warnings: a sentence for each test that the explanations failed.
    """

    sheets: list[Sheet]
    metrics: dict[str, dict[str, dict[str, Any]]]
    warnings: list[str]


class ExplainCallback(keras.callbacks.Callback):
    """Explains fixed images and measures the explanations.

    It writes below `folder`:

    - for each of up to `max_pictures` images a folder with the overlay and the raw map (`.npy`, float32, at the layer's
      resolution) of the predicted class and of each of `explain_classes`, for each branch of the model;
    - contact sheets of the same maps, those of the predicted class with the image beside each map;
    - for models with masks and labels, in each image's folder a mask of each class, see `class_masks`, and a sheet of them;
    - for models with clinical metadata the SHAP values of each field: `metadata_shap.csv`, summaries, and a waterfall in each
      image's folder;
    - `faithfulness.csv` and its figure, measured on all samples for the predicted class, or, of two classes, for the one in
      `explain_classes`: see `measure_faithfulness`.

    A model without label output is explained by the mean logit of its predicted lesion. An overlay without positive evidence
    carries a remark instead of a blank map.

    As a callback of `fit` it checks layers and methods when training starts and writes when training ends. It must come after
    the callback that restores the best weights. Where weights are restored after `fit`, call `explain(model)` instead; a second
    call replaces the files of the first.

    Args:
        samples: fixed images that the model is not trained on, as `ExplainSample` or as mappings with its fields.
        folder: where the files go.
        classes: class names, in the order of the label output.
        explain_classes: names of classes to explain besides the predicted one.
        layers: feature layers, see `GradCAM`; None takes `cam_features` and those of the model's further branches.
        cam: `"grad_cam"`, `"grad_cam++"` or `"score_cam"`.
        methods: further maps of the predicted class, some of `integrated_gradients`, `smoothgrad`, `occlusion`, `image_shap`.
        every: also write the maps every `every` epochs, into `folder/epoch_<number>`; 0 does not.
        max_pictures: how many samples get pictures, taken from the classes in turn; None is all. The others are only measured.
        class_masks: whether to write a mask of each class, of a model with masks and labels, from Grad-CAM on the first layer.
        measure: whether to measure faithfulness.
        background: inputs of some training images, (R, ...) each; SHAP values are relative to them. Required for metadata and
            `image_shap`.
        metadata_columns: the clinical field of each column of the input `metadata`.
        metadata_switches: indices of the columns that tell whether a field is known, see `MetadataShap`.
        split: the split that the images are from, for titles.
        synthetic: whether pictures say SYNTHETIC.
        batch_size: images per step.
        seed: seed of all random choices.

    Raises:
        UserError: if a class, method or kind of map is unknown.

    Example:

    ```python
    chosen = stratified_sample(labels, 48, seed=0)
    samples = [ExplainSample(ids[i], {"image": images[i]}, labels[i], masks[i]) for i in chosen]
    explain = ExplainCallback(samples, "explain", ["benign", "malignant"], max_pictures=12)
    model.fit(data, callbacks=[explain])
    print(*explain.result.warnings, sep="\\n")
    ```
    """

    def __init__(
        self,
        samples: Iterable[ExplainSample | Mapping[str, Any]],
        folder: str | Path,
        classes: Sequence[str],
        *,
        explain_classes: Sequence[str] = (),
        layers: str | Sequence[str] | None = None,
        cam: Cam = "grad_cam",
        methods: Sequence[str] = (),
        every: int = 0,
        max_pictures: int | None = None,
        class_masks: bool = True,
        measure: bool = True,
        background: Mapping[str, np.ndarray] | None = None,
        metadata_columns: Sequence[str] = (),
        metadata_switches: Sequence[int] = (),
        split: str = "validation",
        synthetic: bool = False,
        batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.samples = as_samples(samples)
        self.folder = Path(folder)
        self.classes = tuple(classes)
        unknown = [name for name in explain_classes if name not in self.classes]
        if unknown:
            raise UserError(
                f"Cannot explain class {', '.join(map(repr, unknown))}.{did_you_mean(unknown[0], self.classes)} "
                f"Classes: {', '.join(self.classes)}."
            )
        if cam not in CAMS:
            raise UserError(f"There is no map {cam!r}.{did_you_mean(cam, CAMS)} Valid: {', '.join(CAMS)}.")
        check_methods(methods)
        self.explain_classes = tuple(dict.fromkeys(explain_classes))
        self.layers = None if layers is None else (layers,) if isinstance(layers, str) else tuple(layers)
        self.cam: Cam = cam
        self.methods = tuple(methods)
        self.every = every
        self.class_masks = class_masks
        self.measure = measure
        self.background = background
        self.metadata_columns = tuple(metadata_columns)
        self.metadata_switches = tuple(metadata_switches)
        self.split = split
        self.synthetic = synthetic
        self.batch_size = batch_size
        self.seed = seed
        labels = ["" if sample.label is None else sample.label for sample in self.samples]
        self._picture_rows = stratified_sample(labels, len(labels) if max_pictures is None else max_pictures, seed)
        self.picture_samples = [self.samples[row] for row in self._picture_rows]
        self.result = Explanations([], {}, [])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.samples:
            for cam in self._cams(self.model).values():
                cam.check()
            check_methods(self.methods, self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.every and (epoch + 1) % self.every == 0 and self.picture_samples:
            self._write_maps(self.model, self._cams(self.model), self.folder / f"epoch_{epoch + 1:03d}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.result = self.explain(self.model)

    def explain(self, model: keras.Model) -> Explanations:
        """Explains the samples with the model's current weights and writes all files; without samples it does nothing."""
        result = Explanations([], {}, [])
        if not self.samples:
            return result
        cams = self._cams(model)
        if self.measure:
            faithfulness = measure_faithfulness(
                model,
                cams,
                self.samples,
                self.classes,
                class_index=self._measured_class(model),
                batch_size=self.batch_size,
                seed=self.seed,
            )
            result.sheets.extend(self._write_faithfulness(faithfulness))
            result.metrics.update(faithfulness.metrics)
            result.warnings.extend(faithfulness.warnings)
        if self.picture_samples:
            result.sheets.extend(self._write_maps(model, cams, self.folder, self.methods, self.class_masks))
        has_metadata = isinstance(model.input, Mapping) and METADATA in model.input
        if has_metadata and self.background is not None and explained_output(model) == "label":
            attributions, sheets = self._write_metadata(model)
            gap = {"relative_gap": {"value": attributions.relative_gap, "ci95": None, "n": len(self.samples)}}
            result.sheets.extend(sheets)
            result.metrics["metadata_shap"] = gap
            result.warnings.extend(red_lines("metadata_shap", gap))
        return result

    def _measured_class(self, model: keras.Model) -> int | None:
        """Of two classes the one that is asked for: evidence for the other is mostly the absence of evidence for this one."""
        is_binary = len(self.classes) == 2 and len(self.explain_classes) == 1 and explained_output(model) == "label"
        return self.classes.index(self.explain_classes[0]) if is_binary else None

    def _cams(self, model: keras.Model) -> dict[str, GradCAM | ScoreCAM]:
        output = explained_output(model)
        layers = self.layers or feature_layers(model)
        if self.cam == "score_cam":
            return {layer: ScoreCAM(model, layer, output) for layer in layers}
        return {layer: GradCAM(model, layer, output, self.cam) for layer in layers}

    def _write_maps(
        self,
        model: keras.Model,
        cams: Mapping[str, GradCAM | ScoreCAM],
        folder: Path,
        methods: Sequence[str] = (),
        with_class_masks: bool = False,
    ) -> list[Sheet]:
        inputs = stack_inputs(self.picture_samples)
        predictions = in_batches(partial(predict, model), inputs, self.batch_size)
        names = folder_names([sample.image_id for sample in self.picture_samples])
        writer = MapWriter(folder, names, self.picture_samples, self.classes, predictions, self.synthetic)
        classes: list[int | None] = [None]
        if "label" in predictions:
            classes += map(self.classes.index, self.explain_classes)
        for name in names:  # maps of an earlier call may be of another predicted class
            for prefix in ("grad_cam", "score_cam", CLASS_MASK, *METHODS):
                for path in (folder / name).glob(f"{prefix}_*"):
                    path.unlink()
        sheets = []
        for layer, cam in cams.items():
            stem = self.cam.replace("++", "_plus_plus") + branch(layer, list(cams))
            for index in classes:
                maps = in_batches(partial(cam, class_index=index), inputs, self.batch_size)
                sheets.append(writer.write(Question(CAMS[self.cam], stem, index, layer), maps))
        if methods:
            background = None if self.background is None else self.background[image_names(model)[0]]
            saliency = Saliency(model, methods, background, self.seed)
            results = [saliency(sample, writer.predicted(row) or 0) for row, sample in enumerate(self.picture_samples)]
            for name in methods:
                maps = [result[name] for result in results]
                sheets.append(writer.write(Question(TITLES[name], name), maps, sharp=name != "occlusion"))
        if with_class_masks and {"mask", "label"} <= predictions.keys():
            cam = GradCAM(model, next(iter(cams)))
            maps = [in_batches(partial(cam, class_index=index), inputs, self.batch_size) for index in range(len(self.classes))]
            lesions, predicted = predictions["mask"][..., 0] > 0.5, predictions["label"].argmax(axis=1)
            sheets.append(write_class_masks(writer, class_masks(lesions, np.stack(maps, axis=1), predicted)))
        return sheets

    def _write_faithfulness(self, faithfulness: Faithfulness) -> list[Sheet]:
        with atomic_path(self.folder / "faithfulness.csv") as path:
            escape_table(faithfulness.table).to_csv(path, index=False)
        sheets = []
        for layer, curves in faithfulness.curves.items():
            table = faithfulness.table[faithfulness.table["layer"] == layer]
            title = f"{CAMS[self.cam]} on {layer}, {len(table)} {self.split} images"
            file = self.folder / f"faithfulness{branch(layer, list(faithfulness.curves))}.png"
            faithfulness_figure(table, curves, FRACTIONS, file, title, self.synthetic)
            sheets.append(Sheet(file, f"Faithfulness of the maps, against uninformed maps: {title}."))
        return sheets

    def _write_metadata(self, model: keras.Model) -> tuple[Attributions, list[Sheet]]:
        assert self.background is not None
        explainer = MetadataShap(model, self.background, self.metadata_columns, self.metadata_switches, self.seed)
        attributions = explainer.explain(stack_inputs(self.samples))
        sheets = write_summary(self.folder, attributions, self.samples, self.classes, self.synthetic)
        names = folder_names([sample.image_id for sample in self.picture_samples])
        for name, row, sample in zip(names, self._picture_rows, self.picture_samples, strict=True):
            for path in (self.folder / name).glob("metadata_shap_*"):
                path.unlink()
            index = int(np.argmax(attributions.logits[row]))
            write_waterfall(self.folder / name, attributions, int(row), index, sample, self.classes, self.synthetic)
        with atomic_path(self.folder / SHAP_BACKGROUND) as path, path.open("wb") as file:
            np.savez(file, *explainer.background)
        return attributions, sheets

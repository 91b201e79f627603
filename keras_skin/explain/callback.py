"""Explains a few fixed validation images when a fit ends, and measures whether the explanations mean anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_skin.evaluation.explanations import red_lines
from keras_skin.explain.attribution_files import write_summary, write_waterfall
from keras_skin.explain.faithfulness import FRACTIONS, Faithfulness, measure_faithfulness
from keras_skin.explain.grad_cam import GradCAM, feature_layers
from keras_skin.explain.map_files import MapWriter, Question, Sheet, branch
from keras_skin.explain.saliency import METHODS, TITLES, Saliency, check_methods
from keras_skin.explain.samples import ExplainSample, as_samples, folder_names, stack_inputs, stratified_sample
from keras_skin.explain.score_cam import ScoreCAM
from keras_skin.explain.shap_values import Attributions, MetadataShap
from keras_skin.explain.views import METADATA, explained_output, image_names, input_names, predict
from keras_skin.figures.explanations import faithfulness_figure
from keras_skin.registry import UserError, atomic_path, did_you_mean

Cam = Literal["grad_cam", "grad_cam++", "score_cam"]
CAMS = {"grad_cam": "Grad-CAM", "grad_cam++": "Grad-CAM++", "score_cam": "Score-CAM"}
SHAP_BACKGROUND = "shap_background.npz"


class Explanations(NamedTuple):
    """What was explained.

    Attributes:
        sheets: pictures, with the sentence below each.
        metrics: `{layer or "metadata_shap": {metric: {"value", "ci95", "n"}}}`.
        warnings: a sentence for each claim that the explanations failed.
    """

    sheets: list[Sheet]
    metrics: dict[str, dict[str, dict[str, Any]]]
    warnings: list[str]


class ExplainCallback(keras.callbacks.Callback):
    """Explanations of fixed images, and the proof beside the picture.

    Writes below `folder`, for each of the `drawn` images, a folder with the overlay and the raw map (`.npy`, float32, at the
    layer's own resolution) of the predicted class and of every class asked for, for each branch of the model; contact sheets; for
    models with clinical metadata the SHAP values of each field (`metadata_shap.csv`, summaries, a waterfall in each folder); and
    of all samples `faithfulness.csv` and its figure: see `measure_faithfulness`. A model without label output is explained by the
    mean logit of its predicted lesion. An image without positive evidence says so instead of showing a blank map.

    Given to `fit`, it checks layers and methods when training begins and writes when it ends; it must then stand behind the
    callback that loads the best weights back. Where weights are restored after `fit`, call `explain(model)` instead: a second
    call replaces what the first wrote.

    Args:
        samples: fixed validation images, as `ExplainSample` or as mappings with its fields.
        folder: where the files go.
        classes: class names, in the order of the label output.
        explain_classes: names of classes to explain besides the predicted one.
        layers: feature layers, see `GradCAM`; None takes `cam_features` and those of the model's further branches.
        cam: `"grad_cam"`, `"grad_cam++"` or `"score_cam"`.
        methods: further maps of the predicted class, some of `integrated_gradients`, `smoothgrad`, `occlusion`, `image_shap`.
        every: also draw the maps after every so many epochs, into `folder/epoch_<number>`; 0 does not.
        drawn: how many of the samples are drawn, chosen by class in turn; None draws all. The others are measured only.
        measure: whether to measure faithfulness.
        background: inputs of some images of the training part, (R, ...) each: what SHAP values are relative to. Needed for
            metadata and `image_shap`.
        metadata_columns: the clinical field of each column of the input `metadata`.
        metadata_switches: indices of the columns that say whether a field is known, see `MetadataShap`.
        synthetic: whether pictures say SYNTHETIC.
        batch_size: images per step.
        seed: of everything drawn by chance.

    Raises:
        UserError: if a class, method or kind of map is unknown.

    Example:

    ```python
    chosen = stratified_sample(labels, 48, seed=0)
    samples = [ExplainSample(ids[i], {"image": images[i]}, labels[i], masks[i]) for i in chosen]
    explain = ExplainCallback(samples, "explain", ["benign", "malignant"], drawn=12)
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
        drawn: int | None = None,
        measure: bool = True,
        background: Mapping[str, np.ndarray] | None = None,
        metadata_columns: Sequence[str] = (),
        metadata_switches: Sequence[int] = (),
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
            raise UserError(f"There is no map {cam!r}.{did_you_mean(cam, CAMS)} Known: {', '.join(CAMS)}.")
        check_methods(methods)
        self.explain_classes = tuple(dict.fromkeys(explain_classes))
        self.layers = None if layers is None else (layers,) if isinstance(layers, str) else tuple(layers)
        self.cam: Cam = cam
        self.methods = tuple(methods)
        self.every = every
        self.measure = measure
        self.background = background
        self.metadata_columns = tuple(metadata_columns)
        self.metadata_switches = tuple(metadata_switches)
        self.synthetic = synthetic
        self.batch_size = batch_size
        self.seed = seed
        labels = ["" if sample.label is None else sample.label for sample in self.samples]
        chosen = stratified_sample(labels, len(labels) if drawn is None else drawn, seed)
        self.drawn = [self.samples[index] for index in chosen]
        self._drawn_rows = chosen
        self.result = Explanations([], {}, [])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.samples:
            for cam in self._cams(self.model).values():
                cam.check()
            check_methods(self.methods, self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.every and (epoch + 1) % self.every == 0 and self.drawn:
            self._write_maps(self.model, self._cams(self.model), self.folder / f"epoch_{epoch + 1:03d}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.result = self.explain(self.model)

    def explain(self, model: keras.Model) -> Explanations:
        """Explains the samples with the model's present weights and writes all files; nothing if there are no samples."""
        sheets: list[Sheet] = []
        metrics: dict[str, dict[str, dict[str, Any]]] = {}
        warnings: list[str] = []
        if not self.samples:
            return Explanations(sheets, metrics, warnings)
        cams = self._cams(model)
        if self.measure:
            found = measure_faithfulness(model, cams, self.samples, self.classes, batch_size=self.batch_size, seed=self.seed)
            sheets += self._write_faithfulness(found)
            metrics |= found.metrics
            warnings += found.warnings
        if self.drawn:
            sheets += self._write_maps(model, cams, self.folder, self.methods)
        if METADATA in input_names(model) and self.background is not None and explained_output(model) == "label":
            attributions, more = self._write_metadata(model)
            sheets += more
            gap = {"relative_gap": {"value": attributions.relative_gap, "ci95": None, "n": len(self.samples)}}
            metrics["metadata_shap"] = gap
            warnings += red_lines("metadata_shap", gap)
        return Explanations(sheets, metrics, warnings)

    def _cams(self, model: keras.Model) -> dict[str, GradCAM | ScoreCAM]:
        output = explained_output(model)
        layers = self.layers or feature_layers(model)
        if self.cam == "score_cam":
            return {layer: ScoreCAM(model, layer, output) for layer in layers}
        return {layer: GradCAM(model, layer, output, self.cam) for layer in layers}

    def _write_maps(
        self, model: keras.Model, cams: Mapping[str, GradCAM | ScoreCAM], folder: Path, methods: Sequence[str] = ()
    ) -> list[Sheet]:
        batches = [self.drawn[start : start + self.batch_size] for start in range(0, len(self.drawn), self.batch_size)]
        inputs = [stack_inputs(batch) for batch in batches]
        parts = [predict(model, batch) for batch in inputs]
        predictions = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        names = folder_names([sample.image_id for sample in self.drawn])
        writer = MapWriter(folder, names, self.drawn, self.classes, predictions, self.synthetic)
        asked: list[int | None] = [None]
        if "label" in predictions:
            asked += map(self.classes.index, self.explain_classes)
        sheets, written = [], set()
        for layer, cam in cams.items():
            stem = self.cam.replace("++", "_plus_plus") + branch(layer, list(cams))
            for index in asked:
                maps = list(np.concatenate([cam(batch, index) for batch in inputs]))
                sheet, files = writer.write(Question(CAMS[self.cam], stem, index, layer), maps)
                sheets.append(sheet)
                written |= set(files)
        if methods:
            saliency = Saliency(model, methods, self._background_images(model), self.seed)
            found = [saliency(sample, writer.predicted(row) or 0) for row, sample in enumerate(self.drawn)]
            for name in methods:
                maps = [each[name] for each in found]
                sheet, files = writer.write(Question(TITLES[name], name), maps, sharp=name != "occlusion")
                sheets.append(sheet)
                written |= set(files)
        self._remove_old([folder / name for name in names], written)
        return sheets

    def _remove_old(self, folders: Sequence[Path], written: set[Path]) -> None:
        """Maps of an earlier call: the predicted class may have been another one."""
        for folder in folders:
            for prefix in ("grad_cam", "score_cam", *METHODS):
                for old in folder.glob(f"{prefix}_*"):
                    if old not in written:
                        old.unlink()

    def _background_images(self, model: keras.Model) -> np.ndarray | None:
        return None if self.background is None else self.background[image_names(model)[0]]

    def _write_faithfulness(self, found: Faithfulness) -> list[Sheet]:
        with atomic_path(self.folder / "faithfulness.csv") as path:
            found.table.to_csv(path, index=False)
        sheets = []
        for layer, curves in found.curves.items():
            table = found.table[found.table["layer"] == layer]
            title = f"{CAMS[self.cam]} on {layer}, {len(table)} validation images"
            file = self.folder / f"faithfulness{branch(layer, list(found.curves))}.png"
            faithfulness_figure(table, curves, FRACTIONS, file, title, self.synthetic)
            sheets.append(Sheet(file, f"Do the maps mean anything? {title}, against maps that know nothing."))
        return sheets

    def _write_metadata(self, model: keras.Model) -> tuple[Attributions, list[Sheet]]:
        assert self.background is not None
        explainer = MetadataShap(model, self.background, self.metadata_columns, self.metadata_switches, self.seed)
        found = explainer.explain(stack_inputs(self.samples))
        sheets = [Sheet(*pair) for pair in write_summary(self.folder, found, self.samples, self.classes, self.synthetic)]
        names = folder_names([sample.image_id for sample in self.drawn])
        for name, row, sample in zip(names, self._drawn_rows, self.drawn, strict=True):
            for old in (self.folder / name).glob("metadata_shap_*"):
                old.unlink()
            index = int(np.argmax(found.logits[row]))
            write_waterfall(self.folder / name, found, int(row), index, sample, self.classes, self.synthetic)
        with atomic_path(self.folder / SHAP_BACKGROUND) as path, path.open("wb") as file:
            np.savez(file, *explainer.background)
        return found, sheets

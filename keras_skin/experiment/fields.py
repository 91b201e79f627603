"""The fields of an experiment, typed; the checks that need more than one value stand beside them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from keras_skin.experiment.components import (
    REGISTRIES,
    AugmentationSettings,
    BalancingSettings,
    BatchAugmentationSettings,
    DatasetSettings,
    LossSettings,
    ModelSettings,
    PreprocessingSettings,
    Settings,
)
from keras_skin.registry import did_you_mean

OUTPUTS = ("mask", "label", "mask_aux_1", "mask_aux_2", "super_resolution")
"""Outputs of a model that can have a loss."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class MetadataSettings(Settings):
    """Clinical metadata for models that take them. `inputs`: fields of the data set (null takes all but those that give the
    label away); `missing`: what becomes of blank cells; `preset`: a published encoding."""

    inputs: list[str] | None = None
    missing: Literal["own_column", "mask", "drop", "impute"] = "own_column"
    preset: Literal["pad_ufes_20_81"] | None = None


class SegmenterSettings(Settings):
    """What cuts the lesion out of its image, for models that take it so: `run`, the folder of a finished run of a segmentation
    model or the beginning of its name, without date and time (the newest finished one is taken), as in
    `runs/deep_unet_isic2018`; or `masks` `dataset`, the data set's own masks. These no client can send, so that such a model
    is not exported."""

    run: str | None = None
    masks: Literal["dataset"] | None = None

    @model_validator(mode="after")
    def _one(self) -> SegmenterSettings:
        if (self.run is None) == (self.masks is None):
            raise ValueError('give one of "run" (of a segmentation model) and "masks" ("dataset"), and leave the other null')
        return self


class DataSettings(Settings):
    """Which images train, which test. `test` null means the test part of `train`'s own split; `external` data sets are only
    ever tested on. `leak_guard` says what is done about images on two sides of training (same id, patient or lesion, file, or
    picture): `error` lists them, `exclude` leaves out the training side."""

    train: DatasetSettings
    extra_train: list[DatasetSettings] = Field([])
    test: DatasetSettings | None = None
    external: list[DatasetSettings] = Field([])
    on_bad_image: Literal["exclude", "error"] = "exclude"
    leak_guard: Literal["error", "exclude"] = "error"

    @model_validator(mode="after")
    def _distinct(self) -> DataSettings:
        tested = [item.name for item in ([self.test] if self.test else []) + self.external]
        twice = sorted({name for name in tested if tested.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named more than once among test and external")
        return self


class SplitSettings(Settings):
    """How images are parted, stratified by class: by group (patient, else lesion, else image), or, with `protocol` `paper`,
    image by image as most papers do; groups may straddle then, and every number says so.

    `official` keeps the data set's own parts and carves `validation` out of its training part; `stratified` draws
    `validation` and
    `test` shares; `kfold` runs once per fold, each fold being the test part in turn; `file` reads a splits.csv of an earlier run.
    `seed` decides the parts, and nothing else does: trainings with other seeds are measured on the same images.
    """

    scheme: Literal["official", "stratified", "kfold", "file"] = "official"
    protocol: Literal["grouped", "paper"] = "grouped"
    validation: Fraction = 0.15
    test: Fraction = 0.2
    folds: int = Field(5, ge=2)
    seed: int = Field(0, ge=0)
    file: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> SplitSettings:
        if (self.scheme == "file") != (self.file is not None):
            raise ValueError("scheme 'file' and the key 'file' belong together: set both or neither")
        if self.scheme == "stratified" and self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        return self


class ImageSettings(Settings):
    """Size (height, width) in pixels that the model sees, and operations on the resized image, in their order."""

    size: tuple[PositiveInt, PositiveInt] = (192, 256)
    preprocessing: list[PreprocessingSettings] = Field([])


class OptimizerSettings(Settings):
    """Optimizer by name; keys left null keep Keras' default. `weight_decay` is Keras' decoupled one, `l2` that of PyTorch's
    optimizers, added to the gradients; `gradient_accumulation_steps` adds up that many batches per update."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    l2: float | None = Field(None, ge=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    clipnorm: float | None = Field(None, gt=0)
    gradient_accumulation_steps: int | None = Field(None, ge=2)


class ScheduleSettings(Settings):
    """Learning rate over training: `exponential` falls smoothly to `factor` of itself by the last step; `step` multiplies by
    `factor`
    every `every` epochs; `plateau` multiplies by `factor` whenever `monitor` has not improved for `patience` epochs; `constant`
    does not change."""

    name: Literal["constant", "exponential", "step", "plateau"] = "constant"
    factor: float | None = Field(None, gt=0, le=1)
    every: PositiveInt | None = None
    patience: PositiveInt | None = None

    @model_validator(mode="after")
    def _complete(self) -> ScheduleSettings:
        needed = {
            "constant": (),
            "exponential": ("factor",),
            "step": ("factor", "every"),
            "plateau": ("factor", "patience"),
        }[self.name]
        given = {key for key in ("factor", "every", "patience") if getattr(self, key) is not None}
        if given != set(needed):
            raise ValueError(
                f"schedule '{self.name}' takes {' and '.join(needed) or 'no further key'}, "
                f"given: {', '.join(sorted(given)) or 'none'}"
            )
        return self


class EarlyStoppingSettings(Settings):
    """Stop when the monitored value has not improved for `patience` epochs."""

    patience: PositiveInt


class BackboneTrainingSettings(Settings):
    """How a pretrained backbone is trained: at `rate` times the learning rate, frozen for the first `frozen_epochs`, then its
    stages thaw from the deepest on, one every `stage_epochs` (0: all together)."""

    rate: float = Field(1.0, gt=0, le=1)
    frozen_epochs: int = Field(0, ge=0)
    stage_epochs: int = Field(0, ge=0)


class TrainSettings(Settings):
    """The fit. `monitor`: the logged value (or several, averaged) by which the best epoch is chosen, on the validation part
    only."""

    epochs: PositiveInt = 50
    batch_size: PositiveInt = 10
    steps_per_epoch: PositiveInt | None = None
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    backbone: BackboneTrainingSettings | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: int = Field(0, ge=0)
    deterministic: bool = False
    monitor: str | list[str] = "val_loss"
    early_stopping: EarlyStoppingSettings | None = None
    save_every_seconds: float = Field(60.0, gt=0)


class ExplainSettings(Settings):
    """Pictures after the fit, and what they are worth: maps of `images` validation images for the predicted class and `classes`
    (`cam`), at the named feature `layer` (or several; null takes all that the model offers), after every `every` epochs too (0:
    only at the end), with further `methods`; the maps of `measured` images are measured."""

    images: int = Field(12, ge=0)
    measured: int = Field(48, ge=0)
    every: int = Field(0, ge=0)
    classes: list[str] = Field([])
    layer: str | list[str] | None = None
    cam: Literal["grad_cam", "grad_cam++", "score_cam"] = "grad_cam"
    methods: list[Literal["integrated_gradients", "smoothgrad", "occlusion", "image_shap"]] = Field([])


class ExportSettings(Settings):
    """Whether the trained model is exported, and as what: a SavedModel in `float32` or `bfloat16`, for `litert`, or with `images`
    and numbers alone, for other converters. How well each agrees with the trained model stands in its model card."""

    enabled: bool = True
    editions: list[Literal["float32", "bfloat16", "litert", "images"]] = Field(["float32"], min_length=1)


class PaperSettings(Settings):
    """The published numbers, printed beside the measured ones: `results` is {split: {task: {metric: value}}}, values as
    fractions."""

    citation: str
    doi: str | None = None
    row: str | None = None
    results: dict[str, dict[Literal["segmentation", "classification"], dict[str, float]]] = Field({})
    notes: list[str] = Field([])


class Experiment(Settings):
    """One experiment, complete: what is trained on what, how it is measured, explained and exported."""

    schema_file: str = Field("schema.json", alias="$schema", description="For editors: where the JSON Schema lies.")
    extends: str | None = Field(None, description="One parent file whose values this one is laid over.")
    title: str
    description: str = ""
    data: DataSettings
    split: SplitSettings = SplitSettings()
    image: ImageSettings = ImageSettings()
    augmentation: AugmentationSettings = Field(default_factory=lambda: AugmentationSettings(name="none"))
    batch_augmentation: BatchAugmentationSettings | None = None
    balancing: BalancingSettings = BalancingSettings()
    metadata: MetadataSettings | None = None
    segmenter: SegmenterSettings | None = None
    model: ModelSettings
    losses: dict[str, LossSettings | None] = Field(
        min_length=1, description="The loss of each output of the model; null takes away what a parent file set."
    )
    train: TrainSettings = TrainSettings()
    explain: ExplainSettings = ExplainSettings()
    export: ExportSettings = ExportSettings()
    paper: PaperSettings | None = None
    demo: dict[str, Any] = Field({}, description="Overrides (dotted key: value) that --demo applies.")

    @model_validator(mode="after")
    def _metadata_fit_the_model(self) -> Experiment:
        taken = "metadata_width" in REGISTRIES["model"][0].parameters(self.model.name)
        if self.metadata is not None and not taken:
            raise ValueError(f"'metadata' is set, but the model '{self.model.name}' takes no clinical metadata: leave it out")
        return self

    @model_validator(mode="after")
    def _only_what_can_be_served_is_exported(self) -> Experiment:
        if self.segmenter is not None and self.segmenter.masks and self.export.enabled:
            raise ValueError(
                "'segmenter.masks' takes the data set's masks, which no client can send: name a run in 'segmenter.run', or set "
                "'export.enabled' to false"
            )
        return self

    @model_validator(mode="after")
    def _nothing_random_is_frozen(self) -> Experiment:
        frozen = self.train.backbone is not None and self.train.backbone.frozen_epochs > 0
        if frozen and "weights" in REGISTRIES["model"][0].parameters(self.model.name) and not self.model.arguments.get("weights"):
            raise ValueError(
                "'train.backbone.frozen_epochs' freezes a backbone of random weights: name model.weights, or set it to 0"
            )
        return self

    @field_validator("demo")
    @classmethod
    def _flat(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        bad = [key for key in value if key.split(".")[0] not in cls.model_fields]
        if bad:
            raise ValueError(f"keys are dotted paths of this file such as 'train.epochs'; not so: {', '.join(bad)}")
        return value

    @field_validator("losses")
    @classmethod
    def _some(cls, value: dict[str, LossSettings | None]) -> dict[str, LossSettings | None]:
        unknown = sorted(set(value) - set(OUTPUTS))
        if unknown:
            raise ValueError(
                f"there is no output '{unknown[0]}'.{did_you_mean(unknown[0], OUTPUTS)} Outputs: {', '.join(OUTPUTS)}"
            )
        kept: dict[str, LossSettings | None] = {key: loss for key, loss in value.items() if loss is not None}
        if not kept:
            raise ValueError("at least one output needs a loss")
        return kept

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the model sees, in pixels."""
        return self.image.size

    @property
    def loss_settings(self) -> dict[str, dict[str, Any]]:
        """For each output `{"name", "weight", ...arguments}`."""
        return {
            key: {"name": loss.name, "weight": loss.weight, **loss.arguments}
            for key, loss in self.losses.items()
            if loss is not None
        }

    def to_json(self) -> str:
        """The experiment with everything inherited and every default written out, so that it stands alone."""
        return json.dumps({**self.model_dump(mode="json", by_alias=True), "extends": None}, indent=2) + "\n"

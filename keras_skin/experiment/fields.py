"""The typed fields of an experiment, with the checks that need more than one value."""

from __future__ import annotations

import json
from collections import Counter
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
from keras_skin.experiment.paper import PaperSettings
from keras_skin.registry import clipped, did_you_mean, listed

OUTPUTS = ("mask", "label", "mask_aux_1", "mask_aux_2", "super_resolution")
"""Outputs of a model that can have a loss."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class MetadataSettings(Settings):
    """Clinical metadata for models that take them. `inputs`: fields of the data set (null: all except those that reveal the
    label); `missing`: how blank cells are handled; `preset`: a published encoding."""

    inputs: list[str] | None = None
    missing: Literal["own_column", "mask", "drop", "impute"] = "own_column"
    preset: Literal["pad_ufes_20_81"] | None = None


class SegmenterSettings(Settings):
    """How the lesion is cut out of its image, for models that need it. `run`: the folder of a finished run of a segmentation
    model, or its name without date and time, as in `runs/deep_unet_isic2018` (uses the newest finished one). `masks`
    `dataset`: the data set's own masks; a client cannot send these, so that such a model is not exported. `preset`: a trained
    segmentation model by name, such as `jrl_isic`, or a preset's folder, `.zip` or `https://` address.

    `exclude_only` is for models that see no segmented image: no lesion is cut out, but the images that the segmenter was fitted
    on are excluded from the measured splits, so that the model is measured on the same images as one that uses the segmenter."""

    run: str | None = None
    preset: str | None = None
    masks: Literal["dataset"] | None = None
    exclude_only: bool = False

    @property
    def has_model(self) -> bool:
        """Whether a model predicts the masks."""
        return self.masks is None and not self.exclude_only

    @model_validator(mode="after")
    def _check_source(self) -> SegmenterSettings:
        if [self.run, self.preset, self.masks].count(None) != 2:
            raise ValueError(
                'set one of "run" (of a segmentation model), "preset" and "masks" ("dataset"), and leave the others null'
            )
        if self.exclude_only and self.masks:
            raise ValueError('"exclude_only" excludes what a segmenter was fitted on: name it in "run" or "preset", not "masks"')
        return self


class DataSettings(Settings):
    """The data sets for training and testing. `test` null means the test split of `train`; `external` data sets are only used
    for testing. `complete` names clinical fields without which an image is not used: a model without metadata then has the same
    images as one with `metadata.missing` `drop`. `leak_guard` handles images that occur in training and in testing (same id,
    patient or lesion, file, or picture): `error` lists them, `exclude` removes them from training."""

    train: DatasetSettings
    extra_train: list[DatasetSettings] = Field([])
    test: DatasetSettings | None = None
    external: list[DatasetSettings] = Field([])
    complete: list[str] = Field([])
    on_bad_image: Literal["exclude", "error"] = "exclude"
    leak_guard: Literal["error", "exclude"] = "error"

    @model_validator(mode="after")
    def _check_repeats(self) -> DataSettings:
        names = [item.name for item in ([self.test] if self.test else []) + self.external]
        repeats = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeats:
            raise ValueError(f"{', '.join(repeats)} named more than once among test and external")
        return self


class SplitSettings(Settings):
    """How images are split, stratified by class: by group (patient, else lesion, else image), or, with `protocol` `paper`, image
    by image as most papers do; groups may then be in several splits, and every result reports it.

    `official` keeps the data set's own splits and takes `validation` from its training split; `stratified` draws `validation` and
    `test` shares; `kfold` runs once per fold, with each fold as the test split in turn; `file` reads an earlier splits.csv.
    Only `seed` determines the splits: trainings with other seeds are evaluated on the same images.

    With `validation` 0, all images that are not tested are trained on, `train.monitor` must be `"last"`, and the images that are
    explained, and that the export is compared on, are test images.
    """

    scheme: Literal["official", "stratified", "kfold", "file"] = "official"
    protocol: Literal["grouped", "paper"] = "grouped"
    validation: Fraction = 0.15
    test: Fraction = 0.2
    folds: int = Field(5, ge=2)
    seed: int = Field(0, ge=0)
    file: str | None = None

    @model_validator(mode="after")
    def _check_scheme(self) -> SplitSettings:
        if (self.scheme == "file") != (self.file is not None):
            raise ValueError("scheme 'file' and the key 'file' belong together: set both or neither")
        if self.scheme == "stratified" and self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        return self


class ImageSettings(Settings):
    """Size (height, width) of the model's input in pixels, and operations on the resized image, in order."""

    size: tuple[PositiveInt, PositiveInt] = (192, 256)
    preprocessing: list[PreprocessingSettings] = Field([])


class OptimizerSettings(Settings):
    """Optimizer by name; null keys keep Keras' defaults. `weight_decay` is Keras' decoupled one, `l2` that of PyTorch's
    optimizers, added to the gradients; `gradient_accumulation_steps` accumulates that many batches per update."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    l2: float | None = Field(None, ge=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    clipnorm: float | None = Field(None, gt=0)
    gradient_accumulation_steps: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _check_combination(self) -> OptimizerSettings:
        if self.momentum is not None and self.name not in ("sgd", "rmsprop"):
            raise ValueError(f"optimizer '{self.name}' takes no momentum; sgd and rmsprop do")
        if self.l2 is not None and self.weight_decay is not None:
            raise ValueError("l2 (coupled) and weight_decay (decoupled) exclude each other: remove one")
        return self


class ScheduleSettings(Settings):
    """Learning rate schedule: `exponential` decays to `factor` times the initial rate at the last step; `step` multiplies by
    `factor` every `every` epochs; `plateau` multiplies by `factor` whenever `monitor` has not improved for `patience` epochs;
    `cosine` rises linearly over `warmup_epochs` (default 1), then falls along a cosine to `factor` times the rate (default 0) at
    the last step; `constant` does not change."""

    name: Literal["constant", "exponential", "step", "plateau", "cosine"] = "constant"
    factor: float | None = Field(None, gt=0, le=1)
    every: PositiveInt | None = None
    patience: PositiveInt | None = None
    warmup_epochs: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _check_keys(self) -> ScheduleSettings:
        required = {
            "constant": (),
            "exponential": ("factor",),
            "step": ("factor", "every"),
            "plateau": ("factor", "patience"),
            "cosine": (),
        }[self.name]
        optional = ("warmup_epochs", "factor") if self.name == "cosine" else ()
        keys = {key for key in ("factor", "every", "patience", "warmup_epochs") if getattr(self, key) is not None}
        if keys - set(optional) != set(required):
            raise ValueError(
                f"schedule '{self.name}' takes {' and '.join(required or optional) or 'no further key'}, "
                f"got: {', '.join(sorted(keys)) or 'none'}"
            )
        return self


class EarlyStoppingSettings(Settings):
    """Stop when the monitored value has not improved for `patience` epochs."""

    patience: PositiveInt


class BackboneTrainingSettings(Settings):
    """How a pretrained backbone is trained: at `rate` times the learning rate, frozen for the first `frozen_epochs`; then its
    stages are unfrozen from the deepest on, one every `stage_epochs` (0: all together)."""

    rate: float = Field(1.0, gt=0, le=1)
    frozen_epochs: int = Field(0, ge=0)
    stage_epochs: int = Field(0, ge=0)


class TrainSettings(Settings):
    """Training. `monitor`: the logged value, or several to average, that selects the best epoch on the validation split; `"last"`
    keeps the last epoch, as a training without validation images (`split.validation` 0) must. `ema`: momentum (such as 0.999) of
    a moving average of the weights, which is validated, measured and exported instead of the weights of the last step."""

    epochs: PositiveInt = 50
    batch_size: PositiveInt = 10
    steps_per_epoch: PositiveInt | None = None
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    backbone: BackboneTrainingSettings | None = None
    ema: float | None = Field(None, gt=0, lt=1)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: int = Field(0, ge=0)
    deterministic: bool = False
    monitor: str | list[str] = "val_loss"
    early_stopping: EarlyStoppingSettings | None = None
    save_every_seconds: float = Field(60.0, gt=0)

    @model_validator(mode="after")
    def _check_monitor(self) -> TrainSettings:
        if isinstance(self.monitor, list) and "last" in self.monitor:
            raise ValueError(f"monitor is {self.monitor}, but 'last' keeps the last epoch whatever it logs: name it alone")
        if self.monitor == "last":
            needs = ["early_stopping"] if self.early_stopping else []
            needs += ["schedule 'plateau'"] if self.schedule.name == "plateau" else []
            if needs:
                raise ValueError(f"monitor is 'last', but {' and '.join(needs)} need a logged value: name one, or remove them")
        return self


class PredictSettings(Settings):
    """How the trained model predicts, where it is measured, exported and served. `tta` `flips` averages the logits of each image
    and its three mirror images, which takes four times as long; explanations are those of the image alone.

    `prior` corrects the probabilities for a training that shows the classes in other shares than they have (resampling, copies,
    class weights), or for a place where the classes have other shares: the logit of a class is shifted by log(wanted share /
    share shown), also in validation during training. The wanted shares are those of the training split (`training`), equal ones
    (`uniform`, for balanced accuracy), or numbers in proportion to them, `{"benign": 4, "malignant": 1}`.

    `mask_threshold` is the probability from which a pixel belongs to the lesion. The logits of the mask are shifted so that it
    becomes 0.5; validation during training uses 0.5 of the unshifted mask."""

    tta: Literal["flips"] | None = None
    prior: Literal["training", "uniform"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    mask_threshold: float = Field(0.5, gt=0, lt=1)


class ExplainSettings(Settings):
    """Explanations after training, and their evaluation. Maps are made by `cam` and further `methods` for `images` validation
    images, for the predicted class and `classes`, at the feature `layer` (one, several, or null for all of the model), also
    after every `every` epochs (0: only at the end). The maps of `measured` images are evaluated: those of the predicted class,
    or, of two classes, those of the one in `classes`."""

    images: int = Field(12, ge=0)
    measured: int = Field(48, ge=0)
    every: int = Field(0, ge=0)
    classes: list[str] = Field([])
    layer: str | list[str] | None = None
    cam: Literal["grad_cam", "grad_cam++", "score_cam"] = "grad_cam"
    methods: list[Literal["integrated_gradients", "smoothgrad", "occlusion", "image_shap"]] = Field([])


class ExportSettings(Settings):
    """Whether and how the trained model is exported: a SavedModel in `float32` or `bfloat16`, a `litert` file, or a SavedModel
    without strings (`images`) for other converters. Each model card reports the agreement with the trained model."""

    enabled: bool = True
    editions: list[Literal["float32", "bfloat16", "litert", "images"]] = Field(["float32"], min_length=1)


class Experiment(Settings):
    """A complete experiment: data, model, training, evaluation, explanations and export."""

    schema_file: str = Field("schema.json", alias="$schema", description="For editors: path of the JSON Schema.")
    extends: str | None = Field(None, description="A parent file; the values of this file override its values.")
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
        min_length=1, description="The loss of each output of the model; null removes a loss that a parent file set."
    )
    train: TrainSettings = TrainSettings()
    predict: PredictSettings = PredictSettings()
    explain: ExplainSettings = ExplainSettings()
    export: ExportSettings = ExportSettings()
    paper: PaperSettings | None = None
    demo: dict[str, Any] = Field({}, description="Overrides (dotted key: value) that --demo applies.")
    changes: dict[str, str] = Field(
        {}, description="Written by the program: the settings that --set and --demo changed, with the values of the file."
    )

    @property
    def cuts_lesions(self) -> bool:
        """Whether the model sees the lesion cut out of its image."""
        return self.segmenter is not None and not self.segmenter.exclude_only

    @model_validator(mode="after")
    def _check_combinations(self) -> Experiment:
        arguments, backbone = REGISTRIES["model"][0].parameters(self.model.name), self.train.backbone
        problems = []
        if self.metadata is not None and "metadata_width" not in arguments:
            problems.append(f"'metadata' is set, but the model '{self.model.name}' takes no clinical metadata: remove it")
        if self.segmenter is not None and self.segmenter.masks and self.export.enabled:
            problems.append(
                "'segmenter.masks' uses the data set's masks, which a client cannot send: name a run in 'segmenter.run' or a "
                "preset in 'segmenter.preset', or set "
                "'export.enabled' to false"
            )
        has_weights = self.model.init or self.model.arguments.get("weights")
        if backbone is not None and backbone.frozen_epochs and "weights" in arguments and not has_weights:
            problems.append(
                "'train.backbone.frozen_epochs' freezes a backbone with random weights: set 'model.weights' or 'model.init', or "
                "set it to 0"
            )
        if self.predict.prior and not self.losses.get("label"):
            problems.append(
                "'predict.prior' shifts the logits of the classes, but no class is trained: set losses.label, or remove it"
            )
        if self.predict.prior and self.balancing.name == "curriculum":
            problems.append(
                "'predict.prior' needs to know the shares of the classes before the training, but those of the balancing "
                "'curriculum' depend on the losses: remove one of them"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @field_validator("demo")
    @classmethod
    def _check_demo(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        unknown = [key for key in value if key.split(".")[0] not in cls.model_fields]
        if unknown:
            raise ValueError(f"keys must be dotted paths of this file such as 'train.epochs', got: {listed(unknown)}")
        return value

    @field_validator("losses")
    @classmethod
    def _check_losses(cls, value: dict[str, LossSettings | None]) -> dict[str, LossSettings | None]:
        unknown = sorted(set(value) - set(OUTPUTS))
        if unknown:
            raise ValueError(
                f"there is no output '{clipped(unknown[0])}'.{did_you_mean(unknown[0], OUTPUTS)} Outputs: {', '.join(OUTPUTS)}"
            )
        losses: dict[str, LossSettings | None] = {key: loss for key, loss in value.items() if loss is not None}
        if not losses:
            raise ValueError("at least one output needs a loss")
        return losses

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels."""
        return self.image.size

    @property
    def loss_settings(self) -> dict[str, dict[str, Any]]:
        """For each output, `{"name", "weight", ...arguments}` of its loss."""
        return {
            key: {"name": loss.name, "weight": loss.weight, **loss.arguments}
            for key, loss in self.losses.items()
            if loss is not None
        }

    def to_json(self) -> str:
        """The complete experiment as JSON, with inherited values and defaults written out."""
        return json.dumps({**self.model_dump(mode="json", by_alias=True), "extends": None}, indent=2) + "\n"

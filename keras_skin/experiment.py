"""The typed experiment: everything a run is told, read from a JSON file, with every mistake named at once.

    experiment = load_experiment("experiments/jrl_ph2.json", overrides=["train.epochs=2"])

A file may name one parent with `extends`; the child's values are laid over the parent's. Components are objects with a `name` and
arguments of their own (`{"name": "jrl", "variant": "mtl3"}`); a component with another name than its parent's replaces it whole.
"""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, ValidationInfo, field_validator, model_validator

from keras_skin.registry import Registry, UserError, did_you_mean

REGISTRIES = {
    "model": (Registry("model", "keras_skin.models"), ("image_size", "classes")),
    "data set": (Registry("data set", "keras_skin.data.readers"), ("folder",)),
    "loss": (Registry("loss", "keras_skin.losses"), ("class_weights", "reduction", "name", "dtype")),
    "augmentation": (Registry("augmentation", "keras_skin.data.augment"), ()),
    "preprocessing": (Registry("preprocessing", "keras_skin.data.preprocess"), ()),
}
"""For each kind of component its registry, and the arguments that the program itself passes."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Settings(BaseModel):
    """Base of all blocks: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Component(Settings):
    """A registered component and its arguments; `kind` says in which registry it is looked up."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the JSON says beside the declared fields, to be passed on to the component."""
        return dict(self.model_extra or {})

    @classmethod
    def check(cls, kind: str, values: Mapping[str, Any]) -> None:
        """Raises one ValueError that names every unknown argument of the component."""
        registry, reserved = REGISTRIES[kind]
        name = str(values["name"])
        if name not in registry.names():
            raise ValueError(f"there is no {kind} '{name}'.{did_you_mean(name, registry.names())} "
                             f"Known: {', '.join(registry.names())}")
        declared = set(cls.model_fields)
        allowed = {key: choices for key, choices in registry.parameters(name).items() if key not in reserved}
        problems = []
        for key, value in values.items():
            if key in declared:
                continue
            if key not in allowed:
                known = sorted(set(allowed) | declared)
                problems.append(f"{kind} '{name}' takes no '{key}' (value {value!r}).{did_you_mean(key, known)} Valid: {', '.join(known)}")
            elif allowed[key] and isinstance(value, str) and value not in allowed[key]:
                problems.append(f"'{key}' is {value!r}.{did_you_mean(value, allowed[key])} Valid: {', '.join(allowed[key])}")
        if problems:
            raise ValueError("; ".join(problems))


class ModelSettings(Component):
    """The model and its builder's arguments."""

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        self.check("model", {"name": self.name, **self.arguments})
        return self


class LossSettings(Component):
    """The loss of one output; `weight` is its share in the total."""

    weight: float = Field(1.0, ge=0.0)

    @model_validator(mode="after")
    def _check(self) -> LossSettings:
        self.check("loss", {"name": self.name, **self.arguments})
        return self


class AugmentationSettings(Component):
    """How training images are changed, and how often each class is seen in an epoch."""

    @model_validator(mode="after")
    def _check(self) -> AugmentationSettings:
        self.check("augmentation", {"name": self.name, **self.arguments})
        return self


class DatasetSettings(Component):
    """A data set on disk. `folder` (relative to --data, or absolute) where it does not lie under its usual name;
    `labels` keeps images of these classes only, `parts` those of these official parts (`["validation"]`); `optional`: go on without it where it is missing, and say so."""

    folder: str | None = None
    labels: list[str] | None = None
    parts: list[str] | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _check(self) -> DatasetSettings:
        self.check("data set", {"name": self.name, **self.arguments})
        return self


class DataSettings(Settings):
    """Which images train, which test. `test` null means the test part of `train`'s own split; `external` data sets are only ever tested on."""

    train: DatasetSettings
    extra_train: list[DatasetSettings] = []
    test: DatasetSettings | None = None
    external: list[DatasetSettings] = []
    on_bad_image: Literal["exclude", "error"] = "exclude"

    @model_validator(mode="after")
    def _distinct(self) -> DataSettings:
        tested = [item.name for item in ([self.test] if self.test else []) + self.external]
        twice = sorted({name for name in tested if tested.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named more than once among test and external")
        return self


class SplitSettings(Settings):
    """How images are parted; always by group (patient, else lesion, else image), stratified by class.

    `official` keeps the data set's own parts and carves `validation` out of its training part; `stratified` draws `validation` and
    `test` shares; `kfold` runs once per fold, each fold being the test part in turn; `file` reads a splits.csv of an earlier run.
    """

    scheme: Literal["official", "stratified", "kfold", "file"] = "official"
    validation: Fraction = 0.15
    test: Fraction = 0.2
    folds: int = Field(5, ge=2)
    file: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> SplitSettings:
        if (self.scheme == "file") != (self.file is not None):
            raise ValueError("scheme 'file' and the key 'file' belong together: set both or neither")
        if self.scheme == "stratified" and self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        return self


class PreprocessingSettings(Component):
    """One operation on the resized image, in training, evaluation and the exported model alike."""

    @model_validator(mode="after")
    def _check(self) -> PreprocessingSettings:
        self.check("preprocessing", {"name": self.name, **self.arguments})
        return self


class ImageSettings(Settings):
    """Size (height, width) in pixels that the model sees, and operations on the resized image, in their order."""

    size: tuple[PositiveInt, PositiveInt] = (192, 256)
    preprocessing: list[PreprocessingSettings] = []


class OptimizerSettings(Settings):
    """Optimizer by name; keys left null keep Keras' default. `gradient_accumulation_steps` adds up that many batches per update."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    clipnorm: float | None = Field(None, gt=0)
    gradient_accumulation_steps: int | None = Field(None, ge=2)


class ScheduleSettings(Settings):
    """Learning rate over training: `exponential` falls smoothly to `factor` of itself by the last step; `step` multiplies by `factor`
    every `every` epochs; `constant` does not change."""

    name: Literal["constant", "exponential", "step"] = "constant"
    factor: float | None = Field(None, gt=0, le=1)
    every: PositiveInt | None = None

    @model_validator(mode="after")
    def _complete(self) -> ScheduleSettings:
        needed = {"constant": (), "exponential": ("factor",), "step": ("factor", "every")}[self.name]
        given = {key for key in ("factor", "every") if getattr(self, key) is not None}
        if given != set(needed):
            raise ValueError(f"schedule '{self.name}' takes {' and '.join(needed) or 'no further key'}, given: {', '.join(sorted(given)) or 'none'}")
        return self


class EarlyStoppingSettings(Settings):
    """Stop when the monitored value has not improved for `patience` epochs."""

    patience: PositiveInt


class TrainSettings(Settings):
    """The fit. `monitor`: the logged value (or several, averaged) by which the best epoch is chosen, on the validation part only."""

    epochs: PositiveInt = 50
    batch_size: PositiveInt = 10
    steps_per_epoch: PositiveInt | None = None
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: int = Field(0, ge=0)
    deterministic: bool = False
    monitor: str | list[str] = "val_loss"
    early_stopping: EarlyStoppingSettings | None = None
    cache: Literal["none", "memory"] = "none"
    save_every_seconds: float = Field(60.0, gt=0)


class ExplainSettings(Settings):
    """Pictures after the fit: Grad-CAM on `images` validation images, at the named feature layer, for the predicted class and `classes`."""

    images: int = Field(12, ge=0)
    classes: list[str] = []
    layer: str = "cam_features"


class ExportSettings(Settings):
    """Whether the trained model is written as a SavedModel."""

    enabled: bool = True


class BalancingSettings(Settings):
    """`class_weights` weighs the label loss by inverse class frequency of the training part. (Augmentation policies may balance, too.)"""

    name: Literal["none", "class_weights"] = "none"


class PaperSettings(Settings):
    """The published numbers, printed beside the measured ones: `results` is {split: {task: {metric: value}}}, values as fractions."""

    citation: str
    doi: str | None = None
    row: str | None = None
    results: dict[str, dict[Literal["segmentation", "classification"], dict[str, float]]] = {}
    notes: list[str] = []


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
    balancing: BalancingSettings = BalancingSettings()
    model: ModelSettings
    losses: dict[Literal["mask", "label", "mask_aux_1", "mask_aux_2"], LossSettings | None] = Field(
        min_length=1, description="The loss of each output of the model; null takes away what a parent file set.")
    train: TrainSettings = TrainSettings()
    explain: ExplainSettings = ExplainSettings()
    export: ExportSettings = ExportSettings()
    paper: PaperSettings | None = None
    demo: dict[str, Any] = Field({}, description="Overrides (dotted key: value) that --demo applies.")

    @field_validator("demo")
    @classmethod
    def _flat(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        bad = [key for key in value if key.split(".")[0] not in cls.model_fields]
        if bad:
            raise ValueError(f"keys are dotted paths of this file such as 'train.epochs'; not so: {', '.join(bad)}")
        return value

    @field_validator("losses")
    @classmethod
    def _some(cls, value: dict[str, LossSettings | None]) -> dict[str, LossSettings]:
        kept = {key: loss for key, loss in value.items() if loss is not None}
        if not kept:
            raise ValueError("at least one output needs a loss")
        return kept

    def to_json(self) -> str:
        """The experiment with everything inherited and every default written out, so that it stands alone."""
        return json.dumps({**self.model_dump(mode="json", by_alias=True), "extends": None}, indent=2) + "\n"


# Reading -----------------------------------------------------------------------------------------------------------------


def shipped_experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(item.name[:-5] for item in _shipped_folder().iterdir() if item.name.endswith(".json") and item.name != "schema.json")


def load_experiment(source: str | os.PathLike[str], overrides: Iterable[str] = (), demo: bool = False) -> Experiment:
    """Reads, inherits, overrides and validates.

    Args:
        source: path of a JSON file, or the bare name of a shipped experiment.
        overrides: `"KEY=VALUE"` texts; KEY is a dotted path, VALUE is JSON (bare words are strings).
        demo: apply the file's own `demo` overrides, before `overrides`.

    Raises:
        UserError: with every problem, each with its JSON path, the value found and the nearest valid key.
    """
    path = _locate(source)
    values = _inherit(path, ())
    if demo:
        for key, value in dict(values.get("demo") or {}).items():
            _assign(values, key, value)
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes KEY=VALUE, for example train.epochs=2; got '{text}'.")
        _assign(values, key, _parse_value(raw))
    return validate(values, f"{path}")


def validate(values: Mapping[str, Any], source: str) -> Experiment:
    """The experiment in `values`; a UserError lists every problem at once."""
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise UserError(f"{source}: {count} in the experiment:\n" + "\n".join(f"  - {line}" for line in lines)) from None


def _shipped_folder() -> Any:
    installed = importlib.resources.files("keras_skin").joinpath("experiments")
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "experiments"


def _locate(source: str | os.PathLike[str]) -> Any:
    path = Path(source)
    if path.is_file():
        return path
    bare = path.name == str(source)
    if bare:
        candidate = _shipped_folder().joinpath(f"{path.name.removesuffix('.json')}.json")
        if candidate.is_file():
            return candidate
    known = shipped_experiments()
    raise UserError(f"There is no experiment file '{source}'.{did_you_mean(path.name.removesuffix('.json'), known)}\n"
                    f"Shipped experiments (usable by bare name): {', '.join(known)}.")


def _inherit(path: Any, seen: tuple[str, ...]) -> dict[str, Any]:
    if str(path) in seen:
        raise UserError(f"'extends' goes round in a circle: {' -> '.join((*seen, str(path)))}.")
    values = _read_json(path)
    parent = values.get("extends")
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise UserError(f"{path}: 'extends' must be a file name, got {parent!r}.")
    beside = Path(str(path)).parent / parent
    source = beside if beside.is_file() else _locate(parent)
    return _merge(_inherit(source, (*seen, str(path))), values)


def _read_json(path: Any) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: an experiment is a JSON object, this file holds a {type(values).__name__}.")
    return values


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"key given twice in one object: {', '.join(twice)}.")
    return dict(pairs)


def _merge(parent: Any, child: Any) -> Any:
    """Child over parent; objects are merged key by key, unless they are components with different names."""
    if not (isinstance(parent, dict) and isinstance(child, dict)):
        return child
    if "name" in child and child["name"] != parent.get("name"):
        return child
    # published results belong to one row of one table: a child's never mix with its parent's
    return {**parent, **{key: value if key == "results" else _merge(parent.get(key), value) for key, value in child.items()}}


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets the dotted path `key`; numbers in the path address list items."""
    *parents, last = key.split(".")
    place: Any = values
    for i, part in enumerate(parents):
        if isinstance(place, list):
            place = place[_list_index(place, part, key)]
        else:
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        if not isinstance(place, dict | list):
            raise UserError(f"--set {key}: '{'.'.join(parents[: i + 1])}' is {place!r}, which has no keys.")
    if isinstance(place, list):
        place[_list_index(place, last, key)] = value
    elif isinstance(value, dict) and isinstance(place.get(last), dict):
        place[last] = _merge(place[last], value)
    else:
        place[last] = value


def _list_index(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise UserError(f"--set {key}: '{part}' is not a place in a list of {len(items)} (they count from 0).")
    return int(part)


# Messages ----------------------------------------------------------------------------------------------------------------


def _explain(problem: Any) -> str:
    location = [part for part in problem["loc"] if part != "[key]"]
    where = ".".join(map(str, location)) or "(whole file)"
    found = json.dumps(problem["input"], default=str)
    found = found if len(found) <= 80 else found[:77] + "..."
    if problem["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        return f"{where} = {found}: unknown key.{did_you_mean(str(location[-1]), known)} Valid here: {', '.join(known)}."
    if problem["type"] == "missing":
        return f"{where}: missing; it has no default."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{where} = {found}: {message[:1].lower() + message[1:]}." if problem["type"] != "value_error" else f"{where}: {message}."


def _keys_at(location: list[Any]) -> list[str]:
    block: Any = Experiment
    for part in location:
        if isinstance(part, int):
            continue
        field = block.model_fields.get(part) if isinstance(block, type) and issubclass(block, Settings) else None
        block = _settings_in(field.annotation) if field is not None else block
        if block is None:
            return []
    return sorted(field.alias or name for name, field in block.model_fields.items())


def _settings_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _settings_in(part)) is not None), None)


# Schema ------------------------------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """JSON Schema of an experiment file, with the arguments of every registered component, for editors."""
    schema = Experiment.model_json_schema(by_alias=True)
    schema["title"] = "keras_skin experiment"
    schema.pop("required", None)  # a child file may leave to its parent what is required of the whole
    for kind, block in (("model", "ModelSettings"), ("loss", "LossSettings"), ("data set", "DatasetSettings"),
                        ("augmentation", "AugmentationSettings"), ("preprocessing", "PreprocessingSettings")):
        _describe_components(schema["$defs"][block], kind)
    return schema


def _describe_components(block: dict[str, Any], kind: str) -> None:
    registry, reserved = REGISTRIES[kind]
    block["properties"]["name"] = {"enum": registry.names(), "description": f"Name of the {kind}."}
    block.pop("required", None)
    own = block["properties"]
    cases = []
    for name in registry.names():
        arguments = {key: ({"enum": choices} if choices else {})
                     for key, choices in registry.parameters(name).items() if key not in reserved and key not in own}
        cases.append({"if": {"properties": {"name": {"const": name}}, "required": ["name"]},
                      "then": {"properties": {**dict.fromkeys(own, True), **arguments}, "additionalProperties": False}})
    block["allOf"] = cases
    block["additionalProperties"] = True

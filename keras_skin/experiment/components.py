"""The blocks of an experiment that name a registered component, with the arguments that it takes."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from keras_skin.registry import Registry, did_you_mean

FROM_DATA = ("metadata_width", "metadata_fields", "class_counts")
"""Arguments of builders that the training part decides on."""

REGISTRIES = {
    "model": (Registry("model", "keras_skin.models"), ("image_size", "classes", *FROM_DATA)),
    "data set": (Registry("data set", "keras_skin.data.datasets.readers"), ("folder",)),
    "loss": (Registry("loss", "keras_skin.losses"), ("class_weights", "reduction", "name", "dtype")),
    "augmentation": (Registry("augmentation", "keras_skin.data.pipeline.augment"), ()),
    "batch augmentation": (Registry("batch augmentation", "keras_skin.data.pipeline.batch_augment"), ()),
    "balancing": (Registry("balancing", "keras_skin.data.pipeline.balance"), ("labels", "seed")),
    "preprocessing": (Registry("preprocessing", "keras_skin.data.images.preprocess"), ()),
}
"""For each kind of component its registry, and the arguments that the program itself passes."""


class Settings(BaseModel):
    """Base of all blocks: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Component(Settings):
    """A registered component and its arguments; `kind` says in which registry it is looked up."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    kind: ClassVar[str]
    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the JSON says beside the declared fields, to be passed on to the component."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _known(self) -> Self:
        """Raises one ValueError that names every unknown argument."""
        registry, reserved = REGISTRIES[self.kind]
        if self.name not in registry.names():
            raise ValueError(
                f"there is no {self.kind} '{self.name}'.{did_you_mean(self.name, registry.names())} "
                f"Known: {', '.join(registry.names())}"
            )
        allowed = {key: choices for key, choices in registry.parameters(self.name).items() if key not in reserved}
        problems = []
        for key, value in self.arguments.items():
            if key not in allowed:
                known = sorted(set(allowed) | set(type(self).model_fields))
                problems.append(
                    f"{self.kind} '{self.name}' takes no '{key}' (value {value!r}).{did_you_mean(key, known)} "
                    f"Valid: {', '.join(known)}"
                )
            elif allowed[key] and isinstance(value, str) and value not in allowed[key]:
                problems.append(f"'{key}' is {value!r}.{did_you_mean(value, allowed[key])} Valid: {', '.join(allowed[key])}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ModelSettings(Component):
    """The model and its builder's arguments."""

    kind: ClassVar[str] = "model"


class LossSettings(Component):
    """The loss of one output; `weight` is its share in the total."""

    kind: ClassVar[str] = "loss"

    weight: float = Field(1.0, ge=0.0)


class AugmentationSettings(Component):
    """How training images are changed, and how often each class is seen in an epoch."""

    kind: ClassVar[str] = "augmentation"


class BatchAugmentationSettings(Component):
    """How whole batches are changed after that, by the device that trains."""

    kind: ClassVar[str] = "batch augmentation"


class BalancingSettings(Component):
    """What an epoch draws from: the training part resampled, and nothing else. `class_weights` weighs the label loss by inverse
    class frequency of the training part, beside that or instead. (The augmentation `jrl_16` balances by itself.)"""

    kind: ClassVar[str] = "balancing"

    name: str = "none"
    class_weights: bool = False


class DatasetSettings(Component):
    """A data set on disk. `folder` (relative to --data, or absolute) where it does not lie under its usual name;
    `labels` keeps images of these classes only, `parts` those of these official parts (`["validation"]`); `optional`: go on
    without it where it is missing, and say so."""

    kind: ClassVar[str] = "data set"

    folder: str | None = None
    labels: list[str] | None = None
    parts: list[str] | None = None
    optional: bool = False


class PreprocessingSettings(Component):
    """One operation on the resized image, in training, evaluation and the exported model alike."""

    kind: ClassVar[str] = "preprocessing"

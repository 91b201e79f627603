"""The blocks of an experiment that name a registered component and its arguments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from keras_skin.registry import Registry, clipped, did_you_mean

_NAMED = 20
"""Most unknown arguments that a message names."""
FROM_DATA = ("metadata_width", "metadata_fields", "class_counts")
"""Arguments of builders that come from the training split."""

REGISTRIES = {
    "model": (Registry("model", "keras_skin.models"), ("image_size", "classes", *FROM_DATA)),
    "data set": (Registry("data set", "keras_skin.data.datasets.readers"), ("folder",)),
    "loss": (Registry("loss", "keras_skin.losses"), ("class_weights", "reduction", "name", "dtype")),
    "augmentation": (Registry("augmentation", "keras_skin.data.pipeline.augment"), ()),
    "batch augmentation": (Registry("batch augmentation", "keras_skin.data.pipeline.batch_augment"), ()),
    "balancing": (Registry("balancing", "keras_skin.data.pipeline.balance"), ("labels", "seed")),
    "preprocessing": (Registry("preprocessing", "keras_skin.data.images.preprocess"), ()),
}
"""For each kind of component its registry and the arguments that the package passes itself."""


class Settings(BaseModel):
    """Base of all blocks: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Component(Settings):
    """A registered component and its arguments; `kind` names the registry."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    kind: ClassVar[str]
    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys beside the declared fields, which are passed to the component."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _check_arguments(self) -> Self:
        """Raises one ValueError that names the unknown arguments."""
        registry, reserved = REGISTRIES[self.kind]
        if self.name not in registry.names():
            raise ValueError(
                f"there is no {self.kind} '{clipped(self.name)}'.{did_you_mean(self.name, registry.names())} "
                f"Known: {', '.join(registry.names())}"
            )
        allowed = {key: choices for key, choices in registry.parameters(self.name).items() if key not in reserved}
        problems = list(islice(self._argument_problems(allowed), _NAMED))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _argument_problems(self, allowed: dict[str, list[str]]) -> Iterator[str]:
        for key, value in self.arguments.items():
            if key not in allowed:
                valid = sorted(set(allowed) | set(type(self).model_fields))
                yield (
                    f"{self.kind} '{self.name}' takes no '{clipped(key)}' (value {clipped(repr(value))})."
                    f"{did_you_mean(key, valid)} Valid: {', '.join(valid)}"
                )
            elif allowed[key] and isinstance(value, str) and value not in allowed[key]:
                yield f"'{key}' is {clipped(repr(value))}.{did_you_mean(value, allowed[key])} Valid: {', '.join(allowed[key])}"


class ModelSettings(Component):
    """The model and its builder's arguments. `init` names a preset or a finished run whose weights the training starts from."""

    kind: ClassVar[str] = "model"

    init: str | None = None


class LossSettings(Component):
    """The loss of one output; `weight` multiplies it in the total loss."""

    kind: ClassVar[str] = "loss"

    weight: float = Field(1.0, ge=0.0)


class AugmentationSettings(Component):
    """How training images are augmented."""

    kind: ClassVar[str] = "augmentation"


class BatchAugmentationSettings(Component):
    """How whole batches are augmented afterwards, on the training device."""

    kind: ClassVar[str] = "batch augmentation"


class BalancingSettings(Component):
    """How the training split is resampled for an epoch. `class_weights` weights the label loss by the inverse class frequency of
    the training split, with or without resampling. (The augmentation `jrl_16` balances by itself.)"""

    kind: ClassVar[str] = "balancing"

    name: str = "none"
    class_weights: bool = False


class DatasetSettings(Component):
    """A data set on disk. `folder` (relative to --data, or absolute) is needed if it does not have its usual name; `labels`
    selects images of these classes, `parts` those of these official splits (`["validation"]`); `optional`, for
    extra_train and external: if it is missing, continue without it and report it; `without`: what the experiment is then called
    (`"MTL3, not MTL4"`)."""

    kind: ClassVar[str] = "data set"

    folder: str | None = None
    labels: list[str] | None = None
    parts: list[str] | None = None
    optional: bool = False
    without: str | None = None


class PreprocessingSettings(Component):
    """One operation on the resized image, applied in training, evaluation and the exported model."""

    kind: ClassVar[str] = "preprocessing"

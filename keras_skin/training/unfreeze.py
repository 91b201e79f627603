"""Trains a pretrained backbone at a lower rate than the rest of the model: frozen at first, then unfrozen stage by stage.

A stage is the set of layers before the feature layer `encoder_k` of a model that are not before `encoder_(k-1)`. Layers after the
last feature layer (decoders, classifiers) train from the start. A prefix (`image_encoder_3`) names each backbone of a model with
several; their deepest stages unfreeze together.

The frozen layers are a function of the epoch alone, and the optimizer holds every variable from the start. So a resume needs only
the run state.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import keras

from keras_skin.registry import UserError

logger = logging.getLogger("keras_skin.training")

_FEATURES = re.compile(r"(.*?)encoder_(\d+)")


@dataclass(frozen=True)
class UnfreezePlan:
    """When each stage of a backbone is trained, and at which rate.

    Args:
        rate: factor on the learning rate of the backbone's variables (and on their decoupled weight decay), above 0, at most 1.
        frozen_epochs: epochs in which the whole backbone is frozen; then the deepest stage unfreezes.
        stage_epochs: epochs between two stages; 0 unfreezes all stages together.
    """

    rate: float = 1.0
    frozen_epochs: int = 0
    stage_epochs: int = 0

    def first_epoch(self, rank: int) -> int:
        """Returns the first epoch (from 0) in which a stage is trained; rank 0 is the deepest stage."""
        return self.frozen_epochs + rank * self.stage_epochs


def backbone_stages(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """Returns the layers with weights of each stage, deepest stage first; stages of several backbones are joined.

    Raises:
        UserError: if the model has no feature layers.
    """
    numbers: dict[str, list[int]] = {}
    for layer in model.layers:
        if match := _FEATURES.fullmatch(layer.name):
            numbers.setdefault(match[1], []).append(int(match[2]))
    if not numbers:
        raise UserError(f"Model '{model.name}' has no feature layers encoder_1, encoder_2..., so there is no backbone to freeze.")
    stages: list[list[keras.layers.Layer]] = [[] for _ in range(max(map(len, numbers.values())))]
    for prefix, backbone in numbers.items():
        earlier: set[str] = set()
        for rank, number in zip(range(len(backbone) - 1, -1, -1), sorted(backbone), strict=True):
            layers = keras.Model(model.input, model.get_layer(f"{prefix}encoder_{number}").output).layers
            stages[rank] += [layer for layer in layers if layer.weights and layer.name not in earlier]
            earlier |= {layer.name for layer in layers}
    return stages


class Unfreezing(keras.callbacks.Callback):
    """Freezes the stages of a backbone and unfreezes each at its epoch.

    A frozen stage gets no gradients, and its batch normalisations use their moving statistics, which do not change.

    Args:
        stages: as `backbone_stages` returns them.
        plan: when each of them is trained.
    """

    def __init__(self, stages: list[list[keras.layers.Layer]], plan: UnfreezePlan) -> None:
        super().__init__()
        self.stages = stages
        self.plan = plan

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Freezes and unfreezes the stages of this epoch."""
        self._train_stages(sum(self.plan.first_epoch(rank) <= epoch for rank in range(len(self.stages))))

    def on_train_end(self, logs: Any = None) -> None:
        """Unfreezes all stages."""
        self._train_stages(len(self.stages))

    def _train_stages(self, count: int) -> None:
        trainable = [(layer, rank < count) for rank, layers in enumerate(self.stages) for layer in layers]
        if all(layer.trainable == value for layer, value in trainable):
            return
        for layer, value in trainable:
            layer.trainable = value
        # The traced step would train the variables that were trainable at its tracing.
        self.model.make_train_function(force=True)
        logger.info(f"backbone: {count} of {len(self.stages)} stages are trained, the deepest first")


def train_gently(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, plan: UnfreezePlan, steps: int
) -> tuple[keras.optimizers.Optimizer, Unfreezing]:
    """Returns the optimizer and the callback for training a model's backbone as planned.

    Args:
        model: a model with feature layers; it does not change yet.
        optimizer: an optimizer that is not built yet.
        plan: the rate, and when each stage is trained.
        steps: steps per epoch.

    Returns:
        An optimizer of the same class and settings, to compile the model with, and a callback for `fit`.

    Raises:
        UserError: if the model has no feature layers.
    """
    stages = backbone_stages(model)
    ranks = {
        variable.path: rank for rank, layers in enumerate(stages) for layer in layers for variable in layer.trainable_variables
    }
    return _with_rates(optimizer, ranks, plan, steps), Unfreezing(stages, plan)


def _with_rates(
    optimizer: keras.optimizers.Optimizer, ranks: dict[str, int], plan: UnfreezePlan, steps: int
) -> keras.optimizers.Optimizer:
    kind: Any = type(optimizer)

    class WithRates(kind):
        """Scales the steps of a backbone's variables; counts their iterations from the start of their stage."""

        weight_decay: Any
        _offset = 0

        def build(self, variables: list[keras.Variable]) -> None:
            self._ranks = [ranks.get(variable.path) for variable in variables]
            super().build(variables)

        @property
        def iterations(self) -> Any:
            # Adam's bias correction must count from the start of the stage, or the first hundred steps of an unfrozen stage are
            # three to six times too long.
            return keras.ops.maximum(super().iterations - self._offset, 0) if self._offset else super().iterations

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            rank = self._ranks[self._get_variable_index(variable)]
            if rank is None:
                return super().update_step(gradient, variable, learning_rate)
            self._offset = plan.first_epoch(rank) * steps // (self.gradient_accumulation_steps or 1)
            super().update_step(gradient, variable, learning_rate * plan.rate)
            self._offset = 0

        def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
            if self.weight_decay is None:
                return
            backbone = [variable for variable in variables if self._ranks[self._get_variable_index(variable)] is not None]
            others = [variable for variable in variables if self._ranks[self._get_variable_index(variable)] is None]
            super()._apply_weight_decay(others)
            decay, self.weight_decay = self.weight_decay, self.weight_decay * plan.rate
            super()._apply_weight_decay(backbone)
            self.weight_decay = decay

    WithRates.__name__ = kind.__name__
    return WithRates.from_config(optimizer.get_config())

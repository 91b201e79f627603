"""Training a pretrained backbone gently: at a lower rate than the rest, and frozen at first, then unfrozen stage by stage.

A stage is everything that leads to the feature layer `encoder_k` of a model and not yet to `encoder_(k-1)`; whatever lies behind
the last of them (decoders, classifiers) trains from the beginning. A prefix (`image_encoder_3`) tells the backbones of a model
apart; their deepest stages thaw together.

What is frozen is a function of the epoch alone, and every variable has its place in the optimizer from the start, so that a
resume needs nothing beyond the run state.
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
class Thaw:
    """When which stage of a backbone is trained, and how fast.

    Args:
        rate: factor on the learning rate of the backbone's variables (and on their decoupled weight decay), above 0, at most 1.
        frozen_epochs: epochs in which the whole backbone is frozen; then the deepest stage thaws.
        stage_epochs: epochs from one stage's thaw to the next's; 0 thaws all stages together.

    Raises:
        UserError: naming every value that is out of range.
    """

    rate: float = 1.0
    frozen_epochs: int = 0
    stage_epochs: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value}, expected 0 or more"
            for name, value in (("frozen_epochs", self.frozen_epochs), ("stage_epochs", self.stage_epochs))
            if value < 0
        ]
        if not 0 < self.rate <= 1:
            problems.append(f"rate is {self.rate}, expected above 0 and at most 1 (frozen_epochs keeps a backbone frozen)")
        if problems:
            raise UserError("The training of the backbone: " + "; ".join(problems) + ".")

    def begin(self, rank: int) -> int:
        """The first epoch (from 0) in which a stage is trained; rank 0 is the deepest."""
        return self.frozen_epochs + rank * self.stage_epochs


def backbone_stages(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers with weights of every backbone's stages, deepest first.

    Raises:
        UserError: if the model has no feature layers.
    """
    numbers: dict[str, list[int]] = {}
    for layer in model.layers:
        if match := _FEATURES.fullmatch(layer.name):
            numbers.setdefault(match[1], []).append(int(match[2]))
    if not numbers:
        raise UserError(f"Model '{model.name}' has no feature layers encoder_1, encoder_2...: there is no backbone to freeze.")
    stages: list[list[keras.layers.Layer]] = [[] for _ in range(max(map(len, numbers.values())))]
    for prefix, found in numbers.items():
        seen: set[str] = set()
        for rank, number in zip(range(len(found) - 1, -1, -1), sorted(found), strict=True):
            leading = keras.Model(model.input, model.get_layer(f"{prefix}encoder_{number}").output).layers
            stages[rank] += [layer for layer in leading if layer.weights and layer.name not in seen]
            seen |= {layer.name for layer in leading}
    return stages


class Unfreezing(keras.callbacks.Callback):
    """Freezes the stages of a backbone and thaws them when their time has come.

    A frozen stage gets no gradients and its batch normalisations use their moving statistics, which do not move.

    Args:
        stages: as `backbone_stages` returns them.
        thaw: when which of them is trained.
    """

    def __init__(self, stages: list[list[keras.layers.Layer]], thaw: Thaw) -> None:
        super().__init__()
        self.stages = stages
        self.thaw = thaw

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Freezes and thaws; the training step is traced anew where that changes anything."""
        self._train_ranks(sum(self.thaw.begin(rank) <= epoch for rank in range(len(self.stages))))

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves nothing frozen behind."""
        self._train_ranks(len(self.stages))

    def _train_ranks(self, count: int) -> None:
        wanted = {id(layer): rank < count for rank, layers in enumerate(self.stages) for layer in layers}
        layers = [layer for stage in self.stages for layer in stage]
        if all(layer.trainable == wanted[id(layer)] for layer in layers):
            return
        for layer in layers:
            layer.trainable = wanted[id(layer)]
        # A traced step keeps the variables that were trainable when it was traced.
        self.model.make_train_function(force=True)
        logger.info(f"backbone: {count} of {len(self.stages)} stages are trained, the deepest first")


def train_gently(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, thaw: Thaw, steps: int
) -> tuple[keras.optimizers.Optimizer, Unfreezing]:
    """What it takes to train a model's backbone as `thaw` says.

    Args:
        model: a model with feature layers; nothing of it is changed yet.
        optimizer: an optimizer that is not built yet.
        thaw: the settings.
        steps: steps of an epoch.

    Returns:
        An optimizer of the same kind and settings, to compile the model with, and a callback for `fit`.

    Raises:
        UserError: if the model has no feature layers.
    """
    stages = backbone_stages(model)
    ranks = {
        variable.path: rank for rank, layers in enumerate(stages) for layer in layers for variable in layer.trainable_variables
    }
    return _with_rates(optimizer, ranks, thaw, steps), Unfreezing(stages, thaw)


def _with_rates(
    optimizer: keras.optimizers.Optimizer, ranks: dict[str, int], thaw: Thaw, steps: int
) -> keras.optimizers.Optimizer:
    kind: Any = type(optimizer)

    class WithRates(kind):
        """Scales the steps of a backbone's variables; counts their iterations from their stage's thaw."""

        weight_decay: Any
        _before_thaw = 0

        def build(self, variables: list[keras.Variable]) -> None:
            self._ranks = [ranks.get(variable.path) for variable in variables]
            super().build(variables)

        @property
        def iterations(self) -> Any:
            # Adam's bias correction: moments that begin at zero late must not be taken for settled ones, or the first hundred
            # steps of a thawed stage are three to six times too long.
            return keras.ops.maximum(super().iterations - self._before_thaw, 0) if self._before_thaw else super().iterations

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            rank = self._ranks[self._get_variable_index(variable)]
            if rank is None:
                return super().update_step(gradient, variable, learning_rate)
            self._before_thaw = thaw.begin(rank) * steps // (self.gradient_accumulation_steps or 1)
            super().update_step(gradient, variable, learning_rate * thaw.rate)
            self._before_thaw = 0

        def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
            if self.weight_decay is None:
                return
            mine = [variable for variable in variables if self._ranks[self._get_variable_index(variable)] is not None]
            others = [variable for variable in variables if self._ranks[self._get_variable_index(variable)] is None]
            super()._apply_weight_decay(others)
            decay, self.weight_decay = self.weight_decay, self.weight_decay * thaw.rate
            super()._apply_weight_decay(mine)
            self.weight_decay = decay

    WithRates.__name__ = kind.__name__
    return WithRates.from_config(optimizer.get_config())

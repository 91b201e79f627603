"""Coupled L2 regularisation as in PyTorch's optimizers: part of the gradient, before the moments."""

from __future__ import annotations

from typing import Any

import keras


def coupled_l2(optimizer: type[keras.optimizers.Optimizer], l2: float, **arguments: Any) -> keras.optimizers.Optimizer:
    """Returns an optimizer that adds `l2` times the weights to their gradients, as `weight_decay` of PyTorch's Adam and SGD does.

    Keras' `weight_decay` is decoupled: it shrinks the weights outside the step. With Adam the two differ much, because the
    coupled decay is divided by the root of the second moment. As in PyTorch, all weights decay, including biases and those of
    batch normalisations, after clipping.

    Args:
        optimizer: class of the optimizer.
        l2: factor, 0 or more.
        arguments: further arguments of the class.
    """
    base: Any = optimizer

    class CoupledL2(base):
        def __init__(self, l2: float, **settings: Any) -> None:
            super().__init__(**settings)
            self.l2 = l2

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            decay = keras.ops.cast(self.l2, variable.dtype) * keras.ops.convert_to_tensor(variable)
            super().update_step(keras.ops.cast(gradient, variable.dtype) + decay, variable, learning_rate)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "l2": self.l2}

    CoupledL2.__name__ = optimizer.__name__
    return CoupledL2(l2, **arguments)

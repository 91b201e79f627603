"""The reverse joint connection from a classifier to a segmentation decoder."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

GATES = ("relu", "sigmoid")


@keras.saving.register_keras_serializable(package="keras_skin")
class ReverseJointGate(keras.layers.Layer):
    """Weights the channels of feature maps by the activations of a dense layer with one unit per channel.

    Source: Al-masni et al., Bioengineering 2024, 11, 1173, section 3.4.2, equation 2: the bracket [X . FC_cls] of
    X_L = ReLU(W * [X_{L-1} . FC_cls] + b).

    Args:
        gate: `"relu"` as in the paper, or `"sigmoid"`, which never sets a channel to zero, as an inactive ReLU unit does.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: pair of feature maps (B, H, W, C) and the dense layer's values *before* its activation (B, C).

    Returns:
        Feature maps (B, H, W, C).

    Raises:
        ValueError: if the gate is unknown, or the two inputs differ in C.

    **Deviations from the paper**: the text calls the product a dot product and FC_cls "the weights"; dimensions allow only a
    channel-wise product with the layer's activations.
    """

    def __init__(self, gate: str = "relu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}; it is {gate!r}.")
        self.gate = gate

    def build(self, input_shape: Any) -> None:
        features, units = input_shape
        if len(features) != 4 or len(units) != 2 or features[-1] != units[-1]:
            raise ValueError(
                f"ReverseJointGate '{self.name}' needs feature maps (B, H, W, C) and units (B, C); "
                f"the shapes are {tuple(features)} and {tuple(units)}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        features, units = inputs
        weights = ops.relu(units) if self.gate == "relu" else ops.sigmoid(units)
        return features * weights[:, None, None, :]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gate": self.gate}

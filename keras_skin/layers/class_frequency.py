"""Two dense layers with a stronger penalty on the weights of rarer classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

HIDDEN_COEFFICIENTS = ("outgoing", "uniform")
_EPSILON = 1e-7


@keras.saving.register_keras_serializable(package="keras_skin")
class ClassFrequencyClassifier(keras.layers.Layer):
    """A hidden dense layer with ReLU and the class logits, with class-frequency regularisation of both kernels.

    Source: Khurshid et al., Sci. Rep. 2025 (DualRefNet), equation 4: the penalty is
    sum_i f_i |W_before,i|_1 + sum_j f_j |W_cls,j|_1, with f_c = 1 / n_c for a class of n_c training images, not normalised. W_i
    is the kernel of unit i, without its bias.

    Create the layer with `dtype="float32"`, so that logits and penalty are float32 under any precision policy.

    Args:
        classes: number of logits.
        hidden_units: width of the hidden layer, 256 in the paper.
        strength: the penalty's weight in the model's loss (the paper's gamma times lambda), 0 or more; 0 is without penalty.
        class_counts: training images of each class, in the order of the logits; required where `strength` is positive. For a
            class without images, f_c is 0.
        hidden_coefficient: f_i of a hidden unit. `"outgoing"`: the mean of f_c over the classes, weighted by the absolute weights
            from the unit to each class, without a gradient through them; `"uniform"`: the mean of f_c for every unit.
        **kwargs: base layer arguments.

    Call arguments:
        inputs: fused features (B, D).

    Returns:
        Logits (B, classes).

    Raises:
        ValueError: if an argument is out of range.

    **Deviations from the paper**: the paper calls f_i "class-specific" for the 256 hidden units, too, but a hidden unit
    belongs to no class. `hidden_coefficient` has two interpretations.
    """

    def __init__(
        self,
        classes: int,
        hidden_units: int = 256,
        strength: float = 0.0,
        class_counts: Sequence[int] | None = None,
        hidden_coefficient: str = "outgoing",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if strength < 0:
            raise ValueError(f"strength is {strength}, expected 0 or more.")
        if hidden_coefficient not in HIDDEN_COEFFICIENTS:
            raise ValueError(f"hidden_coefficient is {hidden_coefficient!r}, expected one of {', '.join(HIDDEN_COEFFICIENTS)}.")
        counts = None if class_counts is None else [int(count) for count in class_counts]
        if strength and (counts is None or len(counts) != classes or min(counts) < 0 or not any(counts)):
            raise ValueError(
                f"class_counts is {counts}, expected {classes} numbers, not all 0: the training images of each class."
            )
        self.classes = classes
        self.hidden_units = hidden_units
        self.strength = strength
        self.class_counts = counts
        self.hidden_coefficient = hidden_coefficient

    def build(self, input_shape: Any) -> None:
        self.hidden = keras.layers.Dense(
            self.hidden_units, activation="relu", kernel_initializer="he_normal", name="hidden", dtype=self.dtype_policy
        )
        self.logits = keras.layers.Dense(self.classes, name="logits", dtype=self.dtype_policy)
        self.hidden.build(input_shape)
        self.logits.build((None, self.hidden_units))
        self.built = True

    def call(self, inputs: Any) -> Any:
        if self.strength:
            self.add_loss(self.strength * self.penalty())
        return self.logits(self.hidden(inputs))

    def penalty(self) -> Any:
        """Returns equation 4 without lambda, a float32 scalar."""
        # Each kernel is read once. TensorFlow may run a second read, which no gradient needs, after the step's update.
        hidden, classifier = (ops.cast(ops.convert_to_tensor(layer.kernel), "float32") for layer in (self.hidden, self.logits))
        penalties = self.hidden_coefficients(classifier) * ops.sum(ops.abs(hidden), axis=0)
        return ops.sum(penalties) + ops.sum(self.class_coefficients() * ops.sum(ops.abs(classifier), axis=0))

    def class_coefficients(self) -> Any:
        """Returns f_c of the classes, (classes,) float32."""
        return ops.convert_to_tensor([1 / count if count else 0.0 for count in self.class_counts or ()], dtype="float32")

    def hidden_coefficients(self, classifier: Any) -> Any:
        """Returns f_i of the hidden units, (hidden_units,) float32, from the classifier's kernel (hidden_units, classes)."""
        coefficients = self.class_coefficients()
        if self.hidden_coefficient == "uniform":
            return ops.broadcast_to(ops.mean(coefficients), (self.hidden_units,))
        outgoing = ops.stop_gradient(ops.abs(classifier))
        return ops.sum(outgoing * coefficients, axis=1) / (ops.sum(outgoing, axis=1) + _EPSILON)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0], self.classes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "classes": self.classes,
            "hidden_units": self.hidden_units,
            "strength": self.strength,
            "class_counts": self.class_counts,
            "hidden_coefficient": self.hidden_coefficient,
        }

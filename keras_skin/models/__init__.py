"""The models of the package, by name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from keras_skin.registry import Registry, UserError, did_you_mean

if TYPE_CHECKING:
    import keras

registry = Registry("model", "keras_skin.models")
register, get, names = registry.register, registry.get, registry.names


def create_model(name: str, **arguments: Any) -> keras.Model:
    """Builds a model by its name.

    Args:
        name: one of `names()`.
        **arguments: arguments of its builder; all builders take `image_size=(height, width)` and `classes`.

    Returns:
        A functional model from {"image": (B, H, W, 3) float32 RGB in 0..255} to a dictionary of float32 logits.

    Raises:
        UserError: if there is no such model, or it has no such argument.
    """
    builder = get(name).builder
    parameters = inspect.signature(builder).parameters
    unknown = sorted(set(arguments) - set(parameters))
    if unknown:
        raise UserError(
            " ".join(f"Model '{name}' has no argument '{word}'.{did_you_mean(word, parameters)}" for word in unknown)
            + f" Its arguments: {', '.join(parameters)}."
        )
    return builder(**arguments)

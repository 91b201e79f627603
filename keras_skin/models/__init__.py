"""The models of the package.

    from keras_skin.models import JRL

    model = JRL(image_size=(192, 256), variant="mtl2")

`create_model("jrl", variant="mtl2")` builds the same model by its registered name, the one that experiment files use, and checks
its arguments. `list_models()` lists the registered names.

Builders are written in capitals (`ResNet50`) because their modules have the registered names (`resnet50`), as in
`keras.applications`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from keras_skin.registry import Registry, UserError, did_you_mean, lazy_names

if TYPE_CHECKING:
    import keras

registry = Registry("model", "keras_skin.models")
register, get, names = registry.register, registry.get, registry.names

__all__ = ["create_model", "list_models", *registry.builders]
__getattr__ = lazy_names(__name__, registry.builders)


def list_models() -> list[str]:
    """Returns the names of all models, sorted. Imports neither Keras nor TensorFlow."""
    return names()


def create_model(name: str, **arguments: Any) -> keras.Model:
    """Builds a model by its registered name.

    Args:
        name: one of `list_models()`.
        **arguments: arguments of the builder. All builders take `image_size=(height, width)` and `classes`.

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

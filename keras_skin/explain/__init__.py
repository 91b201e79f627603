"""Explanations of single predictions: heat maps, pictures of them, and the callback that writes both after a fit."""

from keras_skin.registry import lazy_names

_MODULES = {
    "ExplainCallback": "callback",
    "Explanations": "callback",
}
__all__ = ["ExplainCallback", "Explanations"]
__getattr__ = lazy_names(__name__, _MODULES)

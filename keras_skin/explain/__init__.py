"""Explanations of single predictions: heat maps, the pictures drawn from them, and the callback that writes both after a fit."""

from keras_skin.registry import lazy_names

_MODULES = {
    "ExplainCallback": "callback",
    "Explanations": "callback",
}
__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)

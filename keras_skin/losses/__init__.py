"""The losses of the package. `target` in the registry is the output of each: "mask", "label" or "super_resolution"."""

from keras_skin.registry import Registry, lazy_names

registry = Registry("loss", "keras_skin.losses")
register, get, names = registry.register, registry.get, registry.names

__all__ = [*registry.builders]
__getattr__ = lazy_names(__name__, registry.builders)

"""The metrics of the package. `target` in the registry is the output that a metric is for: "mask" or "label"."""

from keras_skin.registry import Registry, lazy_names

registry = Registry("metric", "keras_skin.metrics")
register, get, names = registry.register, registry.get, registry.names

__all__ = [*registry.builders]
__getattr__ = lazy_names(__name__, registry.builders)

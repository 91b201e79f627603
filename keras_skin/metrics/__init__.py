"""The metrics of the package, by name."""

from keras_skin.registry import Registry

registry = Registry("metric", "keras_skin.metrics")
register, get, names = registry.register, registry.get, registry.names

"""The models of the package, by name."""

from keras_skin.registry import Registry

registry = Registry("model", "keras_skin.models")
register, get, names = registry.register, registry.get, registry.names

"""The losses of the package, by name."""

from keras_skin.registry import Registry

registry = Registry("loss", "keras_skin.losses")
register, get, names = registry.register, registry.get, registry.names

"""The losses of the package, by name; `target` in their information is the kind of output they are for: "mask" or "label"."""

from keras_skin.registry import Registry

registry = Registry("loss", "keras_skin.losses")
register, get, names = registry.register, registry.get, registry.names

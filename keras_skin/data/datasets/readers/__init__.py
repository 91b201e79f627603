"""The data sets the package reads, by name; one file each."""

from keras_skin.registry import Registry

registry = Registry("data set", "keras_skin.data.datasets.readers")
register, get, names = registry.register, registry.get, registry.names

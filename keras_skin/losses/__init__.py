"""The losses of the package. `target` in the registry is the output of each: "mask", "label" or "super_resolution"."""

from keras_skin.registry import Registry, lazy_names

registry = Registry("loss", "keras_skin.losses")
register, get, names = registry.register, registry.get, registry.names

_MODULES = {
    "BinaryCrossentropy": "binary_crossentropy",
    "CategoricalCrossentropy": "categorical_crossentropy",
    "Dice": "dice",
    "DiceBinaryCrossentropy": "dice_binary_crossentropy",
    "Focal": "focal",
    "SuperResolution": "super_resolution",
}
__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)

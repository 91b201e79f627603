"""The metrics of the package, by name; `target` in their information is the kind of output they are for: "mask" or "label"."""

from keras_skin.registry import Registry, lazy_names

registry = Registry("metric", "keras_skin.metrics")
register, get, names = registry.register, registry.get, registry.names

_MODULES = {
    "Accuracy": "accuracy",
    "AUC": "auc",
    "BalancedAccuracy": "balanced_accuracy",
    "DSC": "dsc",
    "F1Weighted": "f1_weighted",
    "IoU": "iou",
}
__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)

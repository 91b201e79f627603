"""The metrics of the package, by name; `target` is the kind of output of each: "mask" or "label"."""

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
__all__ = ["AUC", "DSC", "Accuracy", "BalancedAccuracy", "F1Weighted", "IoU"]
__getattr__ = lazy_names(__name__, _MODULES)

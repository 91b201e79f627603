"""Explanations of single predictions: heat maps, SHAP values of clinical fields, and how faithful they are.

from keras_skin.explain import GradCAM

maps = GradCAM(model)({"image": images})
"""

from keras_skin.registry import lazy_names

_MODULES = {
    "ExplainCallback": "callback",
    "ExplainSample": "samples",
    "Explanations": "callback",
    "GradCAM": "grad_cam",
    "MetadataShap": "shap_values",
    "Saliency": "saliency",
    "ScoreCAM": "score_cam",
    "class_masks": "class_specific",
}
__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)

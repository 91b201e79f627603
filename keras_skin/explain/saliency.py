"""Maps of single pixels and patches: integrated gradients, SmoothGrad and occlusion sensitivity, as tf-explain computes them.

tf-explain needs a model of one input and one output. It gets a view in which the other inputs are constant. Only this module
imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_skin.explain.samples import ExplainSample
from keras_skin.explain.shap_values import image_shap
from keras_skin.explain.views import OneImageView, explained_output, image_names, third_party_explainer
from keras_skin.registry import UserError, did_you_mean

TITLES = {
    "integrated_gradients": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "occlusion": "Occlusion sensitivity",
    "image_shap": "SHAP values of the pixels, those above 0",
}
METHODS = tuple(TITLES)

_STEPS = 20  # integrated gradients: steps from black to the image
_NOISY, _NOISE = 16, 0.1 * 255  # SmoothGrad: number of images, and their noise; its paper uses 10 to 20 % of the range
_PATCHES = 12  # occlusion: patches along the longer side


def check_methods(methods: Sequence[str], model: keras.Model | None = None) -> None:
    """Raises a UserError on unknown methods, and on a model without classes."""
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise UserError(
            f"There is no explanation {', '.join(map(repr, unknown))}.{did_you_mean(unknown[0], METHODS)} "
            f"Valid: {', '.join(METHODS)}."
        )
    if model is not None and methods and explained_output(model) != "label":
        raise UserError(f"The methods {', '.join(methods)} explain a class, and this model has no output 'label'.")


class Saliency:
    """Pixel maps of a class.

    Args:
        model: the model, with an output `label`.
        methods: some of `METHODS`.
        background: for `image_shap`, (R, H, W, 3) training images.
        seed: seed of noise and samples.

    Raises:
        UserError: on an unknown method, a model without classes, or `image_shap` without background.

    **Deviations**: tf-explain's integrated gradients omit the factor (image - black), and so do these. Its occlusion needs square
    images: others are placed on a grey square, and the map is cropped.
    """

    def __init__(self, model: keras.Model, methods: Sequence[str], background: np.ndarray | None = None, seed: int = 0) -> None:
        check_methods(methods, model)
        if "image_shap" in methods and background is None:
            raise UserError("image_shap needs a background: some training images.")
        self.model, self.methods, self.background, self.seed = model, tuple(methods), background, seed
        self._logits = OneImageView(model, probabilities=False)
        self._probabilities = OneImageView(model)
        self.name = image_names(model)[0]

    def __call__(self, sample: ExplainSample, index: int) -> dict[str, np.ndarray]:
        """Returns for each method a map (H, W) float32, >= 0, of the influence of each pixel or patch on class `index`."""
        for view in (self._logits, self._probabilities):
            view.hold(sample.inputs)
        with third_party_explainer(self.seed):
            return {name: getattr(self, f"_{name}")(sample.inputs, index) for name in self.methods}

    def _integrated_gradients(self, inputs: Mapping[str, Any], index: int) -> np.ndarray:
        from tf_explain.core.integrated_gradients import IntegratedGradients

        image = np.asarray(inputs[self.name], np.float32)
        path = IntegratedGradients.generate_interpolations(image[None], _STEPS).astype(np.float32)
        return _strength(IntegratedGradients.get_integrated_gradients(path, self._logits, index, _STEPS))

    def _smoothgrad(self, inputs: Mapping[str, Any], index: int) -> np.ndarray:
        from tf_explain.core.smoothgrad import SmoothGrad

        image = np.asarray(inputs[self.name], np.float32)
        noisy = SmoothGrad.generate_noisy_images(image[None], _NOISY, _NOISE).astype(np.float32)
        return _strength(SmoothGrad.get_averaged_gradients(noisy, self._probabilities, index, _NOISY))

    def _occlusion(self, inputs: Mapping[str, Any], index: int) -> np.ndarray:
        from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity

        image = np.asarray(inputs[self.name], np.float32)
        side = max(image.shape[:2])
        square = np.full((side, side, 3), 127.5, np.float32)
        y, x = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
        window = np.s_[y : y + image.shape[0], x : x + image.shape[1]]
        square[window] = image
        view = _Window(self._probabilities, window)
        losses = OcclusionSensitivity(batch_size=16).get_sensitivity_map(view, square, index, -(-side // _PATCHES))
        loss = 1.0 - float(self._probabilities.predict(image[None])[0, index])
        return np.maximum(losses[window] - loss, 0.0).astype(np.float32)  # the fall of the probability under each patch

    def _image_shap(self, inputs: Mapping[str, Any], index: int) -> np.ndarray:
        assert self.background is not None
        return np.maximum(image_shap(self.model, inputs, self.background, index, seed=self.seed), 0.0)


class _Window:
    """A view that crops its images to a window."""

    def __init__(self, view: OneImageView, window: tuple[slice, slice]) -> None:
        self.view, self.window = view, window

    def predict(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        return self.view.predict(images[:, *self.window], batch_size)


def _strength(gradients: Any) -> np.ndarray:
    """Returns absolute gradients summed over the colours, (H, W) float32 of (1, H, W, 3), as tf-explain draws them."""
    return np.abs(np.asarray(gradients, np.float32)[0]).sum(axis=-1)

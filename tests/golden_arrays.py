"""What keras-cv, tf-explain and albumentations compute for fixed inputs, as keras_skin calls them.

These libraries are no longer developed, or are continued under another licence. `golden_arrays.npz` holds their results, so that
a successor can be put in their place and shown to do the same. Only where a successor draws other random numbers may the cases
with `drawn` in their names be written anew, after a look at them: `python tests/golden_arrays.py`.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_skin.data.pipeline import augment, batch_augment
from keras_skin.explain.saliency import Saliency
from keras_skin.explain.samples import ExplainSample
from keras_skin.models import deeplabv3plus

FILE = Path(__file__).with_name("golden_arrays.npz")
SIZE = (24, 32)
STRENGTHS = [0.7, 0.4, 0.3, -1.0]
OPERATIONS = (
    "auto_contrast",
    "equalization",
    "solarization",
    "color_degeneration",
    "contrast",
    "brightness",
    "shear_x",
    "shear_y",
    "translation_down",
    "translation_right",
)
"""keras-cv's operations, in the order of `RandAugment`."""
STILL = {"horizontal_flip": 0.0, "vertical_flip": 0.0, "brightness": 0.0, "contrast": 0.0}
POLICIES = {
    "horizontal_flip": ("flips_rotations", {**STILL, "horizontal_flip": 1.0, "rotation": 0.0}),
    "vertical_flip": ("flips_rotations", {**STILL, "vertical_flip": 1.0, "rotation": 0.0}),
    "rotation_drawn": ("flips_rotations", {**STILL, "rotation": 60.0}),
    "light_drawn": ("flips_rotations", {**STILL, "rotation": 0.0, "brightness": 0.3, "contrast": 0.3}),
    "scale_drawn": ("dualrefnet", {**STILL, "scale": 0.4, "saturation": 0.0, "noise": 0.0}),
    "saturation_drawn": ("dualrefnet", {**STILL, "scale": 0.0, "saturation": 0.8, "noise": 0.0}),
    "noise_drawn": ("dualrefnet", {**STILL, "scale": 0.0, "saturation": 0.0, "noise": 0.2}),
}
"""albumentations' transforms, one at a time: a policy and its arguments."""


def picture() -> tuple[np.ndarray, np.ndarray]:
    """A dark ellipse on a bright gradient, off the centre, and its mask: (H, W, 3) and (H, W) uint8."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = ((y - 9) / 6.0) ** 2 + ((x - 19) / 8.0) ** 2 <= 1
    skin = np.stack([180 + x, 140 + 2 * y, 120 + x + y], axis=-1)
    lesion = np.stack([60 + 3 * x, 30 + 2 * x, 20 + 2 * y], axis=-1)
    return np.where(mask[..., None], lesion, skin).astype(np.uint8), mask.astype(np.uint8)


def albumentations_arrays() -> dict[str, np.ndarray]:
    """Image and mask after each transform of albumentations."""
    arrays = {}
    for name, (policy, settings) in POLICIES.items():
        image, mask = augment.get(policy).builder(**settings)(*picture(), 0, np.random.default_rng(5))
        arrays |= {f"albumentations/{name}/image": image, f"albumentations/{name}/mask": mask}
    return arrays


def keras_cv_arrays() -> dict[str, np.ndarray]:
    """Image and mask after each operation of keras-cv's RandAugment, and its pyramid pooling with fixed weights."""
    image, mask = (tf.constant(array, tf.float32)[None] for array in picture())
    policy, arrays = batch_augment.RandAugment(operations=1), {}
    for number, name in enumerate(OPERATIONS):
        numbers = tf.constant([[number, *STRENGTHS]], tf.float32)
        inputs, targets = policy({"image": image}, {"mask": mask[..., None]}, numbers)
        arrays[f"keras_cv/{name}/image"] = inputs["image"][0].numpy()
        arrays[f"keras_cv/{name}/mask"] = targets["mask"][0].numpy()
    layer = deeplabv3plus._pyramid_pooling(3, (2, 3))
    features = waves((1, 8, 8, 4), 0.0)
    layer(features)
    layer.set_weights([np.abs(waves(array.shape, 0.5 + n)) for n, array in enumerate(layer.get_weights())])
    return {**arrays, "keras_cv/pyramid_pooling": np.asarray(layer(features, training=False))}


def tf_explain_arrays() -> dict[str, np.ndarray]:
    """tf-explain's maps of a small classifier with fixed weights."""
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Conv2D(4, 5, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    label = keras.layers.Dense(3, name="label")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model({"image": image}, {"label": label})
    model.set_weights([waves(array.shape, 0.7 + n) for n, array in enumerate(model.get_weights())])
    sample = ExplainSample("picture", {"image": picture()[0].astype(np.float32)})
    names = ("integrated_gradients", "smoothgrad", "occlusion")
    maps = Saliency(model, names, seed=3)(sample, 1)
    return {f"tf_explain/{'smoothgrad_drawn' if name == 'smoothgrad' else name}": maps[name] for name in names}


def waves(shape: tuple[int, ...], phase: float) -> np.ndarray:
    """Fixed numbers from -1 to 1."""
    return np.sin(np.arange(np.prod(shape)) * 1.7 + phase).reshape(shape).astype(np.float32)


def all_arrays() -> dict[str, np.ndarray]:
    """Every case by its name: library, operation, output."""
    return {**albumentations_arrays(), **keras_cv_arrays(), **tf_explain_arrays()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **{name: array.astype(np.float32) for name, array in all_arrays().items()})

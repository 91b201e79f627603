"""What the block `predict` adds to a trained model: test-time flips, and the shift of a class prior."""

import keras
import numpy as np
import pytest

from keras_skin.workflow.predictor import average_flips, label_shift, shift_logits

SIZE = (6, 8)


def model_of_all_inputs():
    """Two images and metadata; label, mask and embedding out, each dependent on the orientation of the images."""
    inputs = {name: keras.Input((*SIZE, 3), name=name) for name in ("image", "segmented_image")}
    inputs["metadata"] = keras.Input((2,), name="metadata")
    keras.utils.set_random_seed(3)
    x = keras.layers.Concatenate()([inputs["image"], inputs["segmented_image"]])
    mask = keras.layers.Conv2D(1, 3, padding="same")(x)
    features = keras.layers.Concatenate()([keras.layers.Flatten()(x), inputs["metadata"]])
    outputs = {
        "mask": mask,
        "label": keras.layers.Dense(3)(features),
        "embedding": keras.layers.Dense(4)(features),
        "mask_aux_1": mask,
    }
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def model():
    return model_of_all_inputs()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = {name: rng.uniform(size=(5, *SIZE, 3)).astype("float32") for name in ("image", "segmented_image")}
    return {**images, "metadata": rng.uniform(size=(5, 2)).astype("float32")}


def flipped(batch, axes):
    return {name: np.flip(value, axes) if value.ndim == 4 else value for name, value in batch.items()}


def test_logits_of_four_views_are_averaged_and_masks_are_flipped_back(model, batch):
    result = average_flips(model).predict(batch, verbose=0)
    views = {axes: model.predict(flipped(batch, axes), verbose=0) for axes in ((), (1,), (2,), (1, 2))}
    assert set(result) == {"mask", "label", "embedding"}
    np.testing.assert_allclose(result["label"], np.mean([view["label"] for view in views.values()], axis=0), atol=1e-5)
    masks = [np.flip(view["mask"], axes) for axes, view in views.items()]
    np.testing.assert_allclose(result["mask"], np.mean(masks, axis=0), atol=1e-5)
    np.testing.assert_allclose(result["embedding"], views[()]["embedding"], atol=1e-5)
    assert np.abs(result["label"] - views[()]["label"]).max() > 0.05


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_mirror_images_are_predicted_alike(model, batch, axes):
    predictor = average_flips(model)
    result, mirrored = predictor.predict(batch, verbose=0), predictor.predict(flipped(batch, axes), verbose=0)
    np.testing.assert_allclose(mirrored["label"], result["label"], atol=1e-5)
    np.testing.assert_allclose(np.flip(mirrored["mask"], axes), result["mask"], atol=1e-5)


def test_the_weights_are_shared(model):
    predictor = average_flips(model)
    assert {id(variable) for variable in predictor.variables} == {id(variable) for variable in model.variables}
    assert predictor.count_params() == model.count_params()


def test_the_shift_turns_the_posterior_of_one_prior_into_that_of_another():
    """Bayes: p(class | image) is proportional to p(image | class) p(class)."""
    likelihood = np.array([0.2, 0.5, 0.3])
    shown, wanted = {"a": 30.0, "b": 30.0, "c": 60.0}, {"a": 700.0, "b": 250.0, "c": 50.0}
    posteriors = [likelihood * list(shares.values()) for shares in (shown, wanted)]
    logits = np.log(posteriors[0]) + list(label_shift(shown, wanted).values())
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), posteriors[1] / posteriors[1].sum())


def test_classes_that_training_says_nothing_about_stay():
    assert label_shift({"a": 1.0, "b": 1.0, "c": 0.0}, {"a": 1.0, "b": 1.0, "c": 0.0}) == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_the_shift_of_the_classes_reaches_the_label_alone(model, batch):
    assert shift_logits(model, None, 0.5) is model
    plain, shifted = model.predict(batch, verbose=0), shift_logits(model, [1.0, 0.0, -2.0], 0.5).predict(batch, verbose=0)
    np.testing.assert_allclose(shifted["label"], plain["label"] + [1.0, 0.0, -2.0], atol=1e-6)
    np.testing.assert_array_equal(shifted["mask"], plain["mask"])


def test_the_threshold_of_the_mask_becomes_a_half(model, batch):
    probability = 1 / (1 + np.exp(-model.predict(batch, verbose=0)["mask"]))
    threshold = float(np.quantile(probability, 0.8))
    shifted = shift_logits(model, None, threshold).predict(batch, verbose=0)
    assert 0.1 < (shifted["mask"] > 0).mean() < 0.3
    clear = np.abs(probability - threshold) > 1e-5
    np.testing.assert_array_equal((shifted["mask"] > 0)[clear], (probability > threshold)[clear])
    np.testing.assert_array_equal(shifted["label"], model.predict(batch, verbose=0)["label"])

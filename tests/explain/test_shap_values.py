"""SHAP values: the closed form of a linear head, sums that add up, and fields instead of columns."""

import keras
import numpy as np
import pytest

from keras_skin.explain.shap_values import MetadataShap, image_shap
from keras_skin.registry import UserError

COLUMNS = ("age", "sex", "sex", "site", "site", "site")


def linear_model(with_image):
    keras.utils.set_random_seed(0)
    metadata = keras.Input((6,), name="metadata")
    inputs, x = {"metadata": metadata}, metadata
    if with_image:
        inputs["image"] = keras.Input((8, 8, 3), name="image")
        features = keras.layers.Conv2D(3, 3, activation="relu", name="cam_features")(inputs["image"])
        x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(features), metadata])
    return keras.Model(inputs, {"label": keras.layers.Dense(3, name="label")(x)})


def data(count, seed):
    generator = np.random.default_rng(seed)
    return {"metadata": generator.random((count, 6), np.float32), "image": generator.random((count, 8, 8, 3), np.float32)}


@pytest.mark.parametrize("with_image", [False, True])
def test_a_linear_head_is_explained_by_its_closed_form(with_image):
    model, background, patients = linear_model(with_image), data(16, 0), data(5, 1)
    attributions = MetadataShap(model, background, COLUMNS).explain(patients)
    weights = model.get_layer("label").get_weights()[0][-6:].astype("float64")
    distance = patients["metadata"].astype("float64") - background["metadata"].mean(axis=0, dtype="float64")
    expected = distance[:, :, None] * weights
    by_field = np.stack([expected[:, :1].sum(1), expected[:, 1:3].sum(1), expected[:, 3:].sum(1)], axis=1)
    assert attributions.groups == (("image",) if with_image else ()) + ("age", "sex", "site")
    np.testing.assert_allclose(attributions.values[:, -3:], by_field, atol=1e-3)
    np.testing.assert_allclose(attributions.gap, 0, atol=1e-3)
    assert attributions.relative_gap < 1e-3


def test_values_of_a_curved_head_and_the_gap_add_up():
    keras.utils.set_random_seed(1)
    metadata, image = keras.Input((6,), name="metadata"), keras.Input((8, 8, 3), name="image")
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3, activation="relu")(image))
    hidden = keras.layers.Dense(8, activation="tanh")(keras.layers.Concatenate()([features, metadata]))
    model = keras.Model({"image": image, "metadata": metadata}, {"label": keras.layers.Dense(2, name="label")(hidden)})
    patients = data(6, 3)
    explainer = MetadataShap(model, data(16, 2), COLUMNS)
    attributions = explainer.explain(patients)
    logits = np.asarray(model(patients)["label"])
    np.testing.assert_allclose(attributions.logits, logits, rtol=1e-5, atol=1e-6)
    total = attributions.values.sum(axis=1) + attributions.base + attributions.gap
    np.testing.assert_allclose(total, logits, rtol=1e-5, atol=1e-5)
    assert 0 < attributions.relative_gap < 0.1
    table = attributions.table(list("abcdef"), ["benign", "malignant"])
    whole = table.pivot_table(index=["image_id", "class"], columns="field", values="shap")
    np.testing.assert_allclose(whole.drop(columns="logit").sum(axis=1), whole["logit"], rtol=1e-9)
    np.testing.assert_array_equal(explainer.explain(patients).values, attributions.values)
    again = MetadataShap(model, explainer.background, COLUMNS)
    np.testing.assert_array_equal(again.explain(patients).values, attributions.values)


def test_switches_without_gradient_are_measured():
    """Two fields, each multiplied by whether it is known; unknown values are zero, but the field loses its bias, too."""
    metadata = keras.Input((4,), name="metadata")
    switches = keras.ops.cast(metadata[:, 2:] > 0, "float32")
    values = (metadata[:, :2] + 3.0) * switches
    model = keras.Model({"metadata": metadata}, {"label": keras.layers.Dense(2, name="label")(values)})
    weights = model.get_layer("label").get_weights()[0].astype("float64")
    background = {"metadata": np.array([[0.5, 0.2, 1, 1], [0.1, 0, 1, 0]], "float32")}
    patients = {"metadata": np.array([[1, 0, 1, 0], [0, 0, 0, 0], [2, 1, 1, 1]], "float32")}

    def effect(rows):
        return ((rows[:, :2] + 3.0) * (rows[:, 2:] > 0))[:, :, None] * weights

    expected = effect(patients["metadata"]) - effect(background["metadata"]).mean(axis=0)
    columns = ("age", "site", "age", "site")
    attributions = MetadataShap(model, background, columns, switches=(2, 3)).explain(patients)
    np.testing.assert_allclose(attributions.values, expected, atol=1e-5)
    np.testing.assert_allclose(attributions.gap, 0, atol=1e-5)
    blind = MetadataShap(model, background, columns).explain(patients)
    assert blind.relative_gap > 0.2


def test_numpys_random_state_does_not_change():
    model = linear_model(False)
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    MetadataShap(model, data(3, 0), COLUMNS).explain(data(1, 1))
    assert np.random.rand() == expected  # noqa: NPY002


def test_wrong_columns_and_backgrounds_are_named():
    with pytest.raises(UserError, match="6 metadata columns, but the fields of 2"):
        MetadataShap(linear_model(True), data(2, 0), ("age", "sex"))
    with pytest.raises(UserError, match="not of this model"):
        MetadataShap(linear_model(True), [np.zeros((2, 4)), np.zeros((2, 6))], COLUMNS)


def test_pixels_of_a_linear_model_have_their_closed_form():
    keras.utils.set_random_seed(2)
    image = keras.Input((4, 6, 3), name="image")
    model = keras.Model({"image": image}, {"label": keras.layers.Dense(2, name="label")(keras.layers.Flatten()(image))})
    generator = np.random.default_rng(0)
    pixels, background = generator.uniform(0, 255, (4, 6, 3)).astype("float32"), np.zeros((1, 4, 6, 3), "float32")
    weights = model.get_layer("label").get_weights()[0][:, 1].reshape(4, 6, 3)
    values = image_shap(model, {"image": pixels}, background, 1, samples=4)
    np.testing.assert_allclose(values, (weights * pixels).sum(axis=-1), rtol=1e-3, atol=1e-2)

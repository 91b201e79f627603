"""Views of a model return the same as the whole model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_skin.explain import views
from keras_skin.registry import UserError

SIZE = (8, 8)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = {"image": keras.Input((*SIZE, 3), name="image"), "metadata": keras.Input((4,), name="metadata")}
    x = keras.layers.Rescaling(1 / 255)(inputs["image"])
    early = keras.layers.Conv2D(4, 3, activation="relu", name="early")(x)
    late = keras.layers.Conv2D(5, 3, activation="relu", name="late")(early)
    gate = keras.layers.Dense(4, activation="sigmoid")(inputs["metadata"])
    gated = keras.layers.GlobalAveragePooling2D()(keras.layers.Multiply()([early, keras.layers.Reshape((1, 1, 4))(gate)]))
    joined = keras.layers.Concatenate()([gated, keras.layers.GlobalAveragePooling2D(name="pooled")(late)])
    label = keras.layers.Dense(3, name="label")(joined)
    return keras.Model(inputs, {"label": label, "mask": keras.layers.Conv2D(1, 1, name="mask")(late)})


@pytest.fixture(scope="module")
def inputs():
    generator = np.random.default_rng(0)
    return {"image": generator.uniform(0, 255, (3, *SIZE, 3)).astype("float32"), "metadata": generator.random((3, 4), np.float32)}


def test_the_model_is_cut_where_metadata_join(model, inputs):
    features, head = views.metadata_view(model)
    assert {tuple(tensor.shape[1:]) for tensor in features.outputs} == {(6, 6, 4), (5,)}
    tensors = keras.tree.flatten(features(inputs))
    np.testing.assert_allclose(head([*tensors, tf.constant(inputs["metadata"])]), model(inputs)["label"], rtol=1e-5, atol=1e-6)
    assert not any(isinstance(layer, keras.layers.Conv2D) for layer in head.layers)


def test_a_deep_network_is_no_problem():
    image, metadata = keras.Input((4,), name="image"), keras.Input((2,), name="metadata")
    x = image
    for _ in range(500):
        x = keras.layers.Activation("linear")(x)
    label = keras.layers.Dense(2)(keras.layers.Concatenate()([x, metadata]))
    features, _ = views.metadata_view(keras.Model({"image": image, "metadata": metadata}, {"label": label}))
    assert features.outputs[0].shape == (None, 4)


def test_models_without_metadata_are_refused(model):
    alone = keras.Model(model.input["image"], model.get_layer("late").output)
    with pytest.raises(UserError, match="input 'metadata'"):
        views.metadata_view(alone)
    ignored = {name: keras.Input((4,), name=name) for name in ("image", "metadata")}
    with pytest.raises(UserError, match="does not depend"):
        views.metadata_view(keras.Model(ignored, {"label": keras.layers.Dense(2)(ignored["image"])}))


def test_one_image_view_holds_the_other_inputs(model, inputs):
    view = views.OneImageView(model)
    for row in (0, 1):
        view.hold({key: value[row] for key, value in inputs.items()})
        whole = model({"image": inputs["image"], "metadata": np.repeat(inputs["metadata"][row : row + 1], 3, axis=0)})["label"]
        np.testing.assert_allclose(view(inputs["image"]), keras.ops.softmax(whole), rtol=1e-5)
        np.testing.assert_allclose(view.predict(inputs["image"], batch_size=2), keras.ops.softmax(whole), rtol=1e-5)
    assert view.output.shape == (None, 3)


def test_predict_returns_probabilities_of_label_and_mask(model, inputs):
    predictions = views.predict(model, {**inputs, "unused": None})
    np.testing.assert_allclose(predictions["label"].sum(axis=1), 1, rtol=1e-5)
    assert predictions["mask"].shape == (3, 4, 4, 1)
    assert ((predictions["mask"] > 0) & (predictions["mask"] < 1)).all()


def test_the_seed_is_restored():
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    with views.third_party_explainer(1):
        first = np.random.rand()  # noqa: NPY002
    assert np.random.rand() == expected  # noqa: NPY002
    with views.third_party_explainer(1):
        assert np.random.rand() == first  # noqa: NPY002

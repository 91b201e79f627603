"""Grad-CAM against a float64 reference, and on the shapes of model where such code breaks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_skin.explain.grad_cam import GradCAM, feature_layers, normalise
from keras_skin.registry import UserError

SIZE = (12, 16)


def joint_model(nested=False, two_inputs=False):
    """Small joint model with the contract's keys and layer names; its class depends on the features in a non-linear way."""
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="encoder_1")(x)
    if nested:
        inside = keras.Input(x.shape[1:])
        y = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="stage")(inside)
        x = keras.Model(inside, keras.layers.Conv2D(8, 1, activation="tanh", name="last")(y), name="backbone")(x)
    else:
        x = keras.layers.Conv2D(8, 3, padding="same", activation="tanh", name="cam_features")(x)
    mask = keras.layers.UpSampling2D(2, name="decoder_1")(x)
    mask = keras.layers.Conv2D(1, 1, dtype="float32", name="mask")(mask)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    inputs = {"image": image}
    if two_inputs:
        inputs["metadata"] = keras.Input((4,), name="metadata")
        pooled = keras.layers.Concatenate()([pooled, keras.layers.Dense(3)(inputs["metadata"])])
    hidden = keras.layers.Dense(5, activation="tanh", name="hidden")(pooled)
    label = keras.layers.Dense(3, dtype="float32", name="label")(hidden)
    return keras.Model(inputs, {"mask": mask, "label": label, "embedding": hidden})


@pytest.fixture(scope="module", autouse=True)
def _seed():
    keras.utils.set_random_seed(3)


@pytest.fixture(scope="module")
def model():
    return joint_model()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (5, *SIZE, 3)).astype("float32")


def reference_maps(model, images, classes):
    """Equations 3 and 4 in float64 NumPy: the head behind cam_features is differentiated by hand."""
    view = keras.Model(model.input, model.get_layer("cam_features").output)
    w1, b1 = (value.astype("float64") for value in model.get_layer("hidden").get_weights())
    w2, _ = (value.astype("float64") for value in model.get_layer("label").get_weights())
    maps = []
    for features, index in zip(np.asarray(view({"image": images}), "float64"), classes, strict=True):
        pooled = features.mean(axis=(0, 1))
        slope = 1.0 - np.tanh(pooled @ w1 + b1) ** 2
        with_respect_to_pooled = w1 @ (slope * w2[:, index])
        positions = features.shape[0] * features.shape[1]
        gradient = np.broadcast_to(with_respect_to_pooled / positions, features.shape)
        alpha = [gradient[:, :, k].sum() / positions for k in range(features.shape[2])]
        total = np.zeros(features.shape[:2])
        for k, weight in enumerate(alpha):
            total += weight * features[:, :, k]
        maps.append(np.maximum(total, 0.0))
    return np.stack(maps)


def test_equals_the_float64_reference(model, images):
    classes = np.array([0, 1, 2, 1, 0])
    maps = GradCAM(model)({"image": images}, classes)
    expected = reference_maps(model, images, classes)
    assert maps.dtype == np.float32
    assert maps.shape == (5, 6, 8)
    assert expected.max() > 0
    np.testing.assert_allclose(maps / expected.max(), expected / expected.max(), atol=1e-4)


def reference_plus_plus(model, images, classes):
    """Grad-CAM++ in float64 NumPy, position by position; the gradient is the same at every position of a pooled map."""
    view = keras.Model(model.input, model.get_layer("cam_features").output)
    w1, b1 = (value.astype("float64") for value in model.get_layer("hidden").get_weights())
    w2, _ = (value.astype("float64") for value in model.get_layer("label").get_weights())
    maps = []
    for features, index in zip(np.asarray(view({"image": images}), "float64"), classes, strict=True):
        pooled = features.mean(axis=(0, 1))
        slope = 1.0 - np.tanh(pooled @ w1 + b1) ** 2
        height, width, channels = features.shape
        gradient = (w1 @ (slope * w2[:, index])) / (height * width)
        total = np.zeros((height, width))
        for k in range(channels):
            weight = 0.0
            for _ in range(height * width):
                share = gradient[k] ** 2 / (2 * gradient[k] ** 2 + features[:, :, k].sum() * gradient[k] ** 3)
                weight += share * max(gradient[k], 0.0)
            total += weight * features[:, :, k]
        maps.append(np.maximum(total, 0.0))
    return np.stack(maps)


def test_plus_plus_equals_the_float64_reference(model, images):
    classes = np.array([0, 1, 2, 1, 0])
    maps, expected = GradCAM(model, method="grad_cam++")({"image": images}, classes), reference_plus_plus(model, images, classes)
    assert expected.max() > 0
    np.testing.assert_allclose(maps / expected.max(), expected / expected.max(), atol=1e-4)
    with pytest.raises(UserError, match=r"grad_cam\+\+"):
        GradCAM(model, method="gradcam++")


def test_layers_to_explain_are_found_by_their_names(model):
    assert feature_layers(model) == ["cam_features"]


def test_the_predicted_class_is_the_default(model, images):
    cam = GradCAM(model)
    predicted = np.argmax(model({"image": images})["label"], axis=1)
    np.testing.assert_array_equal(cam({"image": images}), cam({"image": images}, predicted))
    other = (predicted + 1) % 3
    assert np.abs(cam({"image": images}) - cam({"image": images}, other)).max() > 1e-6


def test_a_map_does_not_depend_on_its_batch(model, images):
    cam = GradCAM(model)
    together = cam({"image": images}, 1)
    alone = np.concatenate([cam({"image": images[i : i + 1]}, 1) for i in range(len(images))])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-7 * together.max())


@pytest.mark.parametrize("output", ["label", "mask"])
def test_batch_normalisation_and_dropout_are_in_inference_mode(images, output):
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same", name="cam_features")(image))
    x = keras.layers.Dropout(0.5)(x)
    outputs = {"mask": keras.layers.Conv2D(1, 1)(x), "label": keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))}
    cam = GradCAM(keras.Model({"image": image}, outputs), output=output)
    np.testing.assert_allclose(cam({"image": images}, 0)[:1], cam({"image": images[:1]}, 0), rtol=1e-4, atol=1e-6)


def test_mixed_bfloat16_gives_nearly_the_same_float32_maps(model, images):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = joint_model()
    finally:
        keras.config.set_dtype_policy(before)
    mixed.set_weights(model.get_weights())
    maps, expected = GradCAM(mixed)({"image": images}, 1), GradCAM(model)({"image": images}, 1)
    assert mixed.get_layer("cam_features").compute_dtype == "bfloat16"
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, atol=0.05 * expected.max())


def test_float16_gradients_do_not_vanish(images):
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", dtype="mixed_float16", activation="relu", name="cam_features")(image)
    x = keras.layers.GlobalAveragePooling2D(dtype="mixed_float16")(x)
    label = keras.layers.Dense(2, dtype="float32", kernel_initializer=keras.initializers.Constant(1e-6))(x)
    assert GradCAM(keras.Model({"image": image}, {"label": label}))({"image": images}, 0).max() > 0


def test_layers_of_nested_models_and_several_inputs(images):
    model = joint_model(nested=True, two_inputs=True)
    inputs = {"image": images, "metadata": np.ones((5, 4), "float32"), "unused": None}
    for layer in ("backbone/last", "backbone", "backbone/stage", "encoder_1"):
        maps = GradCAM(model, layer)(inputs, 2)
        assert maps.shape == (5, 6, 8)
        assert np.isfinite(maps).all()
        if layer == "backbone":  # the same tensor as its last layer's
            np.testing.assert_allclose(maps, GradCAM(model, "backbone/last")(inputs, 2), rtol=1e-5)
    assert "call" not in model.get_layer("backbone").get_layer("last").__dict__
    with pytest.raises(UserError, match="metadata"):
        GradCAM(model, "backbone")({"image": images})


def test_the_last_call_of_a_shared_layer_is_explained(images):
    image = keras.Input((*SIZE, 3), name="image")
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    first = shared(image)
    second = keras.layers.Activation("linear", name="second")(shared(first))
    label = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(second))
    model = keras.Model({"image": image}, {"label": label})
    np.testing.assert_allclose(GradCAM(model, "shared")({"image": images}), GradCAM(model, "second")({"image": images}))


def test_mask_output_is_explained_by_the_mean_logit_of_the_predicted_lesion(model, images):
    maps = GradCAM(model, output="mask")({"image": images})
    view = keras.Model(model.input, [model.get_layer("cam_features").output, model.output["mask"]])
    features, logits = (np.asarray(value, "float64") for value in view({"image": images}))
    kernel = model.get_layer("mask").get_weights()[0][0, 0, :, 0].astype("float64")
    for map_, a, logit in zip(maps, features, logits, strict=True):
        weight = (logit > 0).reshape(6, 2, 8, 2).sum(axis=(1, 3)) / max((logit > 0).sum(), 1)
        alpha = (weight[..., None] * kernel).mean(axis=(0, 1))
        np.testing.assert_allclose(map_, np.maximum(a @ alpha, 0), atol=1e-6)
    assert maps.max() > 0


def test_no_predicted_lesion_has_no_evidence(model, images):
    kernel, bias = model.get_layer("mask").get_weights()
    model.get_layer("mask").set_weights([kernel, bias - 1e3])
    try:
        _, has_evidence = normalise(GradCAM(model, output="mask")({"image": images}))
    finally:
        model.get_layer("mask").set_weights([kernel, bias])
    assert not has_evidence.any()


def test_normalise_divides_by_the_maximum_of_each_image():
    maps = np.array([[[0, 2], [4, 1]], [[0, 0], [0, 0]], [[np.nan, 0.5], [0, 0]]], "float32")
    heat, has_evidence = normalise(maps)
    np.testing.assert_allclose(heat, [[[0, 0.5], [1, 0.25]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]])
    assert has_evidence.tolist() == [True, False, True]


def test_upsample_keeps_a_constant_map():
    enlarged = GradCAM.upsample(np.full((2, 3, 4), 0.7, "float32"), (30, 41))
    np.testing.assert_allclose(enlarged, np.full((2, 30, 41), 0.7), rtol=1e-6)


def test_mistakes_are_named(model, images):
    with pytest.raises(UserError, match="cam_features"):
        GradCAM(model, "cam_feature")
    with pytest.raises(UserError, match=r"no output 'lable'.*label"):
        GradCAM(model, output="lable")
    with pytest.raises(UserError, match="no influence"):
        GradCAM(model, "decoder_1").check()
    with pytest.raises(UserError, match="batch, height, width"):
        GradCAM(model, "hidden").check()
    with pytest.raises(UserError, match=r"0\.\.2"):
        GradCAM(model)({"image": images}, 3)


def test_compute_is_usable_inside_another_graph(model, images):
    cam = GradCAM(model)

    @tf.function
    def serve(image):
        return cam.compute({"image": image}, tf.fill([tf.shape(image)[0]], -1))

    np.testing.assert_allclose(serve(tf.constant(images)), cam({"image": images}), rtol=1e-5, atol=1e-8)

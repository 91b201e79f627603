"""Small models with the contract's inputs and outputs, a metadata encoder and photographs, for tests of exports."""

import io
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

SIZE = (24, 32)
CLASSES = ("benign", "malignant")


@keras.saving.register_keras_serializable("tests")
class Pair(keras.layers.Layer):
    """A layer that makes its own layers, without passing its precision to them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Conv2D(4, 3, padding="same")
        self.second = keras.layers.BatchNormalization()

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 4))

    def call(self, inputs, training=None):
        return keras.ops.relu(self.second(self.first(inputs), training=training))


def joint_model(keys=("mask", "label", "embedding", "mask_aux_1")):
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = Pair(name="encoder_1")(x)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="cam_features")(x)
    up = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    embedding = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
    heads = {
        "mask": keras.layers.Conv2D(1, 3, padding="same", dtype="float32", name="mask")(up),
        "mask_aux_1": keras.layers.Conv2D(1, 1, dtype="float32")(x),
        "label": keras.layers.Dense(len(CLASSES), kernel_initializer="ones", dtype="float32", name="label")(embedding),
        "embedding": embedding,
    }
    return keras.Model({"image": image}, {key: heads[key] for key in keys})


def seeded_model(**arguments):
    keras.utils.set_random_seed(5)
    model = joint_model(**arguments)
    generator = np.random.default_rng(2)
    model.set_weights(
        [
            np.abs(w) if "variance" in v.path else w
            for v, w in ((v, generator.normal(0, 0.5, v.shape).astype("float32")) for v in model.weights)
        ]
    )
    return model


def photograph(kind, height, width, seed, **options):
    generator = np.random.default_rng(seed)
    pixels = np.asarray(Image.fromarray(generator.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height)))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


class AgeAndSex:
    """An encoder with only the attributes that the export uses."""

    width = 3
    fields = (
        SimpleNamespace(name="age", kind="numeric", low=5.0, high=85.0),
        SimpleNamespace(name="sex", kind="categorical", values=("f", "m")),
    )

    def graph(self, fields):
        known = tf.where(fields["age"] < 0, 0.0, 1.0)
        return tf.stack(
            [tf.where(fields["age"] < 0, 0.0, fields["age"] / 50), known, tf.cast(fields["sex"] == "f", tf.float32)], 1
        )


OTHER = (16, 20)


def segmenter_model():
    image = keras.Input((*OTHER, 3), name="image")
    mask = keras.layers.Conv2D(1, 3, padding="same", bias_initializer="zeros", name="mask")(
        keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    )
    extra = keras.layers.Conv2D(1, 1)(mask)
    return keras.Model({"image": image}, {"mask": mask, "mask_aux_1": extra})


def branched_model():
    image, cut = (keras.Input((*SIZE, 3), name=name) for name in ("image", "segmented_image"))
    metadata = keras.Input((3,), name="metadata")
    features = []
    for name, x in (("cam_features", image), ("cam_features_segmented", cut)):
        x = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(keras.layers.Rescaling(1 / 255)(x))
        features.append(keras.layers.Identity(name=name)(x))
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in features]
    positive = keras.initializers.RandomUniform(0, 1)  # every class has some evidence
    label = keras.layers.Dense(2, kernel_initializer=positive, dtype="float32", name="label")(
        keras.layers.Concatenate()([*pooled, metadata])
    )
    return keras.Model({"image": image, "segmented_image": cut, "metadata": metadata}, {"label": label})

"""Pre-processing against NumPy and OpenCV, and the same eagerly, inside tf.data and in an exported graph."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from keras_skin.data.datasets.stand_ins import lesions
from keras_skin.data.images import preprocess
from keras_skin.data.images.load import load_image
from keras_skin.data.images.preprocess.lab import lab_to_rgb, rgb_to_lab
from keras_skin.registry import UserError

IMAGE = np.random.default_rng(0).uniform(0, 255, (24, 32, 3)).astype(np.float32) * np.float32([1.0, 0.7, 0.5])


def create(name, **arguments):
    return preprocess.get(name).builder(**arguments)


def test_shades_of_grey_against_numpy():
    scaled = IMAGE.astype(np.float64) / 255
    light = np.array([np.mean(scaled[..., channel] ** 6) ** (1 / 6) for channel in range(3)])
    light /= np.sqrt(np.sum(light**2))
    expected = np.clip(IMAGE / (light * np.sqrt(3)), 0, 255)
    np.testing.assert_allclose(create("shades_of_grey")(tf.constant(IMAGE)), expected, rtol=1e-4)


def test_grey_image_and_white_light_stay_as_they_are():
    grey = np.repeat(IMAGE[..., :1], 3, axis=-1)
    np.testing.assert_allclose(create("shades_of_grey")(tf.constant(grey)), grey, rtol=1e-5)
    black = tf.zeros((4, 4, 3))
    np.testing.assert_array_equal(create("shades_of_grey")(black), black)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("shades_of_grey", {"power": 0}, ["power is 0"]),
        ("clahe", {"clip_limit": 0, "tiles": (8, 0)}, ["clip_limit is 0", "tiles is (8, 0)"]),
        ("clahe", {"clip_limit": True}, ["clip_limit is True"]),
        ("clahe", {"clip_limit": float("nan")}, ["clip_limit is nan"]),
        ("clahe", {"tiles": 8}, ["tiles is 8"]),
        ("clahe", {"tiles": [8, 8, 8]}, ["tiles is [8, 8, 8]"]),
        ("hair_removal", {"kernel": 0, "threshold": 300}, ["kernel is 0", "threshold is 300"]),
        ("hair_removal", {"threshold": "12"}, ["threshold is '12'"]),
    ],
)
def test_wrong_arguments_are_refused_all_at_once(name, arguments, expected):
    with pytest.raises(UserError) as error:
        create(name, **arguments)
    assert all(part in str(error.value) for part in expected), error.value


@pytest.mark.parametrize("name", preprocess.names())
def test_same_eagerly_in_tf_data_and_exported(name, tmp_path):
    step = create(name)
    eager = step(tf.constant(IMAGE)).numpy()
    assert eager.shape == IMAGE.shape
    assert eager.dtype == np.float32
    assert eager.min() >= 0
    assert eager.max() <= 255
    (in_pipeline,) = tf.data.Dataset.from_tensors(IMAGE).map(step)
    np.testing.assert_allclose(in_pipeline, eager, atol=1e-4)
    if not getattr(step, "exportable", True):
        return
    module = tf.Module()
    module.serve = tf.function(step, input_signature=[tf.TensorSpec((None, None, 3), tf.float32)])
    tf.saved_model.save(module, str(tmp_path))
    exported = tf.saved_model.load(str(tmp_path)).serve(IMAGE)
    np.testing.assert_allclose(exported, eager, atol=1e-4)


def test_what_cannot_be_exported_is_refused_by_name_with_a_way_out():
    preprocess.refuse_export([])
    preprocess.refuse_export([create("shades_of_grey"), create("clahe"), tf.identity])
    with pytest.raises(UserError, match=r"'hair_removal' cannot be exported.*Leave it out.*export\.enabled=false"):
        preprocess.refuse_export([create("clahe"), create("hair_removal")])


# CLAHE


def opencv_clahe(pixels, clip_limit=2.0, tiles=(8, 8)):
    """Lightness (H, W) and RGB (H, W, 3), both uint8, of a uint8 image after OpenCV's CLAHE."""
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clip_limit, tiles[::-1]).apply(np.ascontiguousarray(lab[..., 0]))
    return lab[..., 0], cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def assert_close_to_opencv(image, **arguments):
    """At most one level of L apart, where an interpolated value falls on a half, and two of RGB; all but a few pixels equal."""
    step = create("clahe", **arguments)
    lightness, rgb = opencv_clahe(np.round(image).astype(np.uint8), **arguments)
    result = np.asarray(step.equalise(rgb_to_lab(image)[0]))
    assert np.abs(result - lightness.astype(int)).max() <= 1
    apart = np.abs(np.asarray(step(image)) - rgb)
    assert apart.max() <= 2
    assert np.mean(apart > 0) < 0.001


def test_lab_equals_opencv_both_ways():
    pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    pixels[:2, :256] = np.arange(256)[:, np.newaxis]
    np.testing.assert_array_equal(
        np.stack(rgb_to_lab(pixels.astype(np.float32)), axis=-1), cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    )
    parts = tf.unstack(tf.cast(pixels, tf.int32), axis=-1)  # any three bytes, most of them colours that no screen shows
    np.testing.assert_array_equal(lab_to_rgb(*parts), cv2.cvtColor(pixels, cv2.COLOR_LAB2RGB))


@pytest.mark.parametrize("size", [(192, 256), (224, 224), (181, 247)])
def test_clahe_matches_opencv_on_real_images(real_data, size):
    jpegs = sorted(real_data.glob("isic201*/*Data/*.jpg"))[::150]
    bitmaps = sorted(path for path in real_data.glob("ph2_sample/**/*_Dermoscopic_Image/*.bmp"))[:2]
    assert len(jpegs) > 4
    assert bitmaps
    for path in [*jpegs, *bitmaps]:
        assert_close_to_opencv(np.asarray(load_image(str(path), size)))


@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        ((64, 96), {}),
        ((65, 96), {}),  # OpenCV then pads both ways
        ((64, 97), {"clip_limit": 40.0, "tiles": (4, 3)}),
        ((71, 83), {"clip_limit": 0.01, "tiles": (1, 5)}),
        ((50, 34), {"clip_limit": 3.5, "tiles": (16, 1)}),
        ((64, 96), {"clip_limit": 1e6}),
    ],
)
@pytest.mark.parametrize("kind", ["noise", "drawn", "flat"])
def test_clahe_matches_opencv_on_drawn_images_of_any_size(size, arguments, kind):
    rng = np.random.default_rng(3)
    image = {
        "noise": lambda: rng.uniform(0, 255, (*size, 3)),
        "drawn": lambda: lesions.draw_lesion(rng, size)[0],
        "flat": lambda: np.full((*size, 3), (200, 150, 120)),
    }[kind]()
    assert_close_to_opencv(image.astype(np.float32), **arguments)


def test_clahe_takes_tiles_as_json_gives_them_and_keeps_its_record_hashable():
    assert create("clahe", tiles=[4, 6]) == create("clahe", tiles=(4, 6))
    assert hash(create("clahe", tiles=[4, 6])) == hash(create("clahe", tiles=(4, 6)))


# Hair removal


def draw(seed, hairs, monkeypatch, size=(225, 300)):
    """The same lesion with or without hairs."""

    def artefacts(_, image):
        if hairs:
            lesions._hairs(np.random.default_rng([seed, 1]), image)

    monkeypatch.setattr(lesions, "_artefacts", artefacts)
    return lesions.draw_lesion(np.random.default_rng(seed), size, malignant=seed % 2)[0].astype(np.float32)


def test_hair_removal_brings_drawn_lesions_closer_to_those_without_hair(monkeypatch):
    step, before, after = create("hair_removal"), [], []
    for seed in range(12):
        clean, hairy = draw(seed, False, monkeypatch), draw(seed, True, monkeypatch)
        before.append(np.abs(hairy - clean).mean())
        after.append(np.abs(np.asarray(step(hairy)) - clean).mean())
    assert np.all(np.array(after) <= np.array(before) + 0.02), "no lesion is spoilt"
    assert np.mean(after) < 0.5 * np.mean(before)


def test_hair_removal_leaves_lesions_without_hair_nearly_untouched(monkeypatch):
    step = create("hair_removal")
    touched = [step.find(draw(seed, False, monkeypatch).astype(np.uint8)).mean() for seed in range(12)]
    assert np.mean(touched) < 0.002
    assert max(touched) < 0.02


def test_hair_removal_touches_hairs_alone():
    skin = np.random.default_rng(0).normal(180, 2, (120, 160, 3)).clip(0, 255).astype(np.float32)
    hairy = skin.copy()
    cv2.line(hairy, (10, 20), (140, 90), (40.0, 30.0, 26.0), 2)
    cv2.circle(hairy, (40, 90), 12, (60.0, 40.0, 30.0), cv2.FILLED)  # a naevus
    hairs = create("hair_removal").find(np.round(hairy).astype(np.uint8))
    assert hairs[40:70, 60:90].any()
    assert not hairs[75:105, 25:55].any()
    result = np.asarray(create("hair_removal")(hairy))
    np.testing.assert_array_equal(result[~hairs], hairy[~hairs])
    assert np.abs(result - skin)[hairs].max() < 15


def test_hair_removal_does_nothing_to_a_small_or_empty_image():
    for image in (np.zeros((16, 16, 3), np.float32), np.full((40, 30, 3), 200, np.float32)):
        np.testing.assert_array_equal(create("hair_removal")(image), image)

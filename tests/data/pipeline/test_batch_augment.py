import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_skin.data.pipeline import augment, batch_augment, batches
from keras_skin.data.pipeline.balance.repeats import Oversample
from keras_skin.registry import UserError

SIZE = (16, 24)
CLASSES = ("benign", "malignant", "other")
NAMES = ("mixup", "cutmix", "rand_augment")
B = 6


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder, rng, rows = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1), []
    for number in range(10):
        image_file, mask_file = folder / f"{number:02}.png", folder / f"m{number:02}.png"
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(image_file)
        mask = np.zeros(SIZE, np.uint8)
        mask[number : number + 5, 3:15] = 255
        Image.fromarray(mask).save(mask_file)
        rows.append(
            {"image_id": f"{number:02}", "image": str(image_file), "mask": str(mask_file), "label": CLASSES[number % 3 and 1]}
        )
    return pd.DataFrame(rows)


def data(table, name, outputs=("label",), batch_size=4, **options):
    augmentation = batch_augment.get(name).builder()
    return batches.training_data(
        table, CLASSES, SIZE, ["image"], list(outputs), batch_size, batch_augmentation=augmentation, **options
    )


def collect(dataset):
    return [tf.nest.map_structure(lambda value: value.numpy(), batch) for batch in dataset]


def assert_same(results, expected):
    assert len(results) == len(expected)
    for one, other in zip(results, expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def batch(seed=0, masks=True):
    rng = np.random.default_rng(seed)
    inputs = {"image": rng.uniform(0, 255, (B, *SIZE, 3)), "metadata": rng.normal(size=(B, 2))}
    targets = {"label": np.eye(3)[rng.integers(3, size=B)]}
    if masks:
        targets["mask"] = rng.integers(0, 2, (B, *SIZE, 1))
        targets["mask_aux_1"] = targets["mask"]
    return tf.nest.map_structure(lambda value: tf.constant(value, tf.float32), (inputs, targets))


def numpy(values):
    return tf.nest.map_structure(lambda value: value.numpy(), values)


def test_mixup_against_a_loop():
    augmentation, values = batch_augment.MixUp(0.7), batch(masks=False)
    numbers = augmentation.draw(B, SIZE, np.random.default_rng(3))
    assert numbers.dtype == np.float32
    assert sorted(numbers[:, 0]) == list(range(B))
    results, before = numpy(augmentation(*values, tf.constant(numbers))), numpy(values)
    for place, (partner, share) in enumerate(numbers):
        for part in range(2):
            for name, value in before[part].items():
                expected = share * value[place] + (1 - share) * value[int(partner)]
                np.testing.assert_allclose(results[part][name][place], expected, rtol=1e-5, atol=1e-5)


def test_cutmix_against_a_loop():
    augmentation, values = batch_augment.CutMix(), batch()
    numbers = augmentation.draw(B, SIZE, np.random.default_rng(3))
    results, before = numpy(augmentation(*values, tf.constant(numbers))), numpy(values)
    for place, columns in enumerate(numbers):
        partner, top, bottom, left, right = map(int, columns)
        assert 0 <= top <= bottom <= SIZE[0]
        assert 0 <= left <= right <= SIZE[1]
        for part, name in ((0, "image"), (1, "mask"), (1, "mask_aux_1")):
            expected = before[part][name][place].copy()
            for row in range(top, bottom):
                for column in range(left, right):
                    expected[row, column] = before[part][name][partner, row, column]
            np.testing.assert_array_equal(results[part][name][place], expected)
        came = (bottom - top) * (right - left) / (SIZE[0] * SIZE[1])
        for part, name in ((0, "metadata"), (1, "label")):
            expected = (1 - came) * before[part][name][place] + came * before[part][name][partner]
            np.testing.assert_allclose(results[part][name][place], expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(numbers[:, 1:], axis=0)) == B


def test_cutmix_cuts_areas_that_are_drawn_evenly():
    """Beta(1, 1) is the even distribution; boxes that no border clips show it."""
    numbers = batch_augment.CutMix().draw(20_000, (400, 600), np.random.default_rng(0))
    height, width = numbers[:, 2] - numbers[:, 1], numbers[:, 4] - numbers[:, 3]
    whole = (numbers[:, 1] > 0) & (numbers[:, 2] < 400) & (numbers[:, 3] > 0) & (numbers[:, 4] < 600)
    np.testing.assert_allclose(height[whole] / 400, width[whole] / 600, atol=1 / 400 + 1e-6)
    assert 0.2 < np.mean(height * width) / (400 * 600) < 0.5  # 0.5 before clipping
    centres = (numbers[:, 1] + numbers[:, 2])[height < 8] / 800
    assert abs(centres.mean() - 0.5) < 0.08


def rand(number, one=0.0, two=0.0, even=0.0, sign=1.0, operations=1):
    """A RandAugment and draws that apply one operation to all images."""
    augmentation = batch_augment.RandAugment(operations=operations)
    return augmentation, tf.constant([[number, one, two, even, sign]] * B, tf.float32)


def grey(images):
    return (images @ np.array([0.2989, 0.587, 0.114]))[..., np.newaxis]


def stretched(images):
    low, high = images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)
    return (images - low) * 255 / (high - low)


def equalised(images):
    return np.stack([np.asarray(ImageOps.equalize(Image.fromarray(image.astype(np.uint8)))) for image in images])


def solarised(images):
    brighter = np.minimum(images + 0.4 * 110, 255)
    return np.where(brighter < 0.7 * 255, brighter, 255 - brighter)


def warped(images, matrix):
    options = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REFLECT}
    return np.stack([cv2.warpAffine(image, np.float32(matrix), SIZE[::-1], **options) for image in images])


OPERATIONS = [
    ("auto contrast", (0,), stretched),
    ("equalisation", (1,), equalised),
    ("solarisation", (2, 0.4, 0.3), solarised),
    ("colour", (3, 0.4), lambda images: 0.6 * images + 0.4 * grey(images)),
    (
        "contrast",
        (4, 0, 0, 0.3),
        lambda images: np.clip(1.3 * images - 0.3 * images.mean(axis=(1, 2), keepdims=True), 0, 255),
    ),
    ("brightness", (5, 0, 0, -0.2), lambda images: np.clip(images - 51, 0, 255)),
    ("shear x", (6, 0.5, 0, 0, -1), lambda images: warped(images, [[1, -0.5, 0], [0, 1, 0]])),
    ("shear y", (7, 0.5, 0, 0, 1), lambda images: warped(images, [[1, 0, 0], [0.5, 1, 0]])),
    ("shift x", (8, 0, 0, 0.25), lambda images: warped(images, [[1, 0, -6], [0, 1, 0]])),
    ("shift y", (9, 0, 0, -0.25), lambda images: warped(images, [[1, 0, 0], [0, 1, 4]])),
    ("none", (10, 0.5, 0.5, 0.5), lambda images: images),
]


@pytest.mark.parametrize(("name", "numbers", "expected"), OPERATIONS, ids=[name for name, *_ in OPERATIONS])
def test_operations_of_rand_augment(name, numbers, expected):
    augmentation, columns = rand(*numbers)
    inputs, targets = batch()
    smooth = np.stack([cv2.resize(image, SIZE[::-1]) for image in np.random.default_rng(0).uniform(0, 255, (B, 3, 4, 3))])
    inputs["image"] = tf.constant(smooth, tf.float32)
    results, moved = numpy(augmentation(inputs, targets, columns))
    np.testing.assert_allclose(results["image"], expected(inputs["image"].numpy()), atol=1.01 if name == "equalisation" else 0.05)
    np.testing.assert_array_equal(moved["label"], targets["label"])
    np.testing.assert_array_equal(results["metadata"], inputs["metadata"])
    if not name.startswith("sh"):
        np.testing.assert_array_equal(moved["mask"], targets["mask"])


@pytest.mark.parametrize("number", [6, 7, 8, 9])
def test_rand_augment_moves_masks_with_their_images(number):
    """A white lesion on black, drawn into image and mask alike, must stay the same in both."""
    augmentation, columns = rand(number, 0.37, 0, 0.23, -1)
    mask = np.zeros((B, *SIZE, 1), np.float32)
    for place in range(B):
        cv2.ellipse(mask[place], (8 + place, 7), (6, 4), 20 * place, 0, 360, 1, -1)
    values = {"image": tf.constant(255 * mask.repeat(3, axis=-1))}, {"mask": tf.constant(mask), "mask_aux_2": tf.constant(mask)}
    results, moved = numpy(augmentation(*values, columns))
    assert set(np.unique(moved["mask"])) == {0.0, 1.0}
    assert (moved["mask"] != mask).mean() > 0.03
    bright = results["image"][..., :1] / 255
    assert np.abs(moved["mask"] - bright).max() <= 0.51  # the nearest pixel has more than half of the weight
    np.testing.assert_array_equal(moved["mask_aux_2"], moved["mask"])


def test_rand_augment_has_the_operations_of_keras_cv():
    from keras_cv.layers import RandAugment

    policy = RandAugment.get_standard_policy((0, 255), 0.5, 0.15)
    assert [type(layer) for layer, _ in batch_augment.RandAugment()._layers] == [type(layer) for layer in policy]
    assert len(batch_augment.RandAugment(geometric=False)._layers) == 6


def test_rand_augment_gives_each_image_its_own_operations():
    augmentation, (inputs, targets) = batch_augment.RandAugment(operations=2), batch()
    numbers = np.zeros((B, 10), np.float32)
    numbers[:, 0], numbers[:, 5] = [5, 10, 9, 4, 5, 0], [10, 10, 5, 3, 5, 8]
    numbers[:, [3, 8]] = 0.25
    numbers[:, 6] = 0.5
    together, moved = numpy(augmentation(inputs, targets, tf.constant(numbers)))
    for place in range(B):
        one = tf.nest.map_structure(lambda value, place=place: value[place : place + 1], (inputs, targets))
        alone, alone_moved = numpy(augmentation(*one, tf.constant(numbers[place : place + 1])))
        np.testing.assert_allclose(together["image"][place], alone["image"][0], atol=1e-3)
        np.testing.assert_array_equal(moved["mask"][place], alone_moved["mask"][0])
    np.testing.assert_array_equal(together["image"][1], inputs["image"][1])
    assert (
        len({numbers.tobytes() for numbers in (augmentation.draw(B, SIZE, np.random.default_rng(seed)) for seed in range(9))})
        == 9
    )


def test_rand_augment_draws_within_its_ranges():
    augmentation = batch_augment.RandAugment(magnitude=0.4, magnitude_stddev=0.1, operations=1, rate=0.5)
    number, one, two, even, sign = augmentation.draw(50_000, SIZE, np.random.default_rng(0)).T
    shares = np.bincount(number.astype(int), minlength=11) / len(number)
    np.testing.assert_allclose(shares, [0.05] * 10 + [0.5], atol=0.01)
    for normal in (one, two):
        assert abs(normal.mean() - 0.4) < 0.01
        assert abs(normal.std() - 0.1) < 0.01
    assert -0.4 <= even.min() < -0.39 < 0.39 < even.max() <= 0.4
    assert set(sign) == {-1, 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_start_in_the_middle_gives_exactly_what_was_left(table, name):
    options = {"augmentation": augment.FlipsRotations(), "sampler": Oversample(), "seed": 5, "batch_size": 5}
    undisturbed = data(table, name, **options)
    undisturbed.start(3)
    expected = collect(undisturbed.dataset())
    assert [len(inputs["image"]) for inputs, _ in expected] == [5, 5, 2]
    fresh = data(table, name, **options)
    dataset = fresh.dataset()
    fresh.start(3, 1)
    assert_same(collect(dataset), expected[1:])
    fresh.start(4)
    other = collect(dataset)
    assert not np.array_equal(other[0][0]["image"], expected[0][0]["image"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "outputs"), [("mixup", ["label"]), ("cutmix", ["mask", "label"]), ("rand_augment", ["mask"])])
def test_elements_keep_their_keys_shapes_and_types(table, name, outputs):
    plain = batches.training_data(table, CLASSES, SIZE, ["image"], outputs, 4)
    training = data(table, name, outputs)
    assert training.dataset().element_spec == plain.dataset().element_spec
    collected = collect(training.dataset())
    unchanged = collect(plain.dataset())
    assert any((one[0]["image"] != other[0]["image"]).any() for one, other in zip(collected, unchanged, strict=True))
    for inputs, targets in collected:
        assert inputs["image"].min() >= 0
        assert inputs["image"].max() <= 255
        if "label" in outputs:
            np.testing.assert_allclose(targets["label"].sum(axis=1), 1, atol=1e-6)
            assert targets["label"].min() >= 0
        if "mask" in outputs:
            assert set(np.unique(targets["mask"])) <= {0.0, 1.0}
    if "label" in outputs:
        assert any(0 < share < 1 for _, targets in collected for share in targets["label"].ravel())


def test_what_cannot_be_done_is_refused(table):
    with pytest.raises(
        UserError, match="blends the images of two lesions, which have no common outline, but the model has the output 'mask'"
    ):
        data(table, "mixup", ["mask", "label"])
    with pytest.raises(UserError, match="changes images, but the model takes only 'metadata'"):
        batch_augment.CutMix().check(["metadata"], ["label"])
    for name, arguments, message in (
        ("mixup", {"alpha": 0}, r"batch_augmentation\.alpha is 0, expected a number above 0"),
        ("cutmix", {"alpha": "1"}, r"batch_augmentation\.alpha is '1'"),
        ("rand_augment", {"magnitude": 2, "operations": 0}, r"magnitude is 2, expected .*\n.*operations is 0, expected a whole"),
    ):
        with pytest.raises(UserError, match=message):
            batch_augment.get(name).builder(**arguments)


def test_names_and_arguments_are_read_from_the_source():
    assert batch_augment.names() == sorted(NAMES)
    assert list(batch_augment.registry.parameters("mixup")) == ["alpha"]
    expected = ["magnitude", "magnitude_stddev", "operations", "rate", "geometric"]
    assert list(batch_augment.registry.parameters("rand_augment")) == expected

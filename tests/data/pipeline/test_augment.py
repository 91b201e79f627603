import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from keras_skin.data.pipeline import augment
from keras_skin.data.pipeline.augment import JRL16, Dermoscopy, DualRefNetAugmentation, FlipsRotations, octagon_symmetry
from keras_skin.registry import UserError

POLICIES = {"none": {}, "jrl_16": {}, "flips_rotations": {}, "dualrefnet": {}, "dermoscopy": {}}
STILL = {"brightness": 0.0, "contrast": 0.0}
RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
MASK = np.zeros((24, 32), np.uint8)
MASK[4:15, 9:26] = 1


def rng(seed=0):
    return np.random.default_rng(seed)


def test_names():
    assert augment.names() == sorted(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_shapes_types_and_purity(name):
    policy = augment.get(name).builder(**POLICIES[name])
    labels = np.array(["benign", "malignant", "benign"], dtype=object)
    indices, variants = policy.plan(labels, 0, rng())
    assert set(indices) == {0, 1, 2}
    before = IMAGE.copy(), MASK.copy()
    for number, variant in enumerate(variants):
        image, mask = policy(IMAGE, MASK, variant, rng(number))
        assert (image.shape, image.dtype, mask.shape, mask.dtype) == (IMAGE.shape, np.uint8, MASK.shape, np.uint8)
        assert set(np.unique(mask)) <= {0, 1}
        again, mask_again = policy(IMAGE, MASK, variant, rng(number))
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(mask, mask_again)
        alone, nothing = policy(IMAGE, None, variant, rng(number))
        assert nothing is None
        np.testing.assert_array_equal(alone, image)
        assert policy.changes_images or (image is IMAGE and mask is MASK)
    np.testing.assert_array_equal(IMAGE, before[0])
    np.testing.assert_array_equal(MASK, before[1])


@pytest.mark.parametrize("name", ["jrl_16", "flips_rotations", "dualrefnet", "dermoscopy"])
def test_threads_do_not_disturb_each_other(name):
    policy = augment.get(name).builder()
    expected = [policy(IMAGE, MASK, number % 16, rng(number)) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda number: policy(IMAGE, MASK, number % 16, rng(number)), range(40)))
    for (image, mask), (expected_image, expected_mask) in zip(results, expected, strict=True):
        np.testing.assert_array_equal(image, expected_image)
        np.testing.assert_array_equal(mask, expected_mask)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("jrl_16", {}),
        ("flips_rotations", {**STILL, "rotation": 40.0}),
        ("dualrefnet", {**STILL, "scale": 0.5, "saturation": 0.0, "noise": 0.0}),
        ("dermoscopy", {**STILL, "colour": 0.0}),
    ],
)
def test_mask_moves_with_the_image(name, arguments):
    """A picture that shows its own mask still shows it afterwards."""
    policy = augment.get(name).builder(**arguments)
    y, x = np.mgrid[:96, :128]
    mask = ((x - 50) ** 2 / 900 + (y - 40) ** 2 / 400 < 1).astype(np.uint8)
    image = np.repeat(mask[..., np.newaxis] * 255, 3, axis=-1).astype(np.uint8)
    for variant in range(16):
        moved, moved_mask = policy(image, mask, variant, rng(variant))
        shown = (moved[..., 0] >= 128).astype(np.uint8)
        assert (shown != moved_mask).mean() < 0.01
        assert shown.any()


def test_the_sixteen_are_the_symmetries_of_the_octagon():
    linear = [octagon_symmetry(variant, 24, 32)[:, :2] for variant in range(16)]
    for variant, one in enumerate(linear):
        np.testing.assert_allclose(one @ one.T, np.eye(2), atol=1e-12)
        assert np.linalg.det(one) == pytest.approx(1 if variant < 8 else -1)
        assert sum(np.allclose(one, other) for other in linear) == 1, f"variant {variant} is there twice"
    products = [a @ b for a in linear for b in linear]
    assert all(any(np.allclose(product, one) for one in linear) for product in products), "they form a group"


def test_variants_are_the_documented_ones():
    square = RNG.integers(0, 256, (21, 21, 3), dtype=np.uint8)
    quarter = {
        0: square,
        2: np.rot90(square),
        4: np.rot90(square, 2),
        6: np.rot90(square, 3),
        8: square[:, ::-1],
        10: np.rot90(square)[:, ::-1],
        12: square[::-1],
        14: np.rot90(square)[::-1],
    }
    for variant, expected in quarter.items():
        np.testing.assert_array_equal(JRL16()(square, None, variant, rng())[0], expected, err_msg=f"variant {variant}")
    matrix = cv2.getRotationMatrix2D((10, 10), 45, 1.0)
    turned = cv2.warpAffine(square, matrix, (21, 21), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(JRL16()(square, None, 1, rng())[0], turned)
    np.testing.assert_array_equal(JRL16()(square, None, 9, rng())[0], turned[:, ::-1])


def test_half_turns_and_flips_are_exact_in_any_frame():
    for variant, expected in {4: IMAGE[::-1, ::-1], 8: IMAGE[:, ::-1], 12: IMAGE[::-1]}.items():
        np.testing.assert_array_equal(JRL16()(IMAGE, None, variant, rng())[0], expected)


def test_corners_are_filled_with_the_picture():
    bright = RNG.integers(150, 256, (48, 64, 3), dtype=np.uint8)
    assert min(JRL16()(bright, None, variant, rng())[0].min() for variant in range(16)) >= 149
    full = np.ones((48, 64), np.uint8)
    assert all(JRL16()(bright, full, variant, rng())[1].all() for variant in range(16))


def test_copies_are_different_variants_and_as_many_as_asked_for():
    labels = np.array(["benign"] * 727 + ["malignant"] * 173, dtype=object)
    indices, variants = JRL16().plan(labels, 0, rng())
    assert len(indices) == len(variants) == 5676
    assert np.bincount(indices).tolist() == [4] * 727 + [16] * 173
    assert len(set(zip(indices.tolist(), variants.tolist(), strict=True))) == 5676
    more, many = JRL16(copies={"benign": 35, "malignant": 0}).plan(labels[725:729], 0, rng())
    assert np.bincount(more).tolist() == [35, 35]
    assert sorted(np.bincount(many[:35]).tolist()) == [2] * 13 + [3] * 3


@pytest.mark.parametrize("melanomas", [173, 577, 727, 4000])
def test_level_gives_a_class_as_many_samples_as_the_others(melanomas):
    """MTL4 of paper 001; the number is the same in every epoch, which images make it up is not."""
    labels = np.array(["benign"] * 727 + ["malignant"] * melanomas, dtype=object)
    policy = JRL16(copies={"benign": 4, "malignant": "level"})
    (indices, variants), (other, _) = (policy.plan(labels, epoch, rng(epoch)) for epoch in (0, 1))
    np.testing.assert_array_equal(policy.plan(labels, 1, rng(1))[0], other)
    copies, again = (np.bincount(rows, minlength=len(labels)) for rows in (indices, other))
    for counts in (copies, again):
        assert counts[:727].tolist() == [4] * 727
        assert counts[727:].sum() == 2908
        assert np.ptp(counts[727:]) <= 1
    assert (copies != again).any() == bool(2908 % melanomas)
    assert melanomas < 577 or len(set(zip(indices.tolist(), variants.tolist(), strict=True))) == len(indices)


def test_level_without_another_class_shows_every_image_once():
    labels = np.array(["malignant"] * 5, dtype=object)
    assert JRL16(copies={"benign": 4, "malignant": "level"}).plan(labels, 0, rng())[0].tolist() == [0, 1, 2, 3, 4]


def test_plan_differs_between_epochs_and_repeats_with_its_generator():
    labels = np.array(["benign"] * 50, dtype=object)
    first, second, again = (JRL16().plan(labels, epoch, rng(seed))[1] for epoch, seed in ((0, 0), (1, 1), (0, 0)))
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)


def test_no_rotation_leak():
    """Both classes show the same operations equally often, so that the corners of a picture do not tell its class."""
    labels = np.array(["benign"] * 400 + ["malignant"] * 100, dtype=object)
    share, corner = {}, {}
    white = np.full((24, 32, 3), 255, np.uint8)
    white[6:18, 8:24] = RNG.integers(0, 256, (12, 16, 3))
    corners = [JRL16()(white, None, variant, rng())[0][[0, 0, -1, -1], [0, -1, 0, -1]].mean() for variant in range(16)]
    for name in ("benign", "malignant"):
        variants = np.concatenate(
            [
                variants[labels[indices] == name]
                for indices, variants in (JRL16().plan(labels, epoch, rng(epoch)) for epoch in range(10))
            ]
        )
        share[name] = np.bincount(variants, minlength=16) / len(variants)
        corner[name] = share[name] @ corners
    np.testing.assert_array_equal(share["malignant"], 1 / 16)
    # 16,000 draws of benign variants: a standard deviation of 0.0019 at most
    np.testing.assert_allclose(share["benign"], 1 / 16, atol=0.008)
    assert corner["benign"] == pytest.approx(corner["malignant"], rel=0.01)


def test_a_class_without_copies_is_a_users_mistake():
    with pytest.raises(UserError, match=r"augmentation.copies lacks the class 'nevus': it names 'benign', 'malignant'"):
        JRL16().plan(np.array(["benign", "nevus"], dtype=object), 0, rng())
    with pytest.raises(UserError, match=r"augmentation.copies: .*-1.*'even'.* must be whole numbers from 0 on, or 'level'"):
        JRL16(copies={"benign": -1, "malignant": "even", "nevus": "level"})


def test_all_arguments_out_of_range_are_named():
    with pytest.raises(UserError, match=r"(?s)rotation is 200, expected a number from 0 to 180.*contrast is 'much'"):
        FlipsRotations(rotation=200, contrast="much")
    with pytest.raises(UserError, match=r"(?s)scale is 1, expected a number from 0 to 0.9.*noise is -0.1"):
        DualRefNetAugmentation(scale=1, noise=-0.1)


def test_flips_rotations_does_what_its_arguments_say():
    only_flip = FlipsRotations(horizontal_flip=1.0, vertical_flip=0.0, rotation=0.0, brightness=0.0, contrast=0.0)
    image, mask = only_flip(IMAGE, MASK, 0, rng())
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    np.testing.assert_array_equal(mask, MASK[:, ::-1])
    light = FlipsRotations(horizontal_flip=0.0, vertical_flip=0.0, rotation=0.0)
    image, mask = light(IMAGE, MASK, 0, rng())
    assert (image != IMAGE).any()
    np.testing.assert_array_equal(mask, MASK)


def test_dualrefnet_scales_about_the_centre_in_its_frame():
    """A disc keeps its place and its shape and changes its radius, by every factor up to the largest."""
    alone = {**STILL, "horizontal_flip": 0.0, "vertical_flip": 0.0, "saturation": 0.0, "noise": 0.0}
    y, x = np.mgrid[:97, :129]
    disc = (((x - 64) ** 2 + (y - 48) ** 2 < 20**2) * 255).astype(np.uint8)
    policy, radii = DualRefNetAugmentation(scale=0.3, **alone), []
    for seed in range(60):
        image, _ = policy(np.repeat(disc[..., np.newaxis], 3, axis=-1), None, 0, rng(seed))
        rows, columns = np.nonzero(image[30:67, 40:89, 0] >= 128)  # reflections of the disc can turn up at the border
        assert (rows.mean() + 30, columns.mean() + 40) == pytest.approx((48, 64), abs=0.6)
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1) or np.ptp(rows) == 36
        radii.append(np.ptp(columns) / 2)
    assert min(radii) == pytest.approx(20 * 0.7, abs=1.5)
    assert max(radii) == pytest.approx(min(20 * 1.3, 24), abs=1.5)
    still, _ = DualRefNetAugmentation(scale=0.0, **alone)(IMAGE, None, 0, rng())
    np.testing.assert_array_equal(still, IMAGE)


def test_dualrefnet_mixes_with_grey_and_adds_noise():
    """Saturation moves a pixel along the line to its grey; noise has the deviation asked for, different from pixel to pixel."""
    alone = {**STILL, "horizontal_flip": 0.0, "vertical_flip": 0.0, "scale": 0.0}
    colour = np.full((8, 8, 3), (180, 120, 60), np.uint8)
    grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)[0, 0].astype(float)
    factors = []
    for seed in range(60):
        image, _ = DualRefNetAugmentation(saturation=0.4, noise=0.0, **alone)(colour, None, 0, rng(seed))
        factor = (image[0, 0] - grey) / (colour[0, 0] - grey)
        assert factor[[0, 2]] == pytest.approx(factor[0], abs=0.04)
        factors.append(factor[0])
    assert min(factors) == pytest.approx(0.6, abs=0.06)
    assert max(factors) == pytest.approx(1.4, abs=0.06)
    flat = np.full((64, 64, 3), 128, np.uint8)
    deviations = []
    for seed in range(40):
        image, _ = DualRefNetAugmentation(saturation=0.0, noise=0.1, **alone)(flat, None, 0, rng(seed))
        deviations.append(image.std(axis=(0, 1)))
        assert image.mean() == pytest.approx(128, abs=1)
    assert np.max(deviations) == pytest.approx(25.5, abs=2)
    assert np.min(deviations) < 4


def test_dermoscopy_moves_as_far_as_its_arguments_say():
    """The place, angle and size of an ellipse, over many draws."""
    y, x = np.mgrid[:193, :257]
    ellipse = ((x - 128) ** 2 / 30**2 + (y - 96) ** 2 / 15**2 < 1).astype(np.uint8)
    image, centres, angles, areas = np.repeat(ellipse[..., np.newaxis] * 200, 3, axis=-1).astype(np.uint8), [], [], []
    for seed in range(300):
        _, mask = Dermoscopy()(image, ellipse, 0, rng(seed))
        _, components, _, positions = cv2.connectedComponentsWithStats(mask)
        # At the border there can be reflections of the ellipse: it is the one nearest to the centre.
        number = 1 + np.argmin(np.hypot(*(positions[1:] - (128, 96)).T))
        (cx, cy), _, angle = cv2.fitEllipse(np.argwhere(components == number)[:, ::-1].astype(np.float32))
        centres.append((cx - 128, cy - 96))
        angles.append(angle)
        areas.append((components == number).sum() / ellipse.sum())
    np.testing.assert_allclose(np.abs(centres).max(axis=0), [25.7, 19.3], rtol=0.06)
    assert np.histogram(angles, 6, (0, 180))[0].min() > 25, "every direction occurs"
    np.testing.assert_allclose([min(areas), max(areas)], [0.64, 1.5625], rtol=0.05)
    still, mask = Dermoscopy(rotation=0, scale=0, shift=0, colour=0, brightness=0, contrast=0)(image, ellipse, 0, rng(1))
    assert np.abs(still.astype(int) - image).max() == 0 or (mask == ellipse[::-1, ::-1]).mean() > 0.99


@pytest.mark.parametrize("place", [(5, 5), (250, 186), (128, 2), (253, 96)])
def test_dermoscopy_never_loses_a_lesion(place):
    """Lesions of radius 12 near the border of the frame: without the correction a quarter of them would leave it."""
    y, x = np.mgrid[:192, :256]
    mask = ((x - place[0]) ** 2 + (y - place[1]) ** 2 < 12**2).astype(np.uint8)
    image = np.full((192, 256, 3), 128, np.uint8)
    for seed in range(100):
        moved = Dermoscopy(scale=0.25, shift=0.3)(image, mask, 0, rng(seed))[1]
        assert moved.sum() >= 0.4 * mask.sum()


def test_dermoscopy_changes_light_and_colour():
    """With each argument alone: a factor per channel, a sum for all, a distance from the mean."""
    none = {"rotation": 0, "scale": 0, "shift": 0, "colour": 0, "brightness": 0, "contrast": 0}
    flat = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    gains = (
        np.array([Dermoscopy(**{**none, "colour": 0.15})(flat, None, 0, rng(seed))[0][0, 0] for seed in range(200)]) / flat[0, 0]
    )
    np.testing.assert_allclose([gains.min(axis=0), gains.max(axis=0)], [[0.85] * 3, [1.15] * 3], atol=0.02)
    assert np.abs(np.corrcoef(gains.T)[np.triu_indices(3, 1)]).max() < 0.25
    sums = np.array([Dermoscopy(**{**none, "brightness": 0.15})(flat, None, 0, rng(seed))[0][0, 0] for seed in range(100)]) - 0.0
    assert (sums - flat[0, 0]).std(axis=1).max() == 0
    assert np.abs(sums - flat[0, 0]).max() == pytest.approx(38, abs=2)
    half = flat.copy()
    half[:, :4] = (100, 60, 30)
    spread = [np.ptp(Dermoscopy(**{**none, "contrast": 0.2})(half, None, 0, rng(seed))[0][..., 0]) / 100 for seed in range(100)]
    assert (min(spread), max(spread)) == pytest.approx((0.8, 1.2), abs=0.03)
    with pytest.raises(UserError, match=r"(?s)shift is 0.6, expected a number from 0 to 0.5.*colour is -1"):
        Dermoscopy(shift=0.6, colour=-1)


@pytest.mark.slow
def test_albumentations_is_imported_when_needed_and_asks_no_network():
    code = """
import os, sys
import numpy as np
from keras_skin.data.pipeline import augment
augment.get("jrl_16").builder()
assert "albumentations" not in sys.modules
augment.get("flips_rotations").builder()(np.zeros((8, 8, 3), np.uint8), None, 0, np.random.default_rng(0))
assert "albumentations" in sys.modules
assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_agpl_successor_under_the_same_name_is_refused(monkeypatch):
    monkeypatch.setattr(augment.importlib.metadata, "distributions", lambda name: [name] if name == "albumentationsx" else [])
    with pytest.raises(UserError, match=r"(?s)AlbumentationsX is installed.*pip uninstall albumentationsx"):
        FlipsRotations()(IMAGE, MASK, 0, rng())

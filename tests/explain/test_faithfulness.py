"""Faithfulness: right maps pass, wrong maps get a red line, and every number has a second way to compute it."""

import keras
import numpy as np
import pytest
from sklearn.metrics import auc

from keras_skin.explain.faithfulness import FRACTIONS, measure_faithfulness
from keras_skin.explain.grad_cam import GradCAM
from keras_skin.explain.samples import ExplainSample

SIZE = (12, 16)
CLASSES = ("benign", "malignant")
REGION = np.zeros(SIZE, bool)
REGION[1:5, 2:6] = True  # off the centre


def spot_model(outputs=("label",)):
    """Malignant if the region is bright; the mask is where it is bright."""
    image = keras.Input((*SIZE, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 10, -12.0)(image)
    label = keras.layers.Dense(2, name="label")(keras.layers.Flatten()(scaled))
    kernel = np.zeros((*SIZE, 3, 2), "float32")
    kernel[REGION, :, 1] = 1 / (3 * REGION.sum())
    mask = keras.layers.Conv2D(1, 1, name="mask")(scaled)
    model = keras.Model({"image": image}, {key: {"label": label, "mask": mask}[key] for key in outputs})
    if "label" in outputs:
        model.get_layer("label").set_weights([kernel.reshape(-1, 2), np.zeros(2, "float32")])
    if "mask" in outputs:
        model.get_layer("mask").set_weights([np.full((1, 1, 3, 1), 1 / 3, "float32"), np.zeros(1, "float32")])
    return model


@pytest.fixture(scope="module")
def samples():
    generator = np.random.default_rng(0)
    images = generator.uniform(40, 60, (12, *SIZE, 3)).astype("float32")
    images[:, REGION] += 150
    return [ExplainSample(f"im{i}", {"image": image}, i % 4 and 1, REGION) for i, image in enumerate(images)]


def constant(map_):
    return lambda inputs, index=None: np.broadcast_to(map_.astype("float32"), (len(inputs["image"]), *SIZE))


@pytest.fixture(scope="module")
def right(samples):
    return measure_faithfulness(spot_model(("label", "mask")), {"right": constant(REGION)}, samples, CLASSES)


def test_a_right_map_passes(right):
    values = {name: metric["value"] for name, metric in right.metrics["right"].items()}
    assert values["relevance_inside"] == values["pointing_game"] == values["iou_true_mask"] == 1
    assert values["iou_predicted_mask"] == values["iou_predicted_mask/malignant"] == 1
    assert values["relevance_inside_gain"] == pytest.approx(1 - values["relevance_inside_gaussian"])
    assert values["lesion_share"] == pytest.approx(REGION.mean())
    assert values["deletion_auc"] < 0.15
    assert values["insertion_auc"] > 0.85
    for gain in ("deletion_gain_gaussian", "deletion_gain_random", "insertion_gain_gaussian", "insertion_gain_random"):
        assert right.metrics["right"][gain]["ci95"][0] > 0
    assert right.metrics["right"]["relevance_inside"]["n"] == 12
    # only the shuffled weights fail: the map is no function of the weights
    assert values["shuffled_correlation"] == pytest.approx(1)
    assert len(right.warnings) == 1
    assert "shuffled weights" in right.warnings[0]


def test_table_and_curves_agree(right):
    assert right.table["correct"].tolist() == [float(i % 4 != 0) for i in range(12)]
    curve = right.curves["right"]["deletion"]["map"]
    assert auc(FRACTIONS, curve) == pytest.approx(right.table["deletion_auc"].mean())
    assert curve[0] > 0.99
    for way, first, last in (("deletion", 0, -1), ("insertion", -1, 0)):
        ends = [(curve[first], curve[last]) for curve in right.curves["right"][way].values()]
        np.testing.assert_allclose(ends, [ends[0]] * 3)


def test_deletion_equals_painting_by_hand(samples):
    model = spot_model()
    result = measure_faithfulness(model, {"right": constant(REGION)}, samples[:1], CLASSES, resamples=0)
    image = samples[0].inputs["image"]
    painted = image.copy()
    painted[REGION] = image.mean(axis=(0, 1))
    whole, without = (keras.ops.softmax(model({"image": value[None]})["label"])[0, 1] for value in (image, painted))
    share = REGION.mean()
    curve = result.curves["right"]["deletion"]["map"]
    after = share <= FRACTIONS
    np.testing.assert_allclose(curve[0], whole, rtol=1e-5)
    np.testing.assert_allclose(curve[after], np.full(after.sum(), without), rtol=1e-4, atol=1e-6)


def test_one_class_is_measured_on_all_images(samples):
    asked = []

    def maps(inputs, index=None):
        asked.extend(np.asarray(index).tolist())
        return constant(REGION)(inputs)

    dark = [ExplainSample("dark", {"image": samples[0].inputs["image"] * 0}, 0, REGION)]
    result = measure_faithfulness(spot_model(), {"right": maps}, [*samples[:3], *dark], CLASSES, class_index=1, resamples=0)
    assert set(asked) == {1}
    assert result.table["explained"].tolist() == ["malignant"] * 4
    # all bright images are predicted malignant, as two of them are; the dark one is benign and is called so
    assert result.table["correct"].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_a_wrong_map_gets_red_lines(samples):
    wrong = np.zeros(SIZE)
    wrong[9:, 10:] = 1
    result = measure_faithfulness(spot_model(), {"wrong": constant(wrong)}, samples, CLASSES)
    text = " ".join(result.warnings)
    for subject in ("relevance inside the lesion", "deletion", "insertion"):
        assert f"by {subject}, the maps are no better than a Gaussian" in text
    assert result.metrics["wrong"]["relevance_inside"]["value"] == 0


def test_a_blank_map_is_counted_and_not_measured(samples):
    result = measure_faithfulness(spot_model(), {"blank": constant(np.zeros(SIZE))}, samples, CLASSES)
    assert result.metrics["blank"]["no_evidence"]["value"] == 1
    assert "relevance_inside" not in result.metrics["blank"]
    assert "deletion_auc" not in result.metrics["blank"]


def test_a_mask_is_scored_by_its_predicted_lesion(samples):
    result = measure_faithfulness(spot_model(("mask",)), {"right": constant(REGION)}, samples[:3], CLASSES)
    assert result.table["explained"].tolist() == [""] * 3
    assert result.table["correct"].isna().all()
    assert result.metrics["right"]["deletion_auc"]["value"] < 0.15


def test_grad_cam_of_shuffled_weights_differs_and_the_model_does_not_change(samples):
    keras.utils.set_random_seed(2)
    image = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="cam_features")(keras.layers.Rescaling(1 / 255)(image))
    label = keras.layers.Dense(2, name="label")(keras.layers.Flatten()(keras.layers.MaxPooling2D(4)(x)))
    model = keras.Model({"image": image}, {"label": label})
    before = model.get_weights()
    first, second = (
        measure_faithfulness(model, {"cam_features": GradCAM(model)}, samples[:4], CLASSES, seed=1) for _ in range(2)
    )
    assert first.table["shuffled_correlation"].abs().max() < 0.999
    assert first.table.equals(second.table)
    for value, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)

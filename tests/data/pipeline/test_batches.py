import functools
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from keras_skin.data.images.load import load_image, load_mask
from keras_skin.data.images.store import open_store
from keras_skin.data.pipeline import augment, batches
from keras_skin.data.pipeline.balance import Draw
from keras_skin.data.pipeline.balance.repeats import Oversample
from keras_skin.data.pipeline.order import EpochOrder
from keras_skin.registry import UserError

SIZE = (12, 16)
CLASSES = ("benign", "malignant")
N = 11


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder, rng, rows = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1), []
    for number in range(N):
        height, width = [(24, 32), (120, 160), (30, 41)][number % 3]
        blocks = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2 + number, width // 5 : width // 2] = 255
        image_file, mask_file = folder / f"{number:02}.jpg", folder / f"{number:02}.png"
        blocks.resize((width, height), Image.Resampling.BICUBIC).save(image_file)
        Image.fromarray(mask).save(mask_file)
        rows.append(
            {"image_id": f"{number:02}", "image": str(image_file), "mask": str(mask_file), "label": CLASSES[number % 4 == 0]}
        )
    return pd.DataFrame(rows)


def data(table, augmentation="jrl_16", outputs=("mask", "label"), batch_size=4, **options):
    return batches.training_data(
        table, CLASSES, SIZE, ["image"], list(outputs), batch_size, augmentation=augment.get(augmentation).builder(), **options
    )


class Drawn:
    def __init__(self, rows, partners=None, shares=None):
        self.rows, self.partners, self.shares = rows, partners, shares

    def draw(self, labels, epoch, rng):
        return Draw(self.rows(labels, epoch), self.partners, self.shares)


def collect(dataset):
    return [tf.nest.map_structure(lambda value: value.numpy(), batch) for batch in dataset]


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("outputs", [["mask", "label"], ["label"], ["mask"]])
def test_elements_have_exactly_the_keys_asked_for(table, outputs):
    training = data(table, outputs=outputs)
    inputs, targets = next(iter(training.dataset()))
    assert set(inputs) == {"image"}
    assert set(targets) == set(outputs)
    assert inputs["image"].shape == (4, *SIZE, 3)
    assert inputs["image"].dtype == tf.float32
    assert float(tf.reduce_max(inputs["image"])) > 100
    if "mask" in outputs:
        assert targets["mask"].shape == (4, *SIZE, 1)
        assert targets["mask"].dtype == tf.float32
        assert set(np.unique(targets["mask"])) == {0.0, 1.0}
    if "label" in outputs:
        assert targets["label"].shape == (4, 2)
        np.testing.assert_array_equal(tf.reduce_sum(targets["label"], axis=1), 1)
    assert training.dataset().element_spec[0]["image"].shape.as_list() == [None, *SIZE, 3]


def test_masks_are_not_opened_when_not_asked_for(table):
    without = table.assign(mask="")
    assert len(collect(data(without, outputs=["label"]).dataset())) == data(table).steps


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["jrl_16", "flips_rotations"])
def test_a_start_in_the_middle_gives_exactly_what_was_left(table, augmentation):
    undisturbed = data(table, augmentation, seed=5)
    undisturbed.start(3)
    expected = collect(undisturbed.dataset())
    assert len(expected) == undisturbed.steps
    fresh = data(table, augmentation, seed=5)
    dataset = fresh.dataset()
    fresh.start(3, 1)
    assert (fresh.epoch, fresh.step) == (3, 1)
    assert_same(collect(dataset), expected[1:])
    assert_same(collect(dataset), expected[1:])  # nothing advances by itself
    fresh.start(0)
    next(iter(dataset))
    fresh.start(3, 2)
    assert_same(collect(dataset), expected[2:])


def test_level_classes_resume_and_every_epoch_has_as_many_samples():
    """Copies that are dealt anew each epoch depend on seed and epoch alone."""
    labels = np.array(["benign"] * 20 + ["malignant"] * 7, dtype=object)
    policy = augment.JRL16(copies={"benign": 3, "malignant": "level"})
    first, resumed = (EpochOrder(labels, 10, 5, None, policy, None) for _ in range(2))
    plans = [first.samples(epoch).rows for epoch in range(4)]
    np.testing.assert_array_equal(resumed.samples(3).rows, plans[3])
    assert [len(rows) for rows in plans] == [120] * 4
    assert len({tuple(np.bincount(rows).tolist()) for rows in plans}) > 1


def test_epochs_and_seeds_differ(table):
    training = data(table, "none", ["label"], batch_size=N)
    first = collect(training.dataset())[0][0]["image"]
    training.start(1)
    second = collect(training.dataset())[0][0]["image"]
    other = collect(data(table, "none", ["label"], batch_size=N, seed=1).dataset())[0][0]["image"]
    for changed in (second, other):
        assert (first != changed).any()
        np.testing.assert_allclose(np.sort(first.sum(axis=(1, 2, 3))), np.sort(changed.sum(axis=(1, 2, 3))), rtol=1e-6)


def test_augmentation_of_a_repeated_image_differs(table):
    training = batches.training_data(
        table,
        CLASSES,
        SIZE,
        ["image"],
        ["mask"],
        8,
        augmentation=augment.FlipsRotations(),
        sampler=Drawn(lambda labels, epoch: np.zeros(8, int)),
    )
    pictures = collect(training.dataset())[0][0]["image"]
    assert len(np.unique(pictures.round(3), axis=0)) == 8


def test_an_epoch_shows_its_plan(table):
    training = data(table)
    malignant = int((table["label"] == "malignant").sum())
    total = 4 * (N - malignant) + 16 * malignant
    targets = np.concatenate([batch[1]["label"] for batch in collect(training.dataset())])
    assert targets.sum(axis=0).tolist() == [4 * (N - malignant), 16 * malignant]
    assert training.steps == -(-total // 4)
    assert training.images_seen(0) == table["image_id"].tolist()
    ids = [image_id for step in range(training.steps) for image_id in training.image_ids(0, step)]
    assert (
        pd.Series(ids).value_counts()[table["image_id"]].tolist() == table["label"].map({"benign": 4, "malignant": 16}).tolist()
    )
    truth = table.set_index("image_id")["label"]
    assert [CLASSES[index] for index in targets.argmax(axis=1)] == truth[ids].tolist()


def test_any_sample_can_be_shown_again(table):
    training = data(table, "flips_rotations")
    training.start(2)
    collected = collect(training.dataset())
    for index in (5, N - 1):
        again = training.example(2, index)
        expected = tf.nest.map_structure(lambda value, index=index: value[index % 4], collected[index // 4])
        tf.nest.map_structure(np.testing.assert_array_equal, tf.nest.map_structure(lambda value: value.numpy(), again), expected)


def test_last_batch_of_one_is_left_out_and_others_are_kept(table):
    steps = {batch_size: data(table, "none", batch_size=batch_size).steps for batch_size in (2, 3, 4, 5, 10, 11, 20)}
    assert steps == {2: 5, 3: 4, 4: 3, 5: 2, 10: 1, 11: 1, 20: 1}
    for batch_size, sizes in {5: [5, 5], 4: [4, 4, 3]}.items():
        collected = collect(data(table, "none", ["label"], batch_size=batch_size).dataset())
        assert [len(inputs["image"]) for inputs, _ in collected] == sizes
    assert data(table, "none", batch_size=1).steps == N
    assert data(table.iloc[:1], "none").steps == 1


def test_steps_per_epoch_cuts_an_epoch_and_the_next_begins_elsewhere(table):
    training = data(table, "none", ["label"], batch_size=2, steps_per_epoch=2)
    assert training.steps == 2
    assert len(collect(training.dataset())) == 2
    image_ids = [training.images_seen(epoch) for epoch in range(30)]
    assert all(len(ids) == 4 for ids in image_ids)
    assert len({tuple(ids) for ids in image_ids}) > 10
    assert set().union(*image_ids) == set(table["image_id"])
    assert data(table, "none", steps_per_epoch=100).steps == 3


def test_start_outside_an_epoch_is_refused(table):
    with pytest.raises(ValueError, match="There is no step 4 in epoch 0"):
        data(table, "none").start(0, 4)


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["none", "jrl_16", "flips_rotations"])
def test_the_store_changes_no_number_and_is_enough(table, augmentation, tmp_path, monkeypatch):
    evaluation = functools.partial(batches.evaluation_data, table, CLASSES, SIZE, ["image"], ["mask", "label"], 4)
    expected, measured = collect(data(table, augmentation, steps_per_epoch=3).dataset()), collect(evaluation())
    store = open_store(table, SIZE, masks="mask", folder=tmp_path)
    monkeypatch.setattr(tf.io, "read_file", None)  # a graph traced from here on cannot open a file
    assert_same(collect(data(table, augmentation, steps_per_epoch=3, store=store).dataset()), expected)
    assert_same(collect(evaluation(store=store)), measured)


@pytest.mark.slow
def test_images_that_are_not_in_the_store_are_decoded(table, tmp_path):
    store = open_store(table.iloc[:5], SIZE, masks="mask", folder=tmp_path)
    whole = batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["mask", "label"], 4, store=store)
    assert_same(collect(whole), collect(batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["mask", "label"], 4)))


def test_evaluation_is_in_table_order_and_whole(table):
    collected = collect(batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["mask", "label"], 4))
    assert [len(batch[0]["image"]) for batch in collected] == [4, 4, 3]
    for index, row in enumerate(table.itertuples()):
        inputs, targets = collected[index // 4]
        np.testing.assert_array_equal(inputs["image"][index % 4], np.round(load_image(row.image, SIZE)))
        np.testing.assert_array_equal(targets["mask"][index % 4], load_mask(row.mask, SIZE))
        assert CLASSES[targets["label"][index % 4].argmax()] == row.label
    dataset = batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["label"], 4)
    assert dataset.cardinality() == 3


@pytest.mark.slow
def test_training_without_augmentation_shows_what_evaluation_measures(table):
    training = data(table, "none")
    expected = collect(batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["mask", "label"], N))[0]
    for step, batch in enumerate(collect(training.dataset())):
        rows = [int(image_id) for image_id in training.image_ids(0, step)]
        same = tf.nest.map_structure(lambda value, rows=rows: value[rows], expected)
        tf.nest.map_structure(np.testing.assert_array_equal, batch, same)


def test_preprocessing_follows_the_resize_in_order(table):
    steps = [lambda image: image + 1.0, lambda image: image * 2.0]
    plain = collect(batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["label"], N))[0][0]["image"]
    changed = collect(batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["label"], N, preprocessing=steps))[0][0]["image"]
    # what is beyond 255 is clipped; the preprocessing sees the image before it is rounded
    np.testing.assert_allclose(changed, np.minimum((plain + 1) * 2, 255), atol=1)


def test_metadata_goes_with_its_row(table):
    metadata = np.arange(2 * N, dtype=np.float32).reshape(N, 2)
    training = batches.training_data(table, CLASSES, SIZE, ["image", "metadata"], ["label"], 4, metadata=metadata)
    for step, (inputs, _) in enumerate(collect(training.dataset())):
        assert inputs["metadata"].dtype == np.float32
        assert (inputs["metadata"][:, 0] / 2).astype(int).tolist() == [int(image_id) for image_id in training.image_ids(0, step)]


def test_a_sampler_chooses_the_rows(table):
    training = data(
        table, "none", sampler=Drawn(lambda labels, epoch: np.flatnonzero(labels == "malignant")[[0, 0, 1, epoch % 2]])
    )
    assert training.steps == 1
    assert sorted(training.image_ids(0, 0)) == ["00", "00", "00", "04"]
    assert sorted(training.image_ids(1, 0)) == ["00", "00", "04", "04"]
    growing = data(table, "none", sampler=Drawn(lambda labels, epoch: np.zeros(4 + 4 * epoch, int)))
    with pytest.raises(ValueError, match="a sampler must draw the same number"):
        growing.image_ids(1, 0)


@pytest.mark.slow
def test_a_sampler_blends_images_but_not_masks(table):
    sampler = Drawn(lambda labels, epoch: np.arange(4), partners=np.array([4, 5, 6, 7]), shares=np.array([0.0, 0.25, 0.5, 0.9]))
    training = data(table, "none", ["label"], sampler=sampler)
    plain = collect(batches.evaluation_data(table, CLASSES, SIZE, ["image"], ["label"], N))[0]
    (inputs, targets), *_ = collect(training.dataset())
    for image, label, image_id in zip(inputs["image"], targets["label"], training.image_ids(0, 0), strict=True):
        row = int(image_id)
        share = sampler.shares[row]
        expected = (1 - share) * plain[0]["image"][row] + share * plain[0]["image"][row + 4]
        np.testing.assert_allclose(image, expected, atol=1e-3)
        np.testing.assert_array_equal(label, plain[1]["label"][row])
    turned = data(table, "flips_rotations", ["label"], sampler=sampler)
    assert_same(collect(turned.dataset()), collect(turned.dataset()))
    with pytest.raises(UserError, match="blends images of two lesions, whose masks cannot be blended"):
        data(table, "none", ["mask", "label"], sampler=sampler)


def test_only_one_may_decide_how_often_images_are_shown(table):
    with pytest.raises(UserError, match=r"The augmentation JRL16 decides how often .* so does the balancing Oversample"):
        data(table, "jrl_16", sampler=Oversample())
    training = data(table, "flips_rotations", ["label"], sampler=Oversample())
    targets = np.concatenate([targets["label"] for _, targets in collect(training.dataset())])
    assert targets.sum(axis=0).tolist() == [8, 8]  # eight benign and three malignant images
    assert training.images_seen(0) == table["image_id"].tolist()


def test_a_policy_that_changes_the_shape_is_caught(table):
    class Crop(augment.JRL16):
        def __call__(self, image, mask, variant, rng):
            return image[1:], mask[1:]

    training = batches.training_data(table, CLASSES, SIZE, ["image"], ["mask"], 4, augmentation=Crop())
    with pytest.raises(tf.errors.InvalidArgumentError, match="Crop changed the shape of an image"):
        next(iter(training.dataset()))


def test_users_mistakes_are_all_named(table):
    broken = table.assign(mask=["", *table["mask"][1:]], label=["", *table["label"][1:]], image=[*table["image"][:-2], "", ""])
    with pytest.raises(UserError) as caught:
        data(broken)
    assert str(caught.value).splitlines() == [
        "2 images have no image file: 09, 10.",
        "1 image has no mask, which the model's output 'mask' needs: 00.",
        "1 image has no label of benign, malignant: 00.",
    ]
    with pytest.raises(UserError, match="There are no training images"):
        data(table.iloc[:0])


def test_what_no_data_can_be_made_for_is_refused(table):
    with pytest.raises(ValueError, match="There are no data for the input 'depth', output 'depth_map'"):
        batches.evaluation_data(table, CLASSES, SIZE, ["image", "depth"], ["label", "depth_map"], 4)
    with pytest.raises(ValueError, match=r"'metadata' needs a matrix with 11 rows, got shape \(3, 2\)"):
        batches.evaluation_data(table, CLASSES, SIZE, ["metadata"], ["label"], 4, metadata=np.zeros((3, 2)))


def test_a_missing_file_is_named(table):
    gone = table.assign(image=[*table["image"][:-1], "gone.jpg"])
    with pytest.raises(tf.errors.NotFoundError, match=r"gone\.jpg"):
        collect(batches.evaluation_data(gone, CLASSES, SIZE, ["image"], ["label"], 4))


@pytest.mark.slow
def test_a_process_ends_while_its_pipeline_runs(tmp_path):
    """Threads that call Python must not be waited for when the interpreter is gone."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(buffer, "PNG")
    (tmp_path / "image.png").write_bytes(buffer.getvalue())
    code = """
import sys, time
import numpy as np, pandas as pd
from keras_skin.data.pipeline import augment
from keras_skin.data.pipeline import batches

class Slow(augment.NoAugmentation):
    changes_images = True
    def __call__(self, image, mask, variant, rng):
        time.sleep(0.05)
        return image, mask

table = pd.DataFrame({"image_id": "a", "image": sys.argv[1], "mask": "", "label": "benign"}, index=range(5000))
iterator = iter(batches.training_data(table, ["benign"], (12, 16), ["image"], ["label"], 2, augmentation=Slow()).dataset())
next(iterator)
print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "image.png")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert done.stdout == "ended\n"


@pytest.fixture(scope="module")
def segmented(table):
    return table.assign(lesion=table["mask"], mask="")


def lesions(table, **options):
    return batches.evaluation_data(table, CLASSES, SIZE, ["image", "segmented_image"], ["label"], 4, **options)


def test_the_segmented_image_is_the_image_times_its_mask(segmented):
    row = 0
    for inputs, _ in collect(lesions(segmented)):
        for image, cut in zip(inputs["image"], inputs["segmented_image"], strict=True):
            mask = load_mask(segmented["lesion"][row], SIZE).numpy()
            assert 0 < mask.mean() < 1
            np.testing.assert_array_equal(cut, image * mask)
            row += 1
    assert row == N


def test_image_and_lesion_are_augmented_together(segmented):
    plain, changed = (
        batches.training_data(
            segmented, CLASSES, SIZE, ["image", "segmented_image"], ["label"], 4, augmentation=augment.get(name).builder()
        )
        for name in ("none", "flips_rotations")
    )
    moved = 0
    for index in range(N):
        inputs = changed.example(0, index)[0]
        image, cut = inputs["image"].numpy(), inputs["segmented_image"].numpy()
        lesion = (cut > 0).any(axis=-1)
        np.testing.assert_array_equal(cut[lesion], image[lesion])
        assert not cut[~lesion].any()
        moved += not np.array_equal(lesion, (plain.example(0, index)[0]["segmented_image"].numpy() > 0).any(axis=-1))
    assert moved > N / 2


@pytest.mark.slow
def test_lesions_come_from_the_store_as_from_the_files(segmented, tmp_path):
    store = open_store(segmented, SIZE, masks="lesion", folder=tmp_path)
    assert_same(collect(lesions(segmented, store=store)), collect(lesions(segmented)))


def test_lesions_that_are_missing_are_named(table):
    with pytest.raises(UserError, match=f"{N} images have no mask that cuts the lesion out: 00, 01"):
        lesions(table)
    with pytest.raises(ValueError, match="cannot have the output 'mask' too"):
        batches.evaluation_data(table.assign(lesion=""), CLASSES, SIZE, ["segmented_image"], ["mask"], 4)


def test_lesions_of_two_images_are_not_blended(segmented):
    half = Drawn(lambda labels, epoch: np.arange(2), np.array([1, 0]), np.full(2, 0.5, np.float32))
    with pytest.raises(UserError, match="takes the lesion cut out of its image"):
        batches.training_data(segmented, CLASSES, SIZE, ["image", "segmented_image"], ["label"], 4, sampler=half)

"""The choice of samples, and the names of their folders."""

import numpy as np

from keras_skin.explain.samples import ExplainSample, as_samples, folder_names, stratified_sample


def test_stratified_sample_takes_classes_in_turn():
    labels = ["benign"] * 50 + ["malignant"] * 3
    rows = stratified_sample(labels, 8, seed=0)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert (rows >= 50).sum() == 3
    assert len(rows) == 8
    np.testing.assert_array_equal(rows, stratified_sample(labels, 8, seed=0))
    assert (rows != stratified_sample(labels, 8, seed=1)).any()
    assert stratified_sample(labels, 100, seed=0).tolist() == list(range(53))
    assert stratified_sample(labels, 0, seed=0).size == 0
    assert stratified_sample([], 4, seed=0).size == 0


def test_folder_names_are_unique_and_inside_the_folder():
    assert folder_names(["a", "../a", "..", "a", "b/c"]) == ["a", "a_2", "unnamed", "a_3", "b_c"]


def test_a_sample_has_its_picture_or_the_models_input():
    inputs = {"segmented_image": np.ones((2, 2, 3))}
    (sample,) = as_samples([{"image_id": "a", "inputs": inputs}])
    assert sample.picture is inputs["segmented_image"]
    assert ExplainSample("a", inputs, image=np.zeros((4, 4, 3))).picture.shape == (4, 4, 3)

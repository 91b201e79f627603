"""Which images are chosen, and where their files go."""

import numpy as np

from keras_skin.explain.samples import ExplainSample, as_samples, folder_names, stratified_sample


def test_stratified_sample_takes_classes_in_turn():
    labels = ["benign"] * 50 + ["malignant"] * 3
    chosen = stratified_sample(labels, 8, seed=0)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert (chosen >= 50).sum() == 3
    assert len(chosen) == 8
    np.testing.assert_array_equal(chosen, stratified_sample(labels, 8, seed=0))
    assert (chosen != stratified_sample(labels, 8, seed=1)).any()
    assert stratified_sample(labels, 100, seed=0).tolist() == list(range(53))
    assert stratified_sample(labels, 0, seed=0).size == 0
    assert stratified_sample([], 4, seed=0).size == 0


def test_folder_names_lead_nowhere_else():
    assert folder_names(["a", "../a", "..", "a", "b/c"]) == ["a", "a_2", "unnamed", "a_3", "b_c"]


def test_a_sample_is_drawn_on_its_own_picture_or_on_what_the_model_sees():
    seen = {"segmented_image": np.ones((2, 2, 3))}
    (sample,) = as_samples([{"image_id": "a", "inputs": seen}])
    assert sample.picture is seen["segmented_image"]
    assert ExplainSample("a", seen, image=np.zeros((4, 4, 3))).picture.shape == (4, 4, 3)

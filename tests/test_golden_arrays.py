"""keras-cv, tf-explain and albumentations compute what they computed when keras_skin was measured."""

import numpy as np
import pytest

from tests import golden_arrays

LIBRARIES = {
    "albumentations": golden_arrays.albumentations_arrays,
    "keras_cv": golden_arrays.keras_cv_arrays,
    "tf_explain": golden_arrays.tf_explain_arrays,
}


@pytest.fixture(scope="module")
def recorded():
    with np.load(golden_arrays.FILE) as file:
        return dict(file)


@pytest.mark.parametrize("library", LIBRARIES)
def test_results_are_those_recorded(library, recorded):
    arrays = LIBRARIES[library]()
    names = [name for name in recorded if name.startswith(f"{library}/")]
    assert sorted(arrays) == sorted(names)
    for name in names:
        scale = max(np.abs(recorded[name]).max(), 1e-6)
        np.testing.assert_allclose(arrays[name] / scale, recorded[name] / scale, atol=2e-3, err_msg=name)


def test_no_case_is_a_copy_of_its_input(recorded):
    image, _ = golden_arrays.picture()
    changed = {name: array for name, array in recorded.items() if name.endswith("/image")}
    assert len(changed) == len(golden_arrays.POLICIES) + len(golden_arrays.OPERATIONS)
    for name, array in changed.items():
        assert np.abs(array - image).max() > 3, name

"""A model with shuffled weights, for a sanity check of explanations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def shuffled_weights(model: keras.Model, seed: int) -> Iterator[keras.Model]:
    """Shuffles the numbers within every weight array for the length of a block, also one that fails.

    Shuffled arrays keep their distribution, so activations stay in range and moving variances positive. Random generators and
    counters do not change.

    Source: Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 3 (independent of layers: all at once).
    """
    generator = np.random.default_rng(seed)
    variables = [variable for variable in model.variables if "float" in keras.backend.standardize_dtype(variable.dtype)]
    originals = [keras.ops.convert_to_numpy(variable.value) for variable in variables]
    try:
        for variable, value in zip(variables, originals, strict=True):
            variable.assign(generator.permutation(value.ravel()).reshape(value.shape))
        yield model
    finally:
        for variable, value in zip(variables, originals, strict=True):
            variable.assign(value)

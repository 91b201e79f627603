"""A model that has forgotten what it learnt, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def shuffled_weights(model: keras.Model, seed: int) -> Iterator[keras.Model]:
    """Shuffles the numbers of every weight array within it; they are put back when the block ends, however it ends.

    Shuffled arrays keep their distribution, so that activations stay in range and moving variances positive. The arrays of random
    generators and counters are left alone.

    Source: Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 3 (independent of layers: all at once).
    """
    generator = np.random.default_rng(seed)
    variables = [variable for variable in model.variables if "float" in keras.backend.standardize_dtype(variable.dtype)]
    before = [keras.ops.convert_to_numpy(variable.value) for variable in variables]
    try:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(generator.permutation(value.ravel()).reshape(value.shape))
        yield model
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)

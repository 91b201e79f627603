"""Fills in missing metadata by small neural networks: scikit-learn's MLPs, fitted in rounds, applied in NumPy or TensorFlow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS = 2
HIDDEN = 16
EPOCHS = 100
L2 = 10.0
_NEVER = -1e9  # the logit of a value that no training row has: its probability is zero


@dataclass(frozen=True, eq=False)
class Network:
    """A network with one hidden ReLU layer that predicts a field from all other fields.

    Attributes:
        field: index of the field that it fills in.
        arrays: weights (P, H) and bias (H,) of the hidden layer, weights (H, K) and bias (K,) of the output, float64; P is the
            number of the other fields' columns, K that of the field's own.
    """

    field: int
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Imputer:
    """Fills in the columns of missing fields, in NumPy or in TensorFlow.

    Attributes:
        bounds: (first, end) of each field's columns.
        limits: lowest and highest value of a number, None for a one-hot field.
        initial: (W,) the values of missing fields before the networks: the training means.
        networks: in the order in which they are applied.
    """

    bounds: tuple[tuple[int, int], ...]
    limits: tuple[tuple[float, float] | None, ...]
    initial: np.ndarray
    networks: tuple[Network, ...]

    def fill(self, matrix: Any, missing: Any, numpy: Any = np) -> Any:
        """Fills in the columns of missing fields.

        Args:
            matrix: (N, W) float64, the encoded fields.
            missing: (N, F) bool.
            numpy: `numpy` for arrays, `tensorflow.experimental.numpy` for tensors.

        Returns:
            (N, W) float64. The columns of a missing one-hot field are probabilities.
        """
        blocks = self.first_guess(matrix, missing, numpy)
        for network in self.networks:
            index = network.field
            guess = predict(network, self.limits[index], without(blocks, index, numpy), numpy)
            blocks[index] = numpy.where(missing[:, index : index + 1], guess, blocks[index])
        return numpy.concatenate(blocks, axis=1)

    def first_guess(self, matrix: Any, missing: Any, numpy: Any = np) -> list[Any]:
        """Each field's columns, the training mean where it is missing."""
        return [
            numpy.where(missing[:, index : index + 1], self.initial[np.newaxis, first:end], matrix[:, first:end])
            for index, (first, end) in enumerate(self.bounds)
        ]

    def to_plain(self) -> dict[str, Any]:
        """The imputer as lists and numbers, for JSON."""
        return {
            "bounds": [list(pair) for pair in self.bounds],
            "limits": [None if pair is None else list(pair) for pair in self.limits],
            "initial": self.initial.tolist(),
            "networks": [
                {"field": network.field, "arrays": [array.tolist() for array in network.arrays]} for network in self.networks
            ],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Imputer:
        """Restores what `to_plain` returned."""

        def network(entry: Mapping[str, Any]) -> Network:
            first, second, third, fourth = (np.array(array, np.float64) for array in entry["arrays"])
            return Network(int(entry["field"]), (first, second, third, fourth))

        return cls(
            bounds=tuple((int(first), int(end)) for first, end in plain["bounds"]),
            limits=tuple(None if pair is None else (float(pair[0]), float(pair[1])) for pair in plain["limits"]),
            initial=np.array(plain["initial"], np.float64),
            networks=tuple(network(entry) for entry in plain["networks"]),
        )


def fit_imputer(
    matrix: np.ndarray,
    missing: np.ndarray,
    bounds: Sequence[tuple[int, int]],
    limits: Sequence[tuple[float, float] | None],
    seed: int = 0,
) -> Imputer:
    """Fits networks to the training split.

    Missing fields start with the training mean (of a one-hot field: the frequencies). Then, in `ROUNDS` rounds, each field that
    some training row lacks is predicted from all others, the field with the fewest gaps first: a network is fitted on the rows
    that have the field, and fills in the others. Numbers are clipped to their training range. A field that no training row
    lacks keeps the mean where it is missing later.

    Args:
        matrix: (N, W) float64; finite everywhere.
        missing: (N, F) bool.
        bounds: (first, end) of each field's columns.
        limits: lowest and highest value of a number, None for a one-hot field.
        seed: of the networks' first weights and the order of their batches.

    References: the algorithm is that of scikit-learn's `IterativeImputer` (van Buuren and Groothuis-Oudshoorn, "mice:
        Multivariate Imputation by Chained Equations in R", 2011), and on numbers alone gives the same values. Pundhir et al.,
        "Towards improved skin lesion classification using metadata supervision", 2022, impute PAD-UFES-20 with a neural network;
        DualRefNet follows them.

    **Deviations from the paper**: it describes neither network nor rounds nor categories; these are ours. `UNK` is an answer and
    is not imputed. `IterativeImputer` goes column by column; here one network fills in a whole field, a classifier
    where the field is categorical, so that its columns are probabilities that add up to 1 (no hard choice is made). On
    PAD-UFES-20 that is as good (log-loss of hidden answers of other patients 0.70, of the frequencies 0.86) with 26 networks
    instead of 96. 804 rows miss the same fields, all from smoke to the diameters but age and region: the other fields
    predict them so poorly (0.86, like the frequencies) that less L2 does harm.
    """
    means = [_mean(matrix[~missing[:, index], first:end]) for index, (first, end) in enumerate(bounds)]
    start = Imputer(tuple(bounds), tuple(limits), np.concatenate(means), ())
    blocks = start.first_guess(matrix, missing)
    gaps = missing.sum(axis=0)
    order = [int(index) for index in np.argsort(gaps, kind="stable") if gaps[index] and len(bounds) > 1]
    networks = []
    for index in order * ROUNDS:
        known, others = ~missing[:, index], without(blocks, index)
        network = _fit_network(index, limits[index], others[known], blocks[index][known], seed)
        if network is not None:
            networks.append(network)
            blocks[index][~known] = predict(network, limits[index], others[~known])
    return Imputer(start.bounds, start.limits, start.initial, tuple(networks))


def predict(network: Network, limits: tuple[float, float] | None, others: Any, numpy: Any = np) -> Any:
    """A field's columns (N, K) from those of the others (N, P)."""
    weights, bias, last_weights, last_bias = network.arrays
    output = numpy.maximum(others @ weights + bias, 0.0) @ last_weights + last_bias
    if limits is not None:
        return numpy.clip(output, *limits)
    powers = numpy.exp(output - numpy.max(output, axis=1, keepdims=True))
    return powers / numpy.sum(powers, axis=1, keepdims=True)


def without(blocks: Sequence[Any], index: int, numpy: Any = np) -> Any:
    """The columns of all fields except one."""
    return numpy.concatenate([*blocks[:index], *blocks[index + 1 :]], axis=1)


def _mean(known: np.ndarray) -> np.ndarray:
    return known.mean(axis=0) if len(known) else np.zeros(known.shape[1])


def _fit_network(
    index: int, limits: tuple[float, float] | None, others: np.ndarray, target: np.ndarray, seed: int
) -> Network | None:
    """A network that predicts `target` (N, K); None without other fields, rows, or different targets."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if not others.shape[1] or not len(target) or (target == target[0]).all():
        return None
    settings = {"hidden_layer_sizes": (HIDDEN,), "alpha": L2, "max_iter": EPOCHS, "random_state": seed % 2**32}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are few on purpose
        if limits is not None:
            fitted = MLPRegressor(**settings).fit(others, target[:, 0])
            return Network(index, (fitted.coefs_[0], fitted.intercepts_[0], fitted.coefs_[1], fitted.intercepts_[1]))
        fitted = MLPClassifier(**settings).fit(others, target.argmax(axis=1))
    weights, bias = fitted.coefs_[1], fitted.intercepts_[1]
    if len(fitted.classes_) == 2:  # one logit, of the second class: the first has the logit zero
        weights, bias = np.hstack([np.zeros_like(weights), weights]), np.hstack([0.0, bias])
    columns = target.shape[1]
    all_weights, all_bias = np.zeros((HIDDEN, columns)), np.full(columns, _NEVER)
    all_weights[:, fitted.classes_], all_bias[fitted.classes_] = weights, bias
    return Network(index, (fitted.coefs_[0], fitted.intercepts_[0], all_weights, all_bias))

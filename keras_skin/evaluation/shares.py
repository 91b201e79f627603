"""Whether the classes that a model predicts have anything like the shares that they have in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.stats import binomtest

FACTOR = 2.0
"""A class is predicted too often, or too rarely, from this factor on."""
P_VALUE = 0.001
"""A difference less probable than this by chance counts."""
IMAGES = 30
"""Fewer images give no warning: a demo or a dry run has too few to be trained well."""


def share_warning(
    predicted: Sequence[str], training: Mapping[str, float], shown: Mapping[str, float] | None = None
) -> str | None:
    """Returns a sentence where classes are predicted far more often, or more rarely, than they occur in the training split.

    A class counts if its predicted share is above twice, or below half, its share of the training split, and if a binomial test
    gives such a number of predictions a probability below 0.001; fewer than 30 images give no warning.

    Args:
        predicted: the predicted class of each validation image.
        training: images of each class in the training split.
        shown: samples of each class in the training, times the class's weight in the loss; None if the predictions are already
            corrected for them.

    Returns:
        What was found and what helps; None if nothing was found.
    """
    total, images = sum(training.values()), len(predicted)
    examples: list[str] = []
    if images < IMAGES:
        return None
    for name, count in training.items():
        share, predictions = count / total, predicted.count(name)
        if share / FACTOR <= predictions / images <= FACTOR * share or binomtest(predictions, images, share).pvalue >= P_VALUE:
            continue
        examples.append(
            f"'{name}' is predicted for {predictions / images:.0%} of the images and is {share:.0%} of the training split"
        )
    if not examples:
        return None
    all_shown = sum(shown.values()) if shown else 0.0
    resampled = shown is not None and any(abs(shown[name] / all_shown - count / total) > 0.01 for name, count in training.items())
    remedy = (
        'The training shows or weights the classes in other shares, which shifts the probabilities: set "predict": '
        '{"prior": "training"}.'
        if resampled
        else 'Train longer, balance the classes ("balancing"), or let classes count equally: "predict": {"prior": "uniform"}.'
    )
    return f"Validation: {'; '.join(examples)}. {remedy}"

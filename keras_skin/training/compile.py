"""Compiles a model with a weighted loss and metrics for every output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_skin import losses as loss_registry
from keras_skin import metrics as metric_registry
from keras_skin.registry import Registry, UserError, did_you_mean

METRICS: dict[str, tuple[str, ...]] = {
    "mask": ("dsc", "iou"),
    "label": ("accuracy", "balanced_accuracy", "f1_weighted", "auc"),
}
"""Metrics of the outputs; other outputs have none."""


def compile_model(
    model: keras.Model,
    losses: Mapping[str, Mapping[str, Any]],
    optimizer: Any = None,
    sample_losses: Callable[[keras.losses.Loss, float], keras.metrics.Metric] | None = None,
    metrics: bool = True,
) -> keras.Model:
    """Compiles a functional model whose outputs are a dictionary.

    The total loss is the sum over outputs of weight times loss. Keras logs it as `loss`, and the unweighted losses as `mask_loss`
    and `label_loss`. Metrics are logged as `mask_dsc`, `label_auc` and so on, also for a single output.

    Args:
        model: the model.
        losses: for each output `{"name": ..., "weight": 1.0, ...}`; further entries are arguments of that loss.
        optimizer: a `keras.optimizers.Optimizer`, as `make_optimizer` returns it.
        sample_losses: makes a further metric from the loss and the weight of each output, which records the losses of single
            images (`SampleLossFeedback.metric`).
        metrics: whether `METRICS` are computed.

    Returns:
        The same model.

    Raises:
        UserError: naming every output without a loss, every loss without an output, and every argument that a loss refuses.
    """
    outputs = list(model.output)
    problems = [
        f"The model has no output '{name}' for a loss.{did_you_mean(name, outputs)} Its outputs: {', '.join(outputs)}."
        for name in losses
        if name not in outputs
    ]
    problems += [
        f"The model's output '{name}' has no loss. Valid losses: {', '.join(loss_registry.names())}."
        for name in outputs
        if name not in losses
    ]
    built_losses, weights, built_metrics = {}, {}, {}
    for output in (name for name in outputs if name in losses):
        classes, arguments = model.output[output].shape[-1], dict(losses[output])
        weights[output] = arguments.pop("weight", 1.0)
        try:
            built_losses[output] = _build(loss_registry.registry, arguments, classes)
        except (TypeError, ValueError) as error:
            problems.append(f"The loss '{losses[output].get('name')}': {error}")
            continue
        names = METRICS.get(output, ()) if metrics else ()
        built_metrics[output] = [_build(metric_registry.registry, {"name": name}, classes) for name in names]
        if sample_losses is not None:
            built_metrics[output].append(sample_losses(built_losses[output], weights[output]))
    if problems:
        raise UserError("\n".join(problems))
    if len(outputs) == 1:  # Keras adds the output's name to its metrics only for models with several outputs
        for metric in built_metrics[outputs[0]]:
            metric.name = f"{outputs[0]}_{metric.name}"
    model.compile(optimizer=optimizer, loss=built_losses, loss_weights=weights, metrics=built_metrics)
    return model


def _build(registry: Registry, arguments: dict[str, Any], classes: int) -> Any:
    """The loss or metric of that name, for so many classes."""
    name = arguments.pop("name", "")
    if "classes" in registry.parameters(name):
        arguments.setdefault("classes", classes)
    return registry.get(name).builder(**arguments)

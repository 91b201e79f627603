"""Compiles a model with a weighted loss and metrics for every output."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_skin import losses as loss_registry
from keras_skin import metrics as metric_registry
from keras_skin.registry import Registry, UserError, did_you_mean

if TYPE_CHECKING:
    import keras

DEFAULT_METRICS: dict[str, tuple[str, ...]] = {
    "mask": ("dsc", "iou"),
    "label": ("accuracy", "balanced_accuracy", "f1_weighted", "auc"),
}
"""Default metrics of the outputs; other outputs have none."""


def compile_model(
    model: keras.Model,
    losses: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Sequence[Any]] | None = None,
    optimizer: Any = None,
    sample_losses: Callable[[keras.losses.Loss, float], keras.metrics.Metric] | None = None,
    **compile_arguments: Any,
) -> keras.Model:
    """Compiles a functional model whose outputs are a dictionary.

    The total loss is the sum over outputs of weight times loss. Keras logs it as `loss`, and the unweighted losses as `mask_loss`
    and `label_loss`. Metrics are logged as `mask_dsc`, `label_auc` and so on, also for a single output.

    Args:
        model: the model.
        losses: for each output `{"name": ..., "weight": 1.0, ...}`; further entries are arguments of that loss.
        metrics: for each output a list of names, of `{"name": ..., ...arguments}` or of `keras.metrics.Metric`. An output that is
            not listed has `DEFAULT_METRICS`; an empty list means none.
        optimizer: a `keras.optimizers.Optimizer`, as `make_optimizer` returns it.
        sample_losses: makes a further metric from the loss and the weight of each output, which records the losses of single
            images (`SampleLossFeedback.metric`).
        compile_arguments: further arguments of `model.compile`.

    Returns:
        The same model.

    Raises:
        UserError: naming every output without a loss, every unknown output, loss, metric and argument.
    """
    outputs = list(model.output)
    problems = [
        f"The model has no output '{name}' for a {kind}.{did_you_mean(name, outputs)} Its outputs: {', '.join(outputs)}."
        for kind, settings in (("loss", losses), ("metric", metrics or {}))
        for name in settings
        if name not in outputs
    ]
    problems += [
        f"The model's output '{name}' has no loss. Valid losses: {', '.join(loss_registry.names())}."
        for name in outputs
        if name not in losses
    ]
    built_losses, weights, built_metrics = {}, {}, {}
    for output in outputs:
        classes = model.output[output].shape[-1]
        if output in losses:
            arguments = dict(losses[output])
            weights[output] = arguments.pop("weight", 1.0)
            built_losses[output] = _build(loss_registry.registry, arguments, classes, problems)
        items = (metrics or {}).get(output, DEFAULT_METRICS.get(output, ()))
        built_metrics[output] = [_metric(item, classes, problems) for item in items]
        if sample_losses is not None and built_losses.get(output) is not None:
            built_metrics[output].append(sample_losses(built_losses[output], weights[output]))
    if problems:
        raise UserError("\n".join(problems))
    if len(outputs) == 1:  # Keras adds the output's name to its metrics only for models with several outputs
        for metric in built_metrics[outputs[0]]:
            metric.name = f"{outputs[0]}_{metric.name}"
    model.compile(optimizer=optimizer, loss=built_losses, loss_weights=weights, metrics=built_metrics, **compile_arguments)
    return model


def _metric(item: Any, classes: int, problems: list[str]) -> Any:
    if isinstance(item, str):
        item = {"name": item}
    return _build(metric_registry.registry, dict(item), classes, problems) if isinstance(item, Mapping) else item


def _build(registry: Registry, arguments: dict[str, Any], classes: int, problems: list[str]) -> Any:
    """Returns the loss or metric of that name; adds wrong names and arguments to `problems` and returns None."""
    name = str(arguments.pop("name", ""))
    try:
        builder = registry.get(name).builder
    except UserError as error:
        problems.append(str(error))
        return None
    valid = _argument_names(builder)
    unknown = [key for key in arguments if key not in valid]
    problems += [
        f"The {registry.kind} '{name}' takes no '{key}'.{did_you_mean(key, valid)} "
        f"It takes: {', '.join(valid) or 'no arguments'}."
        for key in unknown
    ]
    if unknown:
        return None
    if "classes" in valid:
        arguments.setdefault("classes", classes)
    try:
        return builder(**arguments)
    except (TypeError, ValueError) as error:
        problems.append(f"The {registry.kind} '{name}': {error}")
        return None


def _argument_names(builder: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind in kinds and name not in ("self", "name", "dtype", "reduction")
    ]

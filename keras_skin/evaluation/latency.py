"""Measures the time of a model per image, around any callable and bounded in time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

MAX_INPUT_VALUES = 2**25
"""A batch with more input values (float32: 128 MiB; 32 images of 590 x 590 fit) is not tried: its activations are far larger."""

CALLS = (5, 1000)
"""Fewest calls behind a percentile, and most."""

WARM_UP = 2
"""Calls that are not counted: the first traces the graph, the second finds the caches filled."""


def measure_latency(
    predict: Callable[[Mapping[str, Any]], object],
    inputs: Mapping[str, np.ndarray],
    batch_sizes: Sequence[int] = (1, 32),
    seconds: float = 5.0,
    device: str = "",
) -> dict[str, Any]:
    """Times `predict` on batches of several sizes, after a warm-up.

    One call from inputs in memory to outputs in memory is timed, without reading and decoding files. A batch size is left
    out, with its reason, where its input is too large or too few calls would fit into `seconds`.

    Args:
        predict: maps a batch's inputs to outputs and returns when they are there (NumPy arrays, not promises of a device).
        inputs: name -> (N, ...) array with N >= 1; repeated or cut to the size of a batch.
        batch_sizes: sizes to measure.
        seconds: time for each size, after its warm-up (the first call may trace and compile for as long as it takes).
        device: what it runs on, for the reader.

    Returns:
        `{"device", "unit", "measured": [{"batch_size", "median", "p95", "calls"}], "skipped": [{"batch_size", "reason"}]}`;
        `median` and `p95` are milliseconds per image: a call's time divided by the size of its batch.

    Raises:
        ValueError: if there is no input, or an input holds no image.
    """
    empty = [name for name, values in inputs.items() if len(values) == 0]
    if not inputs or empty:
        raise ValueError(f"Latency needs at least one image; empty: {', '.join(empty) or 'all'}.")
    measured: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for size in batch_sizes:
        values = size * sum(int(np.prod(array.shape[1:])) for array in inputs.values())
        expected = size * 1e-3 * measured[0]["median"] * CALLS[0] / 2 if measured else 0.0
        if values > MAX_INPUT_VALUES:
            skipped.append({"batch_size": size, "reason": f"its input alone holds {values:,} values"})
        elif expected > seconds:  # even if a batch took half the time of as many single images
            skipped.append({"batch_size": size, "reason": f"it would take more than {seconds:g} s"})
        else:
            _measure(predict, _batch(inputs, size), size, seconds, measured, skipped)
    return {"device": device, "unit": "ms per image", "measured": measured, "skipped": skipped}


def describe_latency(latency: Mapping[str, Any]) -> dict[str, str]:
    """Lines for a report's summary, for example `{"Latency, batch 1": "4.20 ms per image (p95 5.00), 250 calls"}`."""
    lines = {
        f"Latency, batch {item['batch_size']}": (
            f"{item['median']:.2f} ms per image (p95 {item['p95']:.2f}), {item['calls']} calls"
        )
        for item in latency["measured"]
    }
    lines |= {f"Latency, batch {item['batch_size']}": f"not measured: {item['reason']}" for item in latency["skipped"]}
    return {**lines, "Latency measured on": latency["device"]} if latency["device"] and latency["measured"] else lines


def _batch(inputs: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    return {name: np.take(array, np.arange(size) % len(array), axis=0) for name, array in inputs.items()}


def _measure(
    predict: Callable[[Mapping[str, Any]], object],
    batch: Mapping[str, np.ndarray],
    size: int,
    seconds: float,
    measured: list[dict[str, Any]],
    skipped: list[dict[str, Any]],
) -> None:
    times: list[float] = []
    try:
        for _ in range(WARM_UP):
            last = _duration(predict, batch)
        while last * CALLS[0] <= seconds and sum(times) < seconds and len(times) < CALLS[1]:
            times.append(_duration(predict, batch))
    except Exception as error:
        # TensorFlow's ResourceExhaustedError cannot be named here without importing TensorFlow
        if not isinstance(error, MemoryError) and type(error).__name__ != "ResourceExhaustedError":
            raise
        skipped.append({"batch_size": size, "reason": "it does not fit into memory"})
        return
    if len(times) < CALLS[0]:
        skipped.append({"batch_size": size, "reason": f"fewer than {CALLS[0]} calls fit into {seconds:g} s"})
        return
    each = np.array(times) * 1000 / size
    measured.append(
        {"batch_size": size, "median": float(np.median(each)), "p95": float(np.percentile(each, 95)), "calls": len(times)}
    )


def _duration(predict: Callable[[Mapping[str, Any]], object], batch: Mapping[str, np.ndarray]) -> float:
    start = time.perf_counter()
    predict(batch)
    return time.perf_counter() - start

"""Numeric precision and determinism of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

CANDIDATES = ("float32", "mixed_bfloat16")
"""Precisions that are safe without a look at the training. float16 is not: its narrow range needs loss scaling."""
MARGIN = 1.1
"""bfloat16 has to be this much faster, or float32 is taken."""
SECONDS, STEPS = 10.0, 3


@dataclass(frozen=True)
class Precision:
    """The dtype policy of a training.

    Attributes:
        policy: a name for `keras.config.set_dtype_policy`.
        reason: one sentence for the log.
        milliseconds: time of one training step in each precision that was timed.
    """

    policy: str
    reason: str
    milliseconds: dict[str, float]


def choose_precision(
    requested: str, build: Callable[[str], keras.Model], batch_size: int, deterministic: bool = False
) -> Precision:
    """Chooses the precision of a training.

    `"auto"` times one training step in float32 and in mixed bfloat16 on this machine and takes bfloat16 where it is at least 1.1
    times as fast. A deterministic training takes float32, because a measurement can differ between two runs. Ask for
    `"mixed_float16"` by name; Keras then wraps the optimizer in its `LossScaleOptimizer`.

    Args:
        requested: `"auto"`, `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.
        build: builds the model under a dtype policy. It is called for models that are thrown away, so seed afterwards.
        batch_size: images in a step.
        deterministic: whether the training has to be reproducible.
    """
    if requested != "auto":
        return Precision(requested, f"Training precision: {requested}, as the experiment says", {})
    if deterministic:
        return Precision("float32", "Training precision: float32, because the training is deterministic", {})
    times = {}
    for policy in CANDIDATES:
        try:
            times[policy] = 1000 * step_seconds(build(policy), batch_size)
        except Exception:
            if policy == "float32":  # not a matter of precision
                raise
    policy = "mixed_bfloat16" if times.get("mixed_bfloat16", np.inf) * MARGIN <= times["float32"] else "float32"
    measured = ", ".join(f"{name} {value:.0f} ms" for name, value in times.items())
    return Precision(policy, f"Training precision: {policy} (one step takes {measured})", times)


def step_seconds(model: keras.Model, batch_size: int) -> float:
    """Seconds of one training step on random inputs, compilation excluded: the fastest of a few steps."""
    random = np.random.default_rng(0)

    def example(shape: Sequence[int | None]) -> np.ndarray:
        return random.uniform(0, 255, (batch_size, *(size or 1 for size in shape[1:]))).astype(np.float32)

    inputs = keras.tree.map_structure(lambda tensor: example(tensor.shape), model.input)
    targets = keras.tree.map_structure(lambda tensor: example(tensor.shape), model.output)
    losses = keras.tree.map_structure(lambda _: _squares, model.output)
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=losses)
    model.train_on_batch(inputs, targets)  # compiles
    seconds: list[float] = []
    while len(seconds) < STEPS and sum(seconds) < SECONDS:
        start = time.perf_counter()
        model.train_on_batch(inputs, targets)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _squares(_: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.mean(keras.ops.square(keras.ops.cast(outputs, "float32")))


def set_determinism(seed: int, deterministic: bool = False) -> None:
    """Seeds Python, NumPy and the backend; `deterministic` makes TensorFlow replace or refuse every op whose result could vary.

    Determinism costs speed (mostly on GPUs) and cannot be taken back within a process.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        import tensorflow as tf

        tf.random.set_global_generator(tf.random.Generator.from_seed(seed))  # which keras-cv asks for
        tf.config.experimental.enable_op_determinism()

"""Numeric precision and determinism of a training."""

from __future__ import annotations

from pathlib import Path

from keras_skin.registry import UserError, did_you_mean

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")

BFLOAT16_COMPUTE_CAPABILITY = (8, 0)
"""NVIDIA's Ampere, the first generation with bfloat16 tensor cores."""

BFLOAT16_CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
"""Either makes a training step of the joint model about twice as fast as in float32 (measured on two cores of an AMD EPYC with
AVX-512 BF16, batch of 10 at 192x256: 1.6 s instead of 2.8 s)."""


def choose_precision(name: str = "auto") -> str:
    """The Keras dtype policy that `name` stands for on this machine.

    `"auto"` is mixed bfloat16 where the hardware multiplies matrices in it (GPUs from compute capability 8.0, TPUs, CPUs with AMX
    or AVX-512 BF16) and float32 elsewhere. It never means float16, whose narrow range needs loss scaling; ask for
    `"mixed_float16"` by name and Keras wraps the optimizer in its `LossScaleOptimizer`.

    Args:
        name: one of `"auto"`, `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`.

    Returns:
        A name for `keras.config.set_dtype_policy`.

    Raises:
        UserError: if there is no such precision.
    """
    if name not in PRECISIONS:
        raise UserError(f"There is no precision '{name}'.{did_you_mean(name, PRECISIONS)} Valid: {', '.join(PRECISIONS)}.")
    if name != "auto":
        return name
    return "mixed_bfloat16" if _has_fast_bfloat16() else "float32"


def _has_fast_bfloat16() -> bool:
    import tensorflow as tf

    if tf.config.list_physical_devices("TPU"):
        return True
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
        return min(capabilities) >= BFLOAT16_COMPUTE_CAPABILITY
    return bool(cpu_flags() & BFLOAT16_CPU_FLAGS)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets that the processor reports; empty where the system does not say (anything but Linux)."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def set_determinism(seed: int, deterministic: bool = False) -> None:
    """Seeds Python, NumPy and the backend; `deterministic` makes TensorFlow replace or refuse every op whose result could vary.

    Determinism costs speed (mostly on GPUs) and cannot be taken back within a process.
    """
    import keras

    keras.utils.set_random_seed(seed)
    if deterministic:
        import tensorflow as tf

        tf.random.set_global_generator(tf.random.Generator.from_seed(seed))  # which keras-cv asks for
        tf.config.experimental.enable_op_determinism()

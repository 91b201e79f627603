"""Pre-processing of a resized image, by name; one file each.

An operation is a function of one image, (H, W, 3) float32 RGB in 0..255, that gives the same numbers eagerly, inside tf.data and,
unless its class says `exportable = False`, in the exported graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_skin.registry import Registry, UserError

registry = Registry("preprocessing", "keras_skin.data.images.preprocess")
register, get, names = registry.register, registry.get, registry.names


def refuse_export(preprocessing: Sequence[Callable[..., Any]]) -> None:
    """Refuses operations that an exported graph cannot hold; to be asked before a training begins, not after it.

    Args:
        preprocessing: the operations of an experiment that is to export its model.

    Raises:
        UserError: if any of them is not exportable; the message names them and says what to do.
    """
    kinds = {type(step) for step in preprocessing if not getattr(step, "exportable", True)}
    kept_out = sorted(name for name in names() if get(name).builder in kinds)
    if kept_out:
        verb = "works" if len(kept_out) == 1 else "work"
        raise UserError(
            f"image.preprocessing: {', '.join(map(repr, kept_out))} cannot be exported: it {verb} outside of TensorFlow, so the "
            "exported model could not do to an upload what was done to the images it learnt from. "
            "Leave it out of image.preprocessing, or set export.enabled=false to train without an export."
        )

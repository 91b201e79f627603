"""What there is to export, and what clients may rely on from one version to the next; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CONTRACT = 2
"""Number of the serving contract (see `export_model`), in every `model.json`. It is raised whenever the signatures of an
unchanged model change. Contract 1 called `mask_png_bytes` `mask_png`."""

SERVING_DEFAULT, PREDICT_IMAGES, EXPLAIN = "serving_default", "predict_images", "explain"
"""The signatures of an export: from whole files, from decoded images, and the explanation of whole files."""

IMAGE_BYTES = "image_bytes"
"""The input that takes whole files."""

EDITIONS = {
    "float32": "SavedModel that computes in float32",
    "bfloat16": "SavedModel that computes in bfloat16: less time where the processor has it",
    "litert": "LiteRT (TensorFlow Lite) with float16 weights, for phones and small computers; one image at a time",
    "images": "SavedModel with numbers alone (no bytes, no texts), for converters such as OpenVINO's",
}
"""What a trained model can be exported as."""


def breaking_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What would stop or mislead a client that was written for an earlier export, one sentence each.

    New signatures and new outputs do not; another order of the classes does, since probabilities come in that order.

    Args:
        before: content of the earlier export's `model.json`.
        now: that of the later one.
    """
    return [*_changed_signatures(before["signatures"], now["signatures"]), *_changed_classes(before, now)]


def _changed_signatures(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, earlier in before.items():
        if name not in now:
            yield f"signature '{name}' is gone"
            continue
        for kind in ("inputs", "outputs"):
            was, becomes = earlier[kind], now[name][kind]
            what = f"{name}: {kind[:-1]}"
            yield from (f"{what} '{key}' is gone" for key in was if key not in becomes)
            yield from (
                f"{what} '{key}' is {_shown(becomes[key])}, was {_shown(was[key])}"
                for key in was
                if key in becomes and becomes[key] != was[key]
            )
            if kind == "inputs":
                yield from (f"{what} '{key}' is new, and every input must be sent" for key in becomes if key not in was)


def _changed_classes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before["classes"] != now["classes"]:
        yield f"the classes are {', '.join(now['classes'])}, were {', '.join(before['classes'])}"


def _shown(spec: Mapping[str, Any]) -> str:
    return f"{spec['dtype']} [{', '.join('batch' if size is None else str(size) for size in spec['shape'])}]"

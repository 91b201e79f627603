"""The editions of an export and the serving contract that clients rely on; imports nothing heavy."""

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
    "bfloat16": "SavedModel that computes in bfloat16: faster where the processor supports it",
    "litert": "LiteRT (TensorFlow Lite) with float16 weights, for phones and small computers; one image at a time",
    "images": "SavedModel without strings (no image files, no class names), for converters such as OpenVINO's",
}
"""The editions that a trained model can be exported in."""


def breaking_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Changes that would stop or mislead a client of an earlier export, one sentence each.

    New signatures and new outputs are compatible; another order of the classes is not, since probabilities come in that order.

    Args:
        before: content of the earlier export's `model.json`.
        now: content of the later one.
    """
    return [*_changed_signatures(before["signatures"], now["signatures"]), *_changed_classes(before, now)]


def _changed_signatures(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, earlier in before.items():
        if name not in now:
            yield f"signature '{name}' is missing"
            continue
        for kind in ("inputs", "outputs"):
            old, new = earlier[kind], now[name][kind]
            what = f"{name}: {kind[:-1]}"
            yield from (f"{what} '{key}' is missing" for key in old if key not in new)
            yield from (
                f"{what} '{key}' is {_format_spec(new[key])}, was {_format_spec(old[key])}"
                for key in old
                if key in new and new[key] != old[key]
            )
            if kind == "inputs":
                yield from (f"{what} '{key}' is new, and every input must be sent" for key in new if key not in old)


def _changed_classes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before["classes"] != now["classes"]:
        yield f"the classes are {', '.join(now['classes'])}, were {', '.join(before['classes'])}"


def _format_spec(spec: Mapping[str, Any]) -> str:
    return f"{spec['dtype']} [{', '.join('batch' if size is None else str(size) for size in spec['shape'])}]"

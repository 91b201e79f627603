"""The description of an export: `model.json` for programs, `labels.txt`, and `model_card.md` for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import tensorflow as tf

from keras_skin.export.contract import CONTRACT, EDITIONS
from keras_skin.export.endpoints import Endpoints
from keras_skin.registry import atomic_path
from keras_skin.templates import templates
from keras_skin.version import __version__

MODEL_CARD = "model_card.md"


class Agreement(TypedDict, total=False):
    """Differences between an edition's answers and those of the trained model in float32; only the keys that the model has.

    Attributes:
        images: number of images compared.
        split: the split that they are from.
        same_label: share of images with the same most probable class.
        probabilities: largest difference of any probability.
        mask: largest difference of any pixel's probability.
        mask_dsc: mean DSC between the two masks, cut at 0.5.
        milliseconds: median time for one image on the measuring machine.
    """

    images: int
    split: str
    same_label: float
    probabilities: float
    mask: float
    mask_dsc: float
    milliseconds: float


def describe_agreement(agreement: Agreement) -> str:
    """Describes an agreement in one sentence."""
    texts = [f"{agreement['images']} {agreement['split']} images"]
    if "probabilities" in agreement:
        texts.append(f"same class in {agreement['same_label']:.1%}, probabilities within {agreement['probabilities']:.1e}")
    if "mask" in agreement:
        texts.append(f"mask probabilities within {agreement['mask']:.1e}, DSC {agreement['mask_dsc']:.4f}")
    return f"{'; '.join(texts)}; {agreement['milliseconds']:.1f} ms per image"


def describe(
    endpoints: Endpoints,
    signatures: Mapping[str, Any],
    *,
    name: str,
    edition: str,
    synthetic: bool,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `model.json`.

    Args:
        endpoints: what is exported.
        signatures: `{signature: {"inputs": ..., "outputs": ...}}`, tensors as described by `specs`.
        name: the model's name.
        edition: one of `EDITIONS`.
        synthetic: whether the model was trained on synthetic images.
        extra: more entries, JSON values only. The card shows `title`, `citation`, `trained_on` (data set -> images), `terms`
            (data set -> licence), `segmenter` (what cuts out the lesion), `prediction` (name -> sentence), `measured` (a list
            of `{"part", "metric", "value", "ci95", "n"}`), `changes` (setting -> value and that of the experiment's file),
            `banner` (why no prediction means anything) and `warnings` (sentences) if present.
    """
    fields = endpoints.metadata.fields if endpoints.metadata is not None else ()
    return {
        **(extra or {}),
        "name": name,
        "contract": CONTRACT,
        "edition": edition,
        "classes": list(endpoints.classes),
        "image_size": list(endpoints.image_size),
        "preprocessing": [getattr(step, "__name__", type(step).__name__) for step in endpoints.preprocessing],
        "metadata": {
            field.name: {"kind": "numeric", "low": field.low, "high": field.high}
            if field.kind == "numeric"
            else {"kind": "categorical", "values": list(field.values)}
            for field in fields
        },
        "synthetic": synthetic,
        "training_images": "SYNTHETIC: drawn by a program" if synthetic else "real",
        "keras_skin": __version__,
        "tensorflow": tf.__version__,
        "signatures": dict(signatures),
    }


def specs(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Shape and dtype of tensors, or of their specifications."""
    return {key: {"shape": list(spec.shape), "dtype": spec.dtype.name} for key, spec in tensors.items()}


def write_about(folder: Path, about: Mapping[str, Any], *, warm_up: bool = False) -> None:
    """Writes `assets/labels.txt`, `assets/model.json` and `model_card.md`, replacing earlier ones.

    Args:
        folder: the version's folder.
        about: the content of `model.json`, with the key `agreement` (see `Agreement`) once it was measured.
        warm_up: whether the folder has warm-up requests.
    """
    card = templates("keras_skin.export", escape=False).get_template(f"{MODEL_CARD}.j2")
    agreement = describe_agreement(about["agreement"]) if "agreement" in about else ""
    texts = {
        "assets/labels.txt": "".join(f"{label}\n" for label in about["classes"]),
        MODEL_CARD: card.render(about=about, agreement=agreement, warm_up=warm_up, titles=EDITIONS),
        "assets/model.json": json.dumps(about, indent=2, ensure_ascii=False)
        + "\n",  # last: where it exists, the others are complete
    }
    (folder / "assets").mkdir(exist_ok=True)
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

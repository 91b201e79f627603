"""SHAP values of the clinical fields for one upload at a time, computed by the run behind an export."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_skin.evaluation.explanations import doubts
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder
from keras_skin.workflow.opened_run import Run, load_run
from keras_skin.workflow.patient import NO_BACKGROUND, metadata_explainer, model_inputs
from keras_skin.workflow.prediction import ExportedModel

NO_RUN = "A SavedModel has no training images to compare with; serve the folder of its run to see what each field adds."


@dataclass(frozen=True)
class Contributions:
    """The contributions to a logit: `start`, the fields and `rest` add up to `logit`.

    Attributes:
        of_class: the predicted class.
        start: the mean logit of the background, a sample of training images.
        fields: contribution of the whole image (`image`) and of each field.
        rest: the unattributed rest.
        logit: the logit of this upload.
    """

    of_class: str
    start: float
    fields: Mapping[str, float]
    rest: float
    logit: float


class Attributions:
    """SHAP values of clinical fields, as `python -m keras_skin.explain` computes them.

    Args:
        run: a finished run whose model takes clinical fields.

    Raises:
        UserError: if the run folder has no background images.
    """

    def __init__(self, run: Run) -> None:
        explainer = metadata_explainer(run)
        if explainer is None:
            raise UserError(NO_BACKGROUND)
        self._run, self._explainer = run, explainer
        self._lock = threading.Lock()  # shap draws from NumPy's global generator

    def __call__(self, contents: bytes, answers: Mapping[str, str]) -> Contributions:
        """Attributes the logit of the predicted class, for an image file's bytes and answers to all clinical fields."""
        inputs, _ = model_inputs(self._run, contents, answers)
        with self._lock:
            shap_values = self._explainer.explain({name: value[None] for name, value in inputs.items()})
        index = int(np.argmax(shap_values.logits[0]))
        return Contributions(
            self._run.classes[index],
            float(shap_values.base[index]),
            {group: float(value) for group, value in zip(shap_values.groups, shap_values.values[0, :, index], strict=True)},
            float(shap_values.gap[0, index]),
            float(shap_values.logits[0, index]),
        )


@dataclass(frozen=True)
class RunExtras:
    """What a run's folder adds to its export.

    Attributes:
        attributions: of the clinical fields, None if unavailable.
        reason: why they are unavailable, "" for a model without clinical fields.
        doubts: sentences about explanations that failed the run's own measurements.
        complete: whether the model was trained on complete clinical fields and needs all of them.
    """

    attributions: Attributions | None = None
    reason: str = ""
    doubts: tuple[str, ...] = ()
    complete: bool = False


def open_extras(path: Path, model: ExportedModel) -> RunExtras:
    """Opens the run behind an export; `path` is the folder of the run, or of a SavedModel without one."""
    if not (path / "experiment.json").is_file():
        return RunExtras(reason=NO_RUN if model.fields else "")
    try:
        warnings = tuple(doubts(RunFolder(path).metrics))
        if not model.fields:
            return RunExtras(doubts=warnings)
        run = load_run(path)
        return RunExtras(Attributions(run), "", warnings, run.metadata is not None and run.metadata.missing == "drop")
    except (OSError, ValueError) as error:  # the run is incomplete; its export still works
        return RunExtras(reason=f"What each field adds is not available from this run: {error}" if model.fields else "")

"""What each clinical field adds, for one upload after the other: a finished run explains what its export predicts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_skin.evaluation.explanations import doubts
from keras_skin.registry import UserError
from keras_skin.workflow.opened_run import Run, load_run
from keras_skin.workflow.patient import NO_BACKGROUND, metadata_explainer, model_inputs
from keras_skin.workflow.prediction import ExportedModel

BARE = "A SavedModel alone keeps no training images to compare with; serve its run's folder to see what each field adds."


@dataclass(frozen=True)
class Contributions:
    """How a logit comes about; `start`, the fields and `rest` add up to `logit`.

    Attributes:
        of_class: the predicted class.
        start: its mean logit of the training images that are compared with.
        fields: what the image as a whole (`image`) and each field add.
        rest: what is not attributed.
        logit: the patient's.
    """

    of_class: str
    start: float
    fields: Mapping[str, float]
    rest: float
    logit: float

    @property
    def widest(self) -> float:
        """The largest of them, without its sign."""
        return max(map(abs, self.fields.values()), default=0.0)


class Attributions:
    """SHAP values of clinical fields, as `python -m keras_skin.explain` computes them, one upload at a time.

    Args:
        run: a finished run whose model takes clinical fields.

    Raises:
        UserError: if the run kept no training images to compare with.
    """

    def __init__(self, run: Run) -> None:
        explainer = metadata_explainer(run)
        if explainer is None:
            raise UserError(NO_BACKGROUND)
        self._run, self._explainer = run, explainer
        self._one_at_a_time = threading.Lock()  # shap draws from NumPy's global generator

    def __call__(self, contents: bytes, answers: Mapping[str, str]) -> Contributions:
        """Attributes the logit of the predicted class.

        Args:
            contents: of an image file.
            answers: every clinical field, "" where it is not known.
        """
        inputs, _ = model_inputs(self._run, contents, answers)
        with self._one_at_a_time:
            found = self._explainer.explain({name: value[None] for name, value in inputs.items()})
        index = int(np.argmax(found.logits[0]))
        return Contributions(
            self._run.classes[index],
            float(found.base[index]),
            {group: float(value) for group, value in zip(found.groups, found.values[0, :, index], strict=True)},
            float(found.gap[0, index]),
            float(found.logits[0, index]),
        )


@dataclass(frozen=True)
class RunExtras:
    """What a run's folder adds to its export.

    Attributes:
        attributions: of the clinical fields; None if there are none.
        reason: why there are none, "" for a model without clinical fields.
        doubts: what the run measured against its explanations.
        complete: whether the model was trained on complete clinical fields, and needs them all.
    """

    attributions: Attributions | None = None
    reason: str = ""
    doubts: tuple[str, ...] = ()
    complete: bool = False


def open_extras(path: Path, model: ExportedModel) -> RunExtras:
    """What can be told besides the export's own answers.

    Args:
        path: what is served: a run's folder, or a SavedModel alone.
        model: its export.
    """
    if not (path / "experiment.json").is_file():
        return RunExtras(reason=BARE if model.fields else "")
    try:
        run = load_run(path)
        against = tuple(doubts(run.metrics))
        if run.metadata is None:
            return RunExtras(doubts=against)
        return RunExtras(Attributions(run), "", against, run.metadata.missing == "drop")
    except (OSError, ValueError) as error:  # of a run that is not whole; its export may be used all the same
        return RunExtras(reason=f"The run does not tell what each field adds: {error}" if model.fields else "")

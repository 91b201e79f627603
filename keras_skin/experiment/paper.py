"""The block of an experiment that holds what a paper prints."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from keras_skin.experiment.components import Settings

_BOUND = re.compile(r"[<>] \d+(\.\d+)?")


def _check_bound(value: float | str) -> float | str:
    if isinstance(value, str) and not _BOUND.fullmatch(value):
        raise ValueError("expected a number, or a bound such as '> 0.85'")
    return value


Published = Annotated[float | str, AfterValidator(_check_bound)]
"""A printed number, or a bound such as "> 0.85"."""
Results = dict[str, dict[Literal["segmentation", "classification"], dict[str, Published]]]
"""Printed numbers by split, task and metric, as fractions."""


class CitedSettings(Settings):
    """The numbers that a paper quotes from elsewhere: `source` is the publication. `rebuilt`: the experiment rebuilds this
    method, so that its numbers stand beside the measured ones, marked as cited; otherwise it is another method."""

    method: str
    source: str
    rebuilt: bool = False
    results: Results


class PaperSettings(Settings):
    """What a paper prints, shown beside what is measured.

    `results`: the numbers of this experiment, or bounds such as "> 0.85". `other_results`: a second evaluation of the same
    experiment in the same paper, by its name. `efficiency`: its parameters, milliseconds per image, training minutes, megabytes
    of weights, and megabytes of weights and layer outputs for one image (`footprint_mb`). `explanations`: its measures of heat
    maps. `cited`: other methods on the same images, from other publications. These numbers belong to the file that names them:
    another model, other data, another length or recipe drops them, and `dropped` gives the reason. A child file that names one
    of these keys inherits none of them.
    """

    citation: str
    doi: str | None = None
    row: str | None = None
    results: Results = Field({})
    other_results: dict[str, Results] = Field({})
    efficiency: dict[Literal["parameters", "latency_ms", "training_minutes", "weights_mb", "footprint_mb"], Published] = Field({})
    explanations: dict[str, Published] = Field({})
    cited: list[CitedSettings] = Field([])
    notes: list[str] = Field([])
    dropped: str = Field("", description="Written by the program: why the printed numbers are not shown.")

    @property
    def has_numbers(self) -> bool:
        """Whether there are printed numbers."""
        return any(getattr(self, name) for name in PRINTED)

    def without_numbers(self, reason: str) -> PaperSettings:
        """The source alone, with the reason why its numbers are not shown."""
        return PaperSettings(citation=self.citation, doi=self.doi, dropped=reason)


PRINTED = ("results", "other_results", "efficiency", "explanations", "cited")
"""The keys of `paper` that hold numbers."""

"""The shared checks, on every registered model."""

from pathlib import Path

import conformance
import pytest

from keras_skin import models

CONFIGURATIONS = conformance.configurations()
IDS = ["-".join([name, *map(str, arguments.values())]) for name, arguments in CONFIGURATIONS]
every_configuration = pytest.mark.parametrize(("name", "arguments"), CONFIGURATIONS, ids=IDS)


@every_configuration
def test_contract(name: str, arguments: dict) -> None:
    conformance.check_builder_contract(name, arguments)


@every_configuration
def test_round_trip(name: str, arguments: dict, tmp_path: Path) -> None:
    conformance.check_builder_round_trip(name, arguments, tmp_path)


@every_configuration
def test_trains(name: str, arguments: dict) -> None:
    conformance.check_builder_trains(name, arguments)


# The last configuration of a model is the one with the most parts. Backbones in float16 take long to trace.
MIXED = [
    pytest.param(name, arguments, policy, id=f"{name}-{policy}",
                 marks=[pytest.mark.slow] if name == "resnet50" and policy == "mixed_float16" else [])
    for name, arguments in dict(CONFIGURATIONS).items() for policy in ("mixed_bfloat16", "mixed_float16")
]


@pytest.mark.parametrize(("name", "arguments", "policy"), MIXED)
def test_mixed_precision(name: str, arguments: dict, policy: str) -> None:
    conformance.check_builder_mixed_precision(name, arguments, policy)


@pytest.mark.parametrize("name", models.names())
def test_parameters(name: str) -> None:
    conformance.check_builder_parameters(name)

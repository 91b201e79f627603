"""The shared checks, on every registered model: all checks of a model follow each other and share its small version."""

from pathlib import Path

import conformance
import pytest

from keras_skin import models

CONFIGURATIONS = conformance.configurations()
FULLEST = dict(CONFIGURATIONS)  # the last configuration of a model is the one with the most parts


def case(name: str, arguments: dict, *more: str, slow: bool = False, nightly: bool = False) -> object:
    return pytest.param(
        name,
        arguments,
        *more,
        id="-".join([name, *map(str, arguments.values()), *more]),
        marks=[
            mark
            for mark, applies in (
                (pytest.mark.slow, slow or name not in conformance.FAST),
                (pytest.mark.nightly, nightly),
            )
            if applies
        ],
    )


every_configuration = pytest.mark.parametrize(("name", "arguments"), [case(*each) for each in CONFIGURATIONS])
fullest_first = pytest.mark.parametrize(
    ("name", "arguments"), [case(*each, slow=each[1] != FULLEST[each[0]]) for each in CONFIGURATIONS]
)
# Tracing a deep backbone in float16 takes long.
every_policy = pytest.mark.parametrize(
    ("name", "arguments", "policy"),
    [
        case(*each, policy, slow=late, nightly=late)
        for each in FULLEST.items()
        for policy in ("mixed_bfloat16", "mixed_float16")
        for late in [policy == "mixed_float16" and each[0] != "jrl"]
    ],
)


@every_configuration
def test_contract(name: str, arguments: dict) -> None:
    conformance.check_builder_contract(name, arguments)


@fullest_first
def test_round_trip(name: str, arguments: dict, tmp_path: Path) -> None:
    conformance.check_builder_round_trip(name, arguments, tmp_path)


@fullest_first
def test_trains(name: str, arguments: dict) -> None:
    conformance.check_builder_trains(name, arguments)


@every_policy
def test_mixed_precision(name: str, arguments: dict, policy: str) -> None:
    conformance.check_builder_mixed_precision(name, arguments, policy)


@pytest.mark.parametrize("name", models.names())
def test_parameters(name: str) -> None:
    conformance.check_builder_parameters(name)

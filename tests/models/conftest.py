"""Lets the tests of this folder import the shared checks, and groups those checks by model."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the conformance tests by model, because the checks of a model share what they build."""
    places = [place for place, item in enumerate(items) if item.path == HERE / "test_conformance.py"]
    checks = sorted((items[place] for place in places), key=lambda item: repr([*item.callspec.params.items()][:2]))
    for place, item in zip(places, checks, strict=True):
        items[place] = item

"""The JSON Schema of an experiment file, for editors."""

from __future__ import annotations

from typing import Any

from keras_skin.experiment.components import REGISTRIES, Component
from keras_skin.experiment.fields import Experiment


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file, with the arguments of every registered component."""
    schema = Experiment.model_json_schema(by_alias=True)
    schema["title"] = "keras_skin experiment"
    schema.pop("required", None)  # a child file may inherit the required keys
    for block in Component.__subclasses__():
        _describe_components(schema["$defs"][block.__name__], block.kind)
    return schema


def _describe_components(block: dict[str, Any], kind: str) -> None:
    registry, reserved = REGISTRIES[kind]
    block["properties"]["name"] = {"enum": registry.names(), "description": f"Name of the {kind}."}
    block.pop("required", None)
    fields = block["properties"]
    cases = []
    for name in registry.names():
        arguments = {
            key: ({"enum": choices} if choices else {})
            for key, choices in registry.parameters(name).items()
            if key not in reserved and key not in fields
        }
        cases.append(
            {
                "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
                "then": {"properties": {**dict.fromkeys(fields, True), **arguments}, "additionalProperties": False},
            }
        )
    block["allOf"] = cases
    block["additionalProperties"] = True

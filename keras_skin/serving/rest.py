"""TensorFlow Serving's REST format: converts a predict request's JSON to arrays, and outputs to JSON.

Source: tensorflow.org/tfx/serving/api_rest and the behaviour of its model server (`json_tensor.cc`): row format (`instances`) and
column format (`inputs`), `{"b64": ...}` for bytes, and outputs whose names end in `_bytes` as base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_skin.export.contract import SERVING_DEFAULT
from keras_skin.registry import did_you_mean
from keras_skin.serving.limits import MAX_INSTANCES, Refused

Specs = Mapping[str, tf.TensorSpec]


class PredictRequest(NamedTuple):
    """A predict request.

    Attributes:
        signature: name of the requested signature.
        inputs: an array for each of its inputs, (B, ...).
        rows: whether request and answer are in row format.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    rows: bool


def read_request(body: bytes, signatures: Mapping[str, Specs]) -> PredictRequest:
    """Reads the body of `:predict`.

    Args:
        body: JSON text, `{"instances": [...]}` or `{"inputs": ...}`, optionally with `signature_name`.
        signatures: the inputs of each signature.

    Raises:
        Refused: 400 with the problem and the expected form.
    """
    try:
        document = json.loads(body.decode(json.detect_encoding(body)))
        if b"\\u" in body:
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, UnicodeError):
            reason = "it holds half of a surrogate pair, or other bytes that are no text"
        raise _wrong(f"JSON Parse error: {reason}. Expected an object with 'instances' or 'inputs'.") from None
    if not isinstance(document, dict):
        raise _wrong("The body is not a JSON object. Expected an object with 'instances' or 'inputs'.")
    signature = document.get("signature_name", SERVING_DEFAULT) or SERVING_DEFAULT
    if not isinstance(signature, str):
        raise _wrong("'signature_name' key must be a string value.")
    if signature not in signatures:
        raise _wrong(
            f'Serving signature name: "{signature}" not found in signature def.{did_you_mean(signature, signatures)} '
            f"Known: {', '.join(signatures)}."
        )
    specs = signatures[signature]
    if ("instances" in document) == ("inputs" in document):
        problem = "Both keys are present" if "inputs" in document else "Missing 'inputs' or 'instances' key"
        raise _wrong(f"{problem}: expected either 'instances' (row format) or 'inputs' (column format).")
    rows = "instances" in document
    columns = _from_rows(document["instances"], specs) if rows else _from_columns(document["inputs"], specs)
    inputs = {name: _array(columns[name], specs[name], name) for name in specs}
    sizes = {name: len(array) for name, array in inputs.items()}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise _wrong(f"All inputs of a request must have the same number of entries, got {counts}.")
    count = next(iter(sizes.values()))
    _check_count(count)
    return PredictRequest(signature, inputs, rows)


def write_answer(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """Converts outputs, (B, ...) each, to JSON text with `predictions` (row format) or `outputs` (column format)."""
    plain = {name: _plain(array, name.endswith("_bytes")) for name, array in sorted(outputs.items())}
    if not rows:
        answer: Any = plain if len(plain) > 1 else next(iter(plain.values()))
        return _json({"outputs": answer})
    if len(plain) == 1:
        return _json({"predictions": next(iter(plain.values()))})
    return _json({"predictions": [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]})


def _from_rows(instances: Any, specs: Specs) -> dict[str, list[Any]]:
    """The values of each input from a list of objects, or of plain values if there is one input."""
    if not isinstance(instances, list) or not instances:
        raise _wrong("'instances' must be a list with at least one entry.")
    _check_count(len(instances))
    is_named = isinstance(instances[0], dict) and not _is_b64(instances[0])
    if not is_named and len(specs) > 1:
        raise _wrong(f"'instances' is a plain list, but several inputs are expected: objects with {', '.join(specs)}.")
    columns: dict[str, list[Any]] = {name: [] for name in specs}
    for number, instance in enumerate(instances):
        if (isinstance(instance, dict) and not _is_b64(instance)) != is_named:
            raise _wrong(
                f"Element {number} of 'instances' differs in kind from the first: expected either objects or plain values."
            )
        values = instance if is_named else {next(iter(specs)): instance}
        if set(values) != set(specs):
            raise _wrong(
                f"Failed to process element: {number} of 'instances' list. Its keys are {', '.join(values) or 'none'}; they must "
                f'be equal to: {", ".join(specs)}. Send unknown values as "" (text) or -1 (number).'
            )
        for name, value in values.items():
            columns[name].append(value)
    return columns


def _check_count(count: int) -> None:
    if not 0 < count <= MAX_INSTANCES:
        raise _wrong(f"{count} instances in one request; expected 1 to {MAX_INSTANCES}. Send several requests.")


def _from_columns(inputs: Any, specs: Specs) -> dict[str, Any]:
    """The values of each input from an object of lists, or from one list if there is one input."""
    if not isinstance(inputs, dict) or _is_b64(inputs):
        if len(specs) > 1:
            raise _wrong(f"'inputs' is a plain value, but an object is expected, with {', '.join(specs)}.")
        return {next(iter(specs)): inputs}
    missing = [name for name in specs if name not in inputs]
    if missing:
        raise _wrong(f"Missing named input: {', '.join(missing)} in 'inputs' object. Expected: {', '.join(specs)}.")
    return {name: inputs[name] for name in specs}


def _array(value: Any, spec: tf.TensorSpec, name: str) -> np.ndarray:
    """Converts a value to the type of an input and checks its shape."""
    array = _texts(value, name) if spec.dtype == tf.string else _numbers(value, spec, name)
    if not spec.shape.is_compatible_with(array.shape):
        expected = ", ".join("batch" if size is None else str(size) for size in spec.shape)
        raise _wrong(f"Input '{name}' has the shape {list(array.shape)}, expected [{expected}].")
    return array


def _texts(value: Any, name: str) -> np.ndarray:
    if not isinstance(value, list):
        raise _wrong(f"Input '{name}' must be a list of texts, got {_kind(value)}.")
    cells = np.empty(len(value), dtype=object)
    for row, item in enumerate(value):
        if isinstance(item, str):
            cells[row] = item.encode()
        elif _is_b64(item):
            cells[row] = _decoded(item["b64"], name)
        else:
            raise _wrong(f'Input \'{name}\' must hold texts, or {{"b64": "..."}} for bytes; entry {row} is {_kind(item)}.')
    return cells


def _decoded(text: str, name: str) -> bytes:
    digits = "".join(text.split())
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(f"Unable to base64 decode input '{name}'.") from None


def _numbers(value: Any, spec: tf.TensorSpec, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise _wrong(f"Input '{name}' has lists of unequal length.") from None
    if array.dtype == object and array.size and all(isinstance(item, int | float) for item in array.flat):
        raise _wrong(f"Input '{name}' holds a number that is too large for {spec.dtype.name}.")
    if array.dtype.kind not in "iuf" and array.size:
        raise _wrong(f"Input '{name}' must hold numbers ({spec.dtype.name}), got {_kind(_first_non_number(value))}.")
    with np.errstate(over="ignore"):
        converted = array.astype(spec.dtype.as_numpy_dtype)
    if not np.isfinite(converted[np.isfinite(array)]).all():
        raise _wrong(f"Input '{name}': cannot convert a number to {spec.dtype.name} without loss of precision.")
    return converted


def _first_non_number(value: Any) -> Any:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += reversed(item)
        elif isinstance(item, bool) or not isinstance(item, int | float):
            return item
    return value


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _plain(array: np.ndarray, as_base64: bool) -> Any:
    if array.dtype != object:
        return array.tolist()
    if as_base64:
        return [{"b64": base64.b64encode(item).decode()} for item in array]
    return [item.decode(errors="replace") for item in array]


def _kind(value: Any) -> str:
    """Describes a JSON value for messages; long ones are cut."""
    kinds = {bool: "the truth value", str: "the text", int: "the number", float: "the number"}
    if type(value) in kinds:
        text = json.dumps(value)
        return f"{kinds[type(value)]} {text if len(text) <= 40 else text[:40] + '...'}"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _wrong(message: str) -> Refused:
    return Refused(400, message)

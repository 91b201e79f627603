"""The run state: one file from which a training resumes bit for bit.

It holds the variables of the model (including dropout seeds), of the optimizer (including the float16 loss scale) and of the
metrics, and a JSON record of the position of the training and the states of its callbacks. `.weights.h5` and `.keras` files lack
the metrics, so a training cannot resume from them in the middle of an epoch.

The file is an uncompressed `.npz` without pickled objects. Arrays are stored by position, with path, shape and dtype of each, so
that the state of another model is refused with a message.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_skin.registry import UserError, atomic_path

if TYPE_CHECKING:
    import keras

FORMAT = 1
_AUTOMATIC_NUMBER = re.compile(r"_\d+(?=[/_]|$)")


@dataclass(frozen=True)
class RunState:
    """A run state in memory: its arrays in order, the layout (`[path, shape, dtype]` of each) and the JSON record."""

    source: Path
    arrays: tuple[np.ndarray, ...]
    layout: tuple[tuple[str, tuple[int, ...], str], ...]
    record: dict[str, Any]

    def restore(self, model: keras.Model) -> None:
        """Assigns every array to its variable.

        Raises:
            UserError: if the model, its optimizer or its metrics are not those of the saved run. Then nothing is assigned.
        """
        variables = state_variables(model)
        problems = _differences(self.layout, _layout(variables))
        if problems:
            lines = "\n".join(f"  - {problem}" for problem in problems)
            raise UserError(
                f"{self.source} does not fit this model, its optimizer and metrics, so the training cannot resume "
                f"from it:\n{lines}\nResume with the experiment that started the run."
            )
        for variable, array in zip(variables, self.arrays, strict=True):
            variable.assign(array.view(np.asarray(variable.numpy()).dtype))


def state_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns all variables of the run state in a fixed order. The model must be compiled, its metrics and optimizer built."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


def save_run_state(path: str | os.PathLike[str], model: keras.Model, record: Mapping[str, Any]) -> None:
    """Writes the run state; it replaces an older state only when it is complete on disk.

    Args:
        path: file to write, ending in `.npz`.
        model: compiled model whose metrics and optimizer are built.
        record: further JSON values.
    """
    variables = state_variables(model)
    text = json.dumps({"format": FORMAT, "layout": _layout(variables), "record": record})
    arrays: dict[str, Any] = {"json": np.frombuffer(text.encode("utf-8"), dtype=np.uint8)}
    arrays |= {f"{index:05d}": _storable(variable.numpy()) for index, variable in enumerate(variables)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def load_run_state(path: str | os.PathLike[str]) -> RunState:
    """Reads a run state.

    Raises:
        UserError: if the file is not a complete run state, or has another format.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            content = json.loads(archive["json"].tobytes().decode("utf-8"))
            if content["format"] != FORMAT:
                raise UserError(f"{path}: run state of format {content['format']}, expected {FORMAT}.")
            layout = tuple((name, tuple(shape), dtype) for name, shape, dtype in content["layout"])
            arrays = tuple(archive[f"{index:05d}"] for index in range(len(layout)))
            return RunState(Path(path), arrays, layout, content["record"])
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read as the saved state of a training: {error.strerror or error}.") from error
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, EOFError) as error:  # NumPy's words advise to unpickle the file
        raise UserError(
            f"{path} cannot be read as the saved state of a training: it is damaged, or another program wrote it. "
            "Restore the file from a backup, or start a new run."
        ) from error


def _layout(variables: list[keras.Variable]) -> list[tuple[str, tuple[int, ...], str]]:
    return [(variable.path, tuple(variable.shape), str(variable.dtype)) for variable in variables]


def _storable(array: Any) -> np.ndarray:
    """Returns bfloat16 and similar arrays as unsigned integers, because the .npz format does not know these types."""
    array = np.asarray(array)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _differences(saved: Any, current: Any, maximum: int = 5) -> list[str]:
    """Returns the differences of two layouts, without the numbers of unnamed layers, which Keras counts through a process."""
    if len(saved) != len(current):
        return [f"the saved state holds {len(saved)} arrays, this training {len(current)}"]
    lines = []
    for (path, shape, dtype), (path_now, shape_now, dtype_now) in zip(saved, current, strict=True):
        if _AUTOMATIC_NUMBER.sub("", path) != _AUTOMATIC_NUMBER.sub("", path_now):
            lines.append(f"saved '{path}', here '{path_now}'")
        elif (shape, dtype) != (shape_now, dtype_now):
            lines.append(f"'{path_now}': saved {dtype} {list(shape)}, here {dtype_now} {list(shape_now)}")
    return lines[:maximum] + ([f"and {len(lines) - maximum} more"] if len(lines) > maximum else [])

"""The served model: its name and version, and its signatures as functions from arrays to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_skin.export.contract import IMAGE_BYTES
from keras_skin.serving.limits import Refused, check_images
from keras_skin.serving.rest import PredictRequest, read_request, write_answer
from keras_skin.workflow.prediction import ExportedModel


class Served:
    """One version of one exported model."""

    def __init__(self, model: ExportedModel) -> None:
        self.model = model
        self.name = str(model.about["name"])
        self.version = int(model.folder.name) if model.folder.name.isdigit() else 1
        self._signatures = {name: function for name, function in model.loaded.signatures.items() if not name.startswith("_")}
        self.inputs: dict[str, dict[str, tf.TensorSpec]] = {
            name: dict(function.structured_input_signature[1]) for name, function in self._signatures.items()
        }

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: its name.
            inputs: arrays or lists; `image_bytes` are whole files.

        Raises:
            Refused: 400 if the graph refuses the inputs.
        """
        specs = self.inputs[signature]
        tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
        try:
            return {name: value.numpy() for name, value in self._signatures[signature](**tensors).items()}
        except tf.errors.InvalidArgumentError:
            raise Refused(400, f"The model refuses these inputs of '{signature}': {', '.join(specs)}.") from None

    def read(self, body: bytes) -> tuple[PredictRequest, int]:
        """Reads the body of a REST request and checks its images; returns it and what its images cost to decode.

        Raises:
            Refused: if the body is wrong, or an image is beyond the limits.
        """
        request = read_request(body, self.inputs)
        return request, check_images(list(request.inputs.get(IMAGE_BYTES, ())))

    def answer(self, request: PredictRequest) -> bytes:
        """Runs the model and returns the JSON text of its answer."""
        return write_answer(self.run(request.signature, request.inputs), request.rows)

    def status(self) -> dict[str, Any]:
        """`GetModelStatusResponse` as JSON."""
        version = {
            "version": str(self.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return {"model_version_status": [version]}

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """`GetModelMetadataResponse` as JSON: the signatures as the SavedModel itself describes them."""
        saved = SavedModel.FromString((self.model.folder / "saved_model.pb").read_bytes())
        signatures = {
            name: MessageToDict(signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for name, signature in saved.meta_graphs[0].signature_def.items()
        }
        return {
            "model_spec": {"name": self.name, "signature_name": "", "version": str(self.version)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }

"""The files in an export's `assets.extra`: warm-up requests, and example requests for REST, curl and gRPC."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_skin.export.contract import IMAGE_BYTES, SERVING_DEFAULT

WARM_UP = "tf_serving_warmup_requests"
_SHAPE = (450, 600)
_SKIN, _LESION = (214, 168, 144), (104, 66, 52)

_CURL = """\
#!/bin/sh
# Sends an image to a server for a prediction. To use another server: SERVER=http://host:port sh request.sh
# Send every input; an unknown value is "" for a text and -1 for a number.
cd "$(dirname "$0")" && exec curl --silent --show-error --header "Content-Type: application/json" --data @request.json \\
  "${{SERVER:-http://localhost:8501}}/v1/models/{name}:predict"
"""

_GRPC = '''\
"""Sends an image to TensorFlow Serving over gRPC:   python request_grpc.py [IMAGE] [HOST:PORT]

Needs: pip install tensorflow-serving-api
"""

import json
import sys
from base64 import b64decode
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

(instance,) = json.loads(Path(__file__).with_name("request.json").read_text())["instances"]
image = b64decode(instance.pop("image_bytes")["b64"])
if len(sys.argv) > 1:
    image = Path(sys.argv[1]).read_bytes()

request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
request.model_spec.signature_name = "serving_default"
request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image], tf.string))
for field, value in instance.items():  # "" and -1 mean unknown
    dtype = tf.string if isinstance(value, str) else tf.float32
    request.inputs[field].CopyFrom(tf.make_tensor_proto([value], dtype))

channel = grpc.insecure_channel(sys.argv[2] if len(sys.argv) > 2 else "localhost:8500")
answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
outputs = {{name: tf.make_ndarray(tensor)[0] for name, tensor in answer.outputs.items()}}
print("valid:", bool(outputs["valid"]))
if "label" in outputs:
    print("label:", outputs["label"].decode(), outputs["probabilities"])
if "mask_png_bytes" in outputs:
    Path("mask.png").write_bytes(outputs["mask_png_bytes"])
    print("mask: mask.png")
'''


def write_examples(folder: Path, about: Mapping[str, Any]) -> bool:
    """Writes `request.json` (REST), `request.sh` (curl), `request_grpc.py`, and a warm-up request for every signature, which
    TensorFlow Serving runs before it accepts requests.

    Returns:
        Whether warm-up requests were written; that needs the package tensorflow-serving-api (`keras_skin[serving]`).
    """
    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    name = about["name"]
    (extra / "request.json").write_text(json.dumps(rest_request(about), indent=2) + "\n", encoding="utf-8")
    (extra / "request.sh").write_text(_CURL.format(name=name), encoding="utf-8")
    (extra / "request_grpc.py").write_text(_GRPC.format(name=name), encoding="utf-8")
    return _write_warm_up(extra / WARM_UP, about)


def rest_request(about: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a REST request for `serving_default`, with a synthetic image and a value for every clinical field."""
    picture = base64.b64encode(_synthetic_lesion().numpy()).decode()
    instance = {IMAGE_BYTES: {"b64": picture}, **_field_values(about)}
    return {"signature_name": SERVING_DEFAULT, "instances": [instance]}


def _write_warm_up(path: Path, about: Mapping[str, Any]) -> bool:
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    upload = {IMAGE_BYTES: [_synthetic_lesion().numpy()], **{name: [value] for name, value in _field_values(about).items()}}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, tensors in about["signatures"].items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = about["name"], signature
            for name, spec in tensors["inputs"].items():
                value = upload[name] if name in upload else np.zeros([1, *spec["shape"][1:]])
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value, spec["dtype"]))
            entry = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(entry.SerializeToString())
    return True


def _field_values(about: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each field: the middle of a number's training range, or the first known text."""
    return {
        name: float(round((field["low"] + field["high"]) / 2)) if field["kind"] == "numeric" else next(iter(field["values"]), "")
        for name, field in about["metadata"].items()
    }


def _synthetic_lesion() -> tf.Tensor:
    """JPEG of a dark ellipse on a skin-coloured background."""
    rows, columns = np.indices(_SHAPE)
    distance = np.hypot((rows - _SHAPE[0] / 2) / 110, (columns - _SHAPE[1] / 2) / 150)
    share = 1 / (1 + np.exp(12 * (distance - 1)))[..., np.newaxis]
    pixels = share * np.array(_LESION) + (1 - share) * np.array(_SKIN)
    return tf.io.encode_jpeg(pixels.astype(np.uint8), quality=80)

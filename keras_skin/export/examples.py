"""What lies ready beside an export, in its `assets.extra`: warm-up requests, and requests to copy for REST, curl and gRPC."""

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
# Asks a server for a prediction. Another one: SERVER=http://host:port sh request.sh
# Inputs that are not known: "" for a text, -1 for a number; every input must be sent.
cd "$(dirname "$0")" && exec curl --silent --show-error --header "Content-Type: application/json" --data @request.json \\
  "${{SERVER:-http://localhost:8501}}/v1/models/{name}:predict"
"""

_GRPC = '''\
"""Asks TensorFlow Serving for a prediction over gRPC:   python request_grpc.py [IMAGE] [HOST:PORT]

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
for field, value in instance.items():  # "" and -1 are not known
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
    """Writes `request.json` (REST), `request.sh` (curl) and `request_grpc.py`, and warm-up requests for every signature, which
    TensorFlow Serving answers by itself before it lets anybody in.

    Args:
        folder: of the version.
        about: the content of its `model.json`.

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
    """The body of a REST request for the signature `serving_default`: a drawn image, and an answer for every clinical field."""
    picture = base64.b64encode(_drawn_lesion().numpy()).decode()
    instance = {IMAGE_BYTES: {"b64": picture}, **_answers(about)}
    return {"signature_name": SERVING_DEFAULT, "instances": [instance]}


def _write_warm_up(path: Path, about: Mapping[str, Any]) -> bool:
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    upload = {IMAGE_BYTES: [_drawn_lesion().numpy()], **{name: [value] for name, value in _answers(about).items()}}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, told in about["signatures"].items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = about["name"], signature
            for name, spec in told["inputs"].items():
                value = upload[name] if name in upload else np.zeros([1, *spec["shape"][1:]])
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value, spec["dtype"]))
            entry = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(entry.SerializeToString())
    return True


def _answers(about: Mapping[str, Any]) -> dict[str, Any]:
    """One answer for each field: the middle of what was seen of a number, the first text that is known."""
    return {
        name: float(round((told["low"] + told["high"]) / 2)) if told["kind"] == "numeric" else next(iter(told["values"]), "")
        for name, told in about["metadata"].items()
    }


def _drawn_lesion() -> tf.Tensor:
    """JPEG of a dark ellipse on skin; nobody's."""
    rows, columns = np.indices(_SHAPE)
    distance = np.hypot((rows - _SHAPE[0] / 2) / 110, (columns - _SHAPE[1] / 2) / 150)
    share = 1 / (1 + np.exp(12 * (distance - 1)))[..., np.newaxis]
    pixels = share * np.array(_LESION) + (1 - share) * np.array(_SKIN)
    return tf.io.encode_jpeg(pixels.astype(np.uint8), quality=80)

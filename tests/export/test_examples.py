"""Requests that lie beside an export: they are TensorFlow Serving's, and the model answers them."""

import base64
import json
import subprocess
import sys
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf

from keras_skin.export.endpoints import Segmenter
from keras_skin.export.examples import WARM_UP, rest_request
from keras_skin.export.saved_model import export_model
from tests.export.small_models import CLASSES, OTHER, SIZE, AgeAndSex, branched_model, segmenter_model

grpc = pytest.importorskip("grpc", reason="gRPC and TensorFlow Serving's protos come with keras_skin[test]")
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    segmenter = Segmenter(segmenter_model(), OTHER)
    folder = tmp_path_factory.mktemp("export")
    arguments = {"classes": CLASSES, "image_size": SIZE, "name": "chained", "metadata": AgeAndSex()}
    return export_model(branched_model(), folder, **arguments, segmenter=segmenter)


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


def about(exported):
    return json.loads((exported / "assets" / "model.json").read_text())


def answer(loaded, request):
    """What TensorFlow Serving does with a request; dtypes and names must be the signature's."""
    signature = loaded.signatures[request.model_spec.signature_name]
    inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
    expected = signature.structured_input_signature[1]
    assert {name: value.dtype for name, value in inputs.items()} == {name: spec.dtype for name, spec in expected.items()}
    assert all(expected[name].shape.is_compatible_with(value.shape) for name, value in inputs.items())
    return signature(**inputs)


def test_every_signature_is_warmed_up_with_a_request_that_it_answers(exported, loaded):
    from tensorflow_serving.apis import prediction_log_pb2

    signatures = []
    for record in tf.data.TFRecordDataset(str(exported / "assets.extra" / WARM_UP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "chained"
        outputs = answer(loaded, request)
        assert outputs.get("valid", tf.constant(True)).numpy().all()
        signatures.append(request.model_spec.signature_name)
    assert sorted(signatures) == ["explain", "predict_images", "serving_default"]


def test_the_rest_request_has_an_image_and_every_field(exported, loaded):
    body = json.loads((exported / "assets.extra" / "request.json").read_text())
    assert body == rest_request(about(exported))
    (instance,) = body["instances"]
    assert {key: value for key, value in instance.items() if key != "image_bytes"} == {"age": 45.0, "sex": "f"}
    outputs = loaded.signatures[body["signature_name"]](
        image_bytes=tf.constant([base64.b64decode(instance["image_bytes"]["b64"])]),
        age=tf.constant([instance["age"]]),
        sex=tf.constant([instance["sex"]]),
    )
    assert outputs["valid"].numpy().all()
    assert tf.io.decode_png(outputs["mask_png_bytes"][0]).shape == (450, 600, 1)


@pytest.mark.slow
def test_the_script_for_grpc_talks_to_a_server(exported, loaded, tmp_path):
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            outputs = answer(loaded, request)
            return predict_pb2.PredictResponse(outputs={k: tf.make_tensor_proto(v.numpy()) for k, v in outputs.items()})

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Server(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    picture = tmp_path / "mole.png"
    picture.write_bytes(tf.io.encode_png(np.full((40, 50, 3), 180, np.uint8)).numpy())
    try:
        script = exported / "assets.extra" / "request_grpc.py"
        command = [sys.executable, str(script), str(picture), f"127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120)
    finally:
        server.stop(None)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "valid: True" in done.stdout
    assert any(f"label: {name}" in done.stdout for name in CLASSES)
    assert tf.io.decode_png((tmp_path / "mask.png").read_bytes()).shape == (40, 50, 1)


@pytest.mark.slow
def test_without_the_protos_there_are_no_warm_up_requests(tmp_path, monkeypatch):
    from tests.export.small_models import joint_model

    for name in [name for name in sys.modules if name.startswith("tensorflow_serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    version = export_model(joint_model(), tmp_path, classes=CLASSES, image_size=SIZE, name="joint")
    assert not (version / "assets.extra" / WARM_UP).exists()
    assert (version / "assets.extra" / "request.json").is_file()
    assert "Warm-up" not in (version / "model_card.md").read_text()

"""The export behind REST: the very numbers of the SavedModel, and the messages of TensorFlow Serving."""

import base64
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_skin.serving.limits import Refused


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def ask(served, body):
    request, _ = served.read(body)
    return served.answer(request)


def patient(lesion, **answers):
    return {"image_bytes": b64(lesion), "age": -1, "sex": "", "localization": "", **answers}


def signature_defs(served):
    saved = SavedModel.FromString((served.model.folder / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].signature_def


def predict_request(served, body):
    """The `PredictRequest` of TensorFlow Serving that instances are, checked against the SavedModel's own signature."""
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api")
    name = body.get("signature_name", "serving_default")
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = served.name, name
    inputs = signature_defs(served)[name].inputs
    instances = body["instances"]
    assert all(set(instance) == set(inputs) for instance in instances)
    for key, info in inputs.items():
        values = [instance[key] for instance in instances]
        plain = [base64.b64decode(value["b64"]) if isinstance(value, dict) else value for value in values]
        proto = tf.make_tensor_proto(plain, tf.as_dtype(info.dtype))
        assert tf.TensorShape(info.tensor_shape).is_compatible_with(proto.tensor_shape)
        request.inputs[key].CopyFrom(proto)
    return request


def test_the_answers_are_those_of_the_run(plain, tiny_run):
    table = pd.read_csv(tiny_run / "predictions.csv", dtype={"image_id": str})
    row = table[table["split"] == "test"].iloc[0]
    (file,) = (tiny_run / "demo_data" / "ph2").rglob(f"{row['image_id']}.bmp")
    body = {"instances": [{"image_bytes": b64(file.read_bytes())}, {"image_bytes": b64(b"no image")}]}
    good, bad = json.loads(ask(plain, json.dumps(body).encode()))["predictions"]
    assert good["valid"]
    assert good["probabilities"][1] == pytest.approx(row["probability_malignant"], abs=1e-4)
    assert not bad["valid"]
    assert bad["label"] == bad["mask_png_bytes"]["b64"] == ""
    mask = tf.io.decode_png(base64.b64decode(good["mask_png_bytes"]["b64"])).numpy()
    written = tf.io.decode_png((tiny_run / "masks" / "test" / f"{row['image_id']}.png").read_bytes()).numpy()
    assert (mask == written).mean() > 0.9999


@pytest.mark.parametrize("signature", ["serving_default", "explain"])
def test_a_request_means_to_tensorflow_serving_what_it_means_here(clinical, lesion, signature):
    body = {"signature_name": signature, "instances": [patient(lesion, age=54, sex="male"), patient(lesion)]}
    request = predict_request(clinical, body)
    inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
    expected = clinical.model.loaded.signatures[signature](**inputs)
    answers = json.loads(ask(clinical, json.dumps(body).encode()))["predictions"]
    assert set(answers[0]) == set(signature_defs(clinical)[signature].outputs)
    for key, value in expected.items():
        values = [answer[key] for answer in answers]
        if value.dtype == tf.string:
            assert values == [item.decode() for item in value.numpy()]
        else:
            np.testing.assert_allclose(values, value.numpy(), atol=1e-6)
    assert answers[0]["probabilities"] != answers[1]["probabilities"]  # the fields do matter


def test_decoded_images_may_be_asked_about(plain):
    (shape,) = (spec.shape for spec in plain.inputs["predict_images"].values())
    image = np.full((1, *shape[1:]), 128, int).tolist()
    answer = json.loads(ask(plain, json.dumps({"signature_name": "predict_images", "inputs": image}).encode()))["outputs"]
    assert sum(answer["probabilities"][0]) == pytest.approx(1.0, abs=1e-5)


def test_status_and_metadata_are_the_messages_of_tensorflow_serving(clinical):
    status_pb2 = pytest.importorskip("tensorflow_serving.apis.get_model_status_pb2", reason="needs tensorflow-serving-api")
    metadata_pb2 = pytest.importorskip("tensorflow_serving.apis.get_model_metadata_pb2")
    model_pb2 = pytest.importorskip("tensorflow_serving.apis.model_pb2")
    status = json_format.ParseDict(clinical.status(), status_pb2.GetModelStatusResponse())
    assert status.model_version_status[0].version == 1
    assert status.model_version_status[0].state == status_pb2.ModelVersionStatus.AVAILABLE
    spec = json_format.ParseDict(clinical.metadata["model_spec"], model_pb2.ModelSpec())
    assert (spec.name, spec.version.value) == ("tdbn", 1)
    parsed = json_format.ParseDict(clinical.metadata["metadata"]["signature_def"], metadata_pb2.SignatureDefMap())
    assert dict(parsed.signature_def) == dict(signature_defs(clinical))
    assert set(parsed.signature_def["serving_default"].inputs) == {"image_bytes", "age", "sex", "localization"}


def test_what_the_graph_refuses_is_refused(clinical, lesion, monkeypatch):
    def broken(**_):
        raise tf.errors.InvalidArgumentError(None, None, "of a patient")

    monkeypatch.setitem(clinical._signatures, "explain", broken)
    with pytest.raises(Refused, match="refuses these inputs of 'explain'") as refusal:
        ask(clinical, json.dumps({"signature_name": "explain", "instances": [patient(lesion)]}).encode())
    assert refusal.value.status == 400
    assert "patient" not in str(refusal.value)

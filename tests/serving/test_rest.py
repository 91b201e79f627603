"""The dialect without a model: bodies to arrays, arrays to answers, and every mistake a sentence."""

import base64
import contextlib
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_skin.serving.limits import MAX_INSTANCES, Refused
from keras_skin.serving.rest import read_request, write_answer

UPLOAD = {"image_bytes": tf.TensorSpec((None,), tf.string)}
PATIENT = {**UPLOAD, "age": tf.TensorSpec((None,), tf.float32), "sex": tf.TensorSpec((None,), tf.string)}
IMAGE = {"image": tf.TensorSpec((None, 2, 3, 1), tf.float32)}
SIGNATURES = {"serving_default": PATIENT, "explain": UPLOAD, "predict_images": IMAGE}
B64 = {"b64": base64.b64encode(b"\xff\xd8 file").decode()}


def read(body):
    return read_request(json.dumps(body).encode(), SIGNATURES)


def test_rows_and_columns_are_the_same_request():
    rows = read({"instances": [{"image_bytes": B64, "age": 54, "sex": "male"}, {"image_bytes": "x", "age": -1, "sex": ""}]})
    columns = read({"inputs": {"image_bytes": [B64, "x"], "age": [54, -1], "sex": ["male", ""]}})
    assert (rows.rows, columns.rows) == (True, False)
    for request in (rows, columns):
        assert request.signature == "serving_default"
        assert request.inputs["image_bytes"].tolist() == [b"\xff\xd8 file", b"x"]
        assert request.inputs["age"].tolist() == [54.0, -1.0]
        assert request.inputs["age"].dtype == np.float32
        assert request.inputs["sex"].tolist() == [b"male", b""]


@pytest.mark.parametrize("body", [{"instances": [B64, B64]}, {"inputs": [B64, B64]}, {"inputs": {"image_bytes": [B64, B64]}}])
def test_a_single_input_needs_no_name(body):
    request = read({"signature_name": "explain", **body})
    assert request.inputs["image_bytes"].tolist() == [b"\xff\xd8 file"] * 2


def test_base64_may_be_wrapped_and_unpadded():
    request = read({"signature_name": "explain", "instances": [{"b64": "/9gg\nZmls ZQ"}]})
    assert request.inputs["image_bytes"].tolist() == [b"\xff\xd8 file"]


def test_numbers_keep_their_shape():
    request = read({"signature_name": "predict_images", "instances": [[[[1], [2], [3]], [[4], [5], [6.5]]]]})
    np.testing.assert_array_equal(request.inputs["image"], np.array([[[[1], [2], [3]], [[4], [5], [6.5]]]], np.float32))


ONE = {"image_bytes": B64, "age": 1, "sex": ""}
MISTAKES = [
    ([1], "not a JSON object"),
    ({}, "Missing 'inputs' or 'instances' key"),
    ({"instances": [ONE], "inputs": {}}, "Both keys are present"),
    ({"instances": {}}, "'instances' must be a list"),
    ({"instances": []}, "at least one entry"),
    ({"instances": [ONE], "signature_name": 3}, "must be a string"),
    ({"instances": [ONE], "signature_name": "explian"}, "Did you mean 'explain'?"),
    ({"instances": [B64]}, "several inputs are expected: objects with image_bytes, age, sex"),
    ({"instances": [ONE, B64]}, "Element 1 of 'instances' differs in kind"),
    ({"instances": [{"image_bytes": B64, "sex": ""}]}, "must be equal to: image_bytes, age, sex"),
    ({"instances": [{**ONE, "site": ""}]}, "must be equal to: image_bytes, age, sex"),
    ({"instances": [{**ONE, "age": "abc"}]}, "'age' must hold numbers (float32), got the text \"abc\""),
    ({"instances": [{**ONE, "age": True}]}, "got the truth value true"),
    ({"instances": [{**ONE, "age": None}]}, "got null"),
    ({"instances": [{**ONE, "age": 1e300}]}, "without loss of precision"),
    ({"instances": [{**ONE, "age": [1]}]}, "has the shape [1, 1], expected [batch]"),
    ({"instances": [{**ONE, "sex": 3}]}, "'sex' must hold texts"),
    ({"instances": [{**ONE, "image_bytes": {"b64": "?"}}]}, "Unable to base64 decode"),
    ({"instances": [{**ONE, "image_bytes": {"b64": "AA", "x": 1}}]}, "is an object"),
    ({"instances": [ONE] * (MAX_INSTANCES + 1)}, f"expected 1 to {MAX_INSTANCES}"),
    ({"inputs": [B64]}, "an object is expected"),
    ({"inputs": {"image_bytes": [B64], "age": [1]}}, "Missing named input: sex"),
    ({"inputs": {"image_bytes": [B64], "age": [1, 2], "sex": [""]}}, "age: 2"),
    ({"inputs": {"image_bytes": "x", "age": 1, "sex": ""}}, "must be a list of texts"),
    ({"signature_name": "predict_images", "inputs": [[1, 2], [3]]}, "unequal length"),
    ({"signature_name": "predict_images", "inputs": []}, "has the shape [0], expected [batch, 2, 3, 1]"),
    ({"signature_name": "predict_images", "inputs": np.zeros((17, 2, 3, 1)).tolist()}, "17 instances"),
]


@pytest.mark.parametrize(("body", "words"), MISTAKES)
def test_every_mistake_is_a_sentence(body, words):
    with pytest.raises(Refused) as refusal:
        read(body)
    assert refusal.value.status == 400
    assert words in str(refusal.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b'{"instances": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(Refused, match="JSON"):
        read_request(body, SIGNATURES)


@pytest.mark.parametrize("text", [b"\\ud800", b"\\uDFFF", b"\xed\xa0\x80"])
def test_half_of_a_surrogate_pair_is_refused(text):
    for body in (b'{"instances": ["%s"]}', b'{"signature_name": "%s"}', b'{"%s": 1}'):
        with pytest.raises(Refused, match="half of a surrogate pair") as refusal:
            read_request(body % text, SIGNATURES)
        assert refusal.value.status == 400
    pair = read_request(b'{"signature_name": "explain", "instances": ["\\ud83d\\ude00"]}', SIGNATURES)
    assert pair.inputs["image_bytes"].tolist() == ["\U0001f600".encode()]


def test_a_number_of_thousands_of_digits_is_refused():
    for digits in ("9" * 400, "9" * 4000):
        with pytest.raises(Refused, match=r"too large for float32|cannot convert a number"):
            read_request(f'{{"inputs": {{"image_bytes": [""], "age": [{digits}], "sex": [""]}}}}'.encode(), SIGNATURES)


def test_answers_in_rows_and_columns():
    outputs = {
        "label": np.array([b"nv", "m\u00e9l".encode()], dtype=object),
        "png_bytes": np.array([b"\x89PNG", b""], dtype=object),
        "valid": np.array([True, False]),
        "p": np.array([[0.25, 0.75], [0.5, np.nan]], np.float32),
    }
    rows = json.loads(write_answer(outputs, rows=True))["predictions"]
    assert rows[0] == {"label": "nv", "png_bytes": {"b64": "iVBORw=="}, "valid": True, "p": [0.25, 0.75]}
    assert rows[1]["label"] == "m\u00e9l"
    assert np.isnan(rows[1]["p"][1])
    columns = json.loads(write_answer(outputs, rows=False))["outputs"]
    assert columns["valid"] == [True, False]
    assert [row["label"] for row in rows] == columns["label"]
    only = {"p": outputs["p"][:1]}
    assert json.loads(write_answer(only, rows=True)) == {"predictions": [[0.25, 0.75]]}
    assert json.loads(write_answer(only, rows=False)) == {"outputs": [[0.25, 0.75]]}


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(2), st.just(3), st.just(1)), elements=st.floats(width=32)))
def test_what_is_answered_can_be_sent_again_bit_for_bit(array):
    answer = json.loads(write_answer({"image": array}, rows=True))
    again = read({"signature_name": "predict_images", "instances": answer["predictions"]}).inputs["image"]
    np.testing.assert_array_equal(again, array)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_is_read_or_refused(value):
    for body in (value, {"instances": value}, {"inputs": value}, {"inputs": {"image_bytes": value, "age": value, "sex": value}}):
        with contextlib.suppress(Refused):
            read(body)

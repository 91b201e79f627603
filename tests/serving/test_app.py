"""The server as its clients meet it: the page, REST, headers, and everything that is refused while it lives on."""

import base64
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from keras_skin.serving import app as application
from keras_skin.serving import limits
from keras_skin.serving.app import create_app
from keras_skin.serving.attributions import NO_RUN, RunExtras
from tests.serving.bombs import png

REST = "/v1/models/tdbn:predict"


def body(lesion, **answers):
    image = {"b64": base64.b64encode(lesion).decode()}
    return {"instances": [{"image_bytes": image, "age": -1, "sex": "", "localization": "", **answers}]}


def send(client, contents, name="mole.png", headers=None, **answers):
    return client.post("/", files={"image": (name, contents, "image/png")}, data=answers, headers=headers or {"X-Fragment": "1"})


def alive(client):
    assert client.get("/v1/models/tdbn").json()["model_version_status"][0]["state"] == "AVAILABLE"


def test_the_page_asks_for_what_the_model_takes(clinical_client, plain_client):
    text = clinical_client.get("/").text
    for part in (
        "Research software, not a medical device",
        "SYNTHETIC: this model was trained on images drawn by a program",
        '<label for="field-age">Age</label>',
        '<select id="field-sex" name="sex"',
        '<option value="scalp">',
        "20 to 80 in training",
        'aria-live="polite"',
    ):
        assert part in text
    labelled = set(re.findall(r'for="([\w-]+)"', text))
    ids = set(re.findall(r'<(?:input|select)[^>]* id="([\w-]+)"', text))
    assert ids == labelled == {"image", "field-age", "field-sex", "field-localization"}
    plain = plain_client.get("/").text
    assert "field-" not in plain
    assert "Clinical fields" not in plain


def test_the_page_loads_nothing_from_anywhere_else(clinical_client, lesion):
    for text in (clinical_client.get("/").text, send(clinical_client, lesion, headers={}).text):
        assert not re.search(r"https?://|//[a-z]", re.sub(r'"data:[^"]*"', "", text))
        assert not re.search(r"<script>|<style|style=|onclick", text)
    assert "@import" not in clinical_client.get("/page.css").text
    assert clinical_client.get("/page.css").headers["content-type"].startswith("text/css")
    assert clinical_client.get("/page.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("path", ["/", "/page.css", "/nowhere", "/v1/models/tdbn", "/v1/models/other"])
def test_headers_are_safe(clinical_client, path):
    headers = clinical_client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_an_upload_is_answered_with_a_fragment_or_without_script_a_page(clinical_client, lesion):
    fragment = send(clinical_client, lesion, age="54", sex="male")
    assert fragment.status_code == 200
    assert "<html" not in fragment.text
    for part in ("Predicted: ", "mole.png", "SYNTHETIC", "SHAP values", "<td>54</td>", "<td>unknown</td>", 'alt="Heat map'):
        assert part in fragment.text
    assert fragment.text.count("<img") == 2
    whole = send(clinical_client, lesion, headers={"Accept": "text/html"}, age="54", sex="male")
    assert whole.text.startswith("<!DOCTYPE html>")
    assert "SHAP values" in whole.text
    assert 'value="54"' in whole.text
    assert '<option value="male" selected>' in whole.text


def test_a_saved_model_alone_says_that_it_has_no_attributions(clinical, lesion):
    with TestClient(create_app(clinical, RunExtras(reason=NO_RUN, doubts=("the maps are no better than chance",)))) as client:
        text = send(client, lesion).text
    assert NO_RUN in text.replace("&#39;", "'")
    assert "SHAP values" not in text
    assert "the maps are no better than chance" in text


def test_a_name_is_escaped_and_never_a_path(clinical_client, lesion):
    name = "<img src=x onerror=alert(1)>.png"
    text = send(clinical_client, lesion, name=name).text
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    for path in ("../../etc/passwd", "moles\\a.png", "/etc/passwd", ".."):
        refused = send(clinical_client, lesion, name=path)
        assert refused.status_code == 400
        assert "expected a plain name such as mole.jpg" in refused.text
    alive(clinical_client)


def noise(kind):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    return cv2.imencode(kind, image)[1].tobytes()


BAD = [
    (b"", 400, "empty file"),
    (b"just words", 400, "text file, expected JPEG, PNG or BMP"),
    (b"GIF89a" + bytes(50), 400, "GIF file"),
    (noise(".png")[:900], 400, "truncated or damaged PNG"),
    (noise(".jpg")[:900], 400, "truncated JPEG"),
    (noise(".bmp")[:900], 400, "truncated BMP"),
    (png(64, 64), 400, "cannot be decoded"),
    (png(10000, 10000), 413, "10000 x 10000 pixels is refused: the limit is 60 million pixels"),
    (png(2**31 - 1, 2**31 - 1), 413, "the limit is 60 million pixels"),
]


@pytest.mark.parametrize(("contents", "status", "words"), BAD)
def test_bad_uploads_are_told_why(clinical_client, contents, status, words):
    refused = send(clinical_client, contents)
    assert refused.status_code == status, refused.text
    assert words in refused.text
    assert 'role="alert"' in refused.text
    alive(clinical_client)


def test_wrong_answers_of_the_form(clinical_client, lesion):
    for answers, words in (
        ({"age": "abc"}, "Age is &#39;abc&#39;; expected a number"),
        ({"sex": "mail"}, "Did you mean &#39;male&#39;?"),
        ({"site": "back"}, "has no field &#39;site&#39;"),
    ):
        refused = send(clinical_client, lesion, **answers)
        assert refused.status_code == 400
        assert words in refused.text
    alive(clinical_client)


def test_wrong_forms(clinical_client, lesion):
    for arguments, status, words in (
        ({"json": {"image": "x"}}, 415, "application/json, expected multipart/form-data"),
        ({"data": {"age": "3"}}, 415, "expected multipart/form-data"),
        ({"files": {"age": (None, "3")}}, 400, "No image was sent"),
        ({"files": [("image", ("a.png", lesion)), ("more", ("b.png", lesion))]}, 400, "Too many files"),
        ({"files": [("image", ("a.png", lesion)), *((f"f{n}", (None, "x")) for n in range(20))]}, 400, "Too many fields"),
        ({"files": {"image": ("a.png", lesion), "sex": (None, "x" * 2**17)}}, 400, "cannot be read"),
        ({"content": b"no parts", "headers": {"content-type": "multipart/form-data"}}, 400, "cannot be read"),
    ):
        refused = clinical_client.post("/", **arguments)
        assert refused.status_code == status, refused.text
        assert words in refused.text
    alive(clinical_client)


def test_a_body_that_is_too_long_is_not_kept(clinical_client, monkeypatch):
    monkeypatch.setattr(limits, "MAX_UPLOAD", 2**20)
    monkeypatch.setattr(limits, "MAX_JSON", 2**20)
    page = send(clinical_client, bytes(3 * 2**20))
    assert page.status_code == 413
    assert "The image is larger than 1 MiB" in page.text
    rest = clinical_client.post(REST, content=b" " * (3 * 2**20))
    assert rest.status_code == 413
    assert rest.json() == {"error": "The body is larger than 1 MiB, the largest size accepted."}
    alive(clinical_client)


@pytest.mark.parametrize("path", [REST, "/v1/models/tdbn/versions/1:predict", "/v1/Models/tdbn:Predict"])
def test_rest_answers(clinical_client, lesion, path):
    # curl sends JSON as application/x-www-form-urlencoded unless it is told otherwise
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = clinical_client.post(path, content=json.dumps(body(lesion, age=54)), headers=kind)
    assert answer.headers["content-type"] == "application/json"
    (prediction,) = answer.json()["predictions"]
    assert prediction["valid"]
    assert len(prediction["probabilities"]) == 7


def test_rest_status_and_metadata(clinical_client):
    for path in ("/v1/models/tdbn", "/v1/models/tdbn/versions/1"):
        assert clinical_client.get(path).json()["model_version_status"][0]["version"] == "1"
        assert "serving_default" in clinical_client.get(f"{path}/metadata").json()["metadata"]["signature_def"]["signature_def"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v1/models/jrl:predict", 404, "Servable not found for request: Latest(jrl). This server has: tdbn, version 1."),
        ("POST", "/v1/models/tdbn/versions/7:predict", 404, "Specific(tdbn, 7)"),
        ("POST", "/v1/models/tdbn/labels/stable:predict", 400, "Unrecognized servable version label: stable"),
        ("POST", "/v1/models/tdbn:classify", 400, "does not support :classify"),
        ("POST", "/v1/models/tdbn:forecast", 400, "Malformed request: POST /v1/models/tdbn:forecast"),
        ("GET", REST, 400, "Malformed request: GET"),
        ("GET", "/v1/models", 400, "Missing model name"),
        ("GET", "/v1/models/jrl", 404, "Could not find any versions of model Latest(jrl)"),
        ("GET", "/v1/nothing", 400, "Malformed request"),
        ("GET", "/nowhere", 404, "Not Found: GET /nowhere"),
        ("DELETE", "/v1/models/tdbn", 405, "Method Not Allowed"),
    ],
)
def test_rest_refuses_in_the_way_of_tensorflow_serving(clinical_client, method, path, status, words):
    answer = clinical_client.request(method, path, content=b"{}" if method == "POST" else None)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert list(answer.json()) == ["error"]


def test_rest_refuses_bodies_of_other_kinds(clinical_client, lesion):
    for headers, words in (({"content-type": "image/png"}, "image/png, expected"), ({"content-encoding": "gzip"}, "Compressed")):
        refused = clinical_client.post(REST, content=lesion, headers=headers)
        assert refused.status_code == 415
        assert words in refused.json()["error"]
    bomb = clinical_client.post(REST, json=body(png(10000, 10000)))
    assert bomb.status_code == 413
    assert "pixels is refused" in bomb.json()["error"]
    not_an_image = clinical_client.post(REST, json=body(b"words"))
    assert not_an_image.status_code == 200
    assert not not_an_image.json()["predictions"][0]["valid"]
    alive(clinical_client)


def test_nothing_of_a_request_is_logged(clinical_client, lesion, monkeypatch, caplog):
    def fail(served, extras, name, contents, answers):
        raise RuntimeError(name, answers)

    monkeypatch.setattr(application, "predict_upload", fail)
    caplog.set_level(logging.DEBUG)
    answer = send(clinical_client, lesion, name="jane_doe.png", age="54")
    assert answer.status_code == 500
    assert "keeps running" in answer.json()["error"]
    logged = [record.getMessage() for record in caplog.records if record.name not in ("httpx", "asyncio")]
    assert any("RuntimeError" in text and "fail" in text for text in logged)
    assert not any(word in text for text in logged for word in ("Jane", "jane", "54"))
    alive(clinical_client)


def test_no_more_calls_at_once_than_allowed(clinical, lesion, monkeypatch):
    running, most = 0, 0

    def slow(request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        answer = real(request)
        running -= 1
        return answer

    real = clinical.answer
    monkeypatch.setattr(clinical, "answer", slow)
    with TestClient(create_app(clinical, RunExtras())) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(REST, json=body(lesion)).status_code, range(16)))
    assert answers == [200] * 16
    assert 1 <= most <= limits.CONCURRENT_CALLS

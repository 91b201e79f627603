"""Attacks on a running server, with the configuration of the command: other clients are answered meanwhile."""

import base64
import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from keras_skin.serve import LOOPBACK
from keras_skin.serving import limits
from keras_skin.serving.app import create_app
from keras_skin.serving.attributions import RunExtras
from keras_skin.serving.connections import configuration
from tests.serving.bombs import chunked_png, commented_jpeg, png, progressive_jpeg, thin_png

PREDICT = "/v1/models/jrl:predict"
HALF_HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
HALF_BODY = HALF_HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x\r\n"
ATTACKS = {
    "comments": commented_jpeg(1900),
    "scans": progressive_jpeg(500),
    "thin": thin_png(1, 2000),
    "chunks": chunked_png(b"zTXt", 5000),
    "pixels": png(10_000, 10_000),
}


@pytest.fixture(scope="module")
def port(plain):
    """The port of a server in this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(configuration(create_app(plain, RunExtras(), LOOPBACK)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def ask(port, method, path, body=None, headers=None):
    """Status and text of an answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def instances(image):
    return json.dumps({"instances": [{"image_bytes": {"b64": base64.b64encode(image).decode()}}]})


def upload(port, image, boundary="xyz"):
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return ask(port, "POST", "/", part + image + f"\r\n--{boundary}--\r\n".encode(), headers)


def seconds_of_others(port, image, count=5):
    """Times of predictions, each of which must succeed."""
    times = []
    for _ in range(count):
        start = time.monotonic()
        status, text = ask(port, "POST", PREDICT, instances(image))
        times.append(time.monotonic() - start)
        assert status == 200, text
    return times


def half_open(port, sent):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(sent)
    return connection


def received(connection):
    """Everything until the server closes the connection."""
    text = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            text += data
    return text


def test_no_upload_keeps_others_waiting(port, lesion):
    seconds_of_others(port, lesion, 1)
    with ThreadPoolExecutor(8) as pool:
        attacks = [pool.submit(upload, port, data) for data in ATTACKS.values() for _ in range(3)]
        attacks += [pool.submit(ask, port, "POST", PREDICT, instances(data)) for data in ATTACKS.values() for _ in range(3)]
        assert max(seconds_of_others(port, lesion)) < 2
        answers = [attack.result() for attack in attacks]
    assert {status for status, _ in answers} == {400, 413}
    assert all("is refused" in text or "are refused" in text for _, text in answers)


def test_fifty_unfinished_connections_keep_nobody_out(port, lesion):
    before = max(seconds_of_others(port, lesion, 10))
    connections = [half_open(port, sent) for sent in (HALF_HEAD, HALF_BODY, b"") for _ in range(50)]
    try:
        assert max(seconds_of_others(port, lesion, 10)) < 2 * before + 0.5
        assert ask(port, "GET", "/")[0] == 200
    finally:
        for connection in connections:
            connection.close()


def test_an_answered_client_keeps_its_connection(port):
    """Connections that never finished a request are closed first."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/v1/models/jrl")
        connection.getresponse().read()
        own = connection.sock
        others = [half_open(port, HALF_HEAD) for _ in range(100)]
        connection.request("GET", "/v1/models/jrl")
        assert connection.getresponse().status == 200
        assert connection.sock is own
        for other in others:
            other.close()


@pytest.mark.parametrize(("sent", "has_answer"), [(b"", False), (HALF_HEAD, True), (HALF_BODY, True)])
def test_a_client_that_does_not_finish_is_closed(port, monkeypatch, sent, has_answer):
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.4)
    start = time.monotonic()
    with half_open(port, sent) as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(3 if sent else 0):
                time.sleep(0.1)
                connection.sendall(b"x")  # bytes one by one do not start the time anew
        text = received(connection)
    assert time.monotonic() - start < 5
    assert (b"408 Request Timeout" in text and b'{"error": "The request did not arrive within' in text) == has_answer


def test_a_client_that_does_not_take_its_answer_is_closed(port, lesion, monkeypatch):
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.4)
    body = json.dumps({"instances": json.loads(instances(lesion))["instances"] * 16}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall((head + body) * 40)
        time.sleep(5)
        text = received(connection)
    assert text.count(b"HTTP/1.1 200 OK") < 40
    assert ask(port, "GET", "/")[0] == 200


def test_dropped_clients_leave_one_line_each(port, lesion, caplog):
    body = instances(lesion).encode()
    whole = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    sent = [HALF_BODY, whole[:-10], HALF_HEAD, whole]
    for data in sent:
        half_open(port, data).close()
    seconds_of_others(port, lesion, 2)
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 2 <= len(records) <= len(sent)
    assert all("\n" not in record.getMessage() and not record.exc_info for record in records)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Host": "evil.example:8501"}, "is not asked as 'evil.example:8501'"),
        ({"Origin": "https://evil.example"}, "A page of 'https://evil.example' may not ask"),
        ({"Origin": "null"}, "A page of 'null' may not ask"),
    ],
)
def test_other_sites_may_not_ask(port, lesion, headers, words):
    for method, path in (("GET", "/"), ("POST", PREDICT), ("POST", "/")):
        status, text = ask(port, method, path, instances(lesion) if method == "POST" else None, headers)
        assert status == 403
        assert words in json.loads(text)["error"]


def test_a_form_of_another_site_is_no_json(port, lesion):
    status, text = ask(port, "POST", PREDICT, instances(lesion), {"Content-Type": "text/plain;charset=UTF-8"})
    assert status == 415
    assert "text/plain, expected application/json" in text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/v1/models/jrl/versions/{'9' * 5000}", None),
        ("POST", f"/v1/models/jrl/versions/{'9' * 5000}:predict", "{}"),
        ("POST", PREDICT, '{"signature_name": "\\ud800", "instances": [1]}'),
        ("POST", PREDICT, '{"instances": [{"image_bytes": "\\udfff"}]}'),
        ("POST", PREDICT, '{"instances": [{"\\ud800": 1}]}'),
        ("POST", PREDICT, b'{"instances": ["\xed\xa0\x80"]}'),
        ("POST", PREDICT, '{"instances": [' + "9" * 5000 + "]}"),
        ("POST", PREDICT, '{"signature_name": "predict_images", "inputs": [[[[' + "9" * 4000 + "]]]]}"),
        ("POST", PREDICT, '{"signature_name": "' + "x" * 10**6 + '", "instances": [1]}'),
        ("POST", PREDICT, "[" * 10**5),
    ],
)
def test_strange_texts_are_refused_in_a_sentence(port, method, path, body):
    status, text = ask(port, method, path, body)
    assert status == 400
    assert len(json.loads(text)["error"]) < 3000


def test_a_form_in_another_alphabet_is_refused(port):
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=utf-7"}
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="+2AA-.png"\r\n\r\n\r\n--x--\r\n'
    status, text = ask(port, "POST", "/", body, headers)
    assert status == 415
    assert "expected UTF-8" in text

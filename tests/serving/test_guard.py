"""Who may ask, and what a client reads when the application fails."""

import logging

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

from keras_skin.serving.guard import FAILED, Guard

LOCAL = {"127.0.0.1", "localhost", "::1"}


def client(**arguments):
    return TestClient(Guard(PlainTextResponse("answer"), **arguments))


def status(client, host, origin=None):
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    answer = client.post("/", headers=headers)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.status_code == 200 or list(answer.json()) == ["error"]
    return answer.status_code


@pytest.mark.parametrize("host", ["localhost:8501", "LOCALHOST", "127.0.0.1:8501", "[::1]:8501"])
def test_this_computer_may_ask(host):
    assert status(client(hosts=LOCAL), host) == 200
    assert status(client(hosts=LOCAL), host, f"http://{host.lower()}") == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8501", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.0.9", "[::1", "", "a@b"]
)
def test_a_name_that_was_pointed_here_may_not(host):
    assert status(client(hosts=LOCAL), host) == 403


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:3000", "http://localhost.evil.example:8501", "http://[::1", "file://"],
)
@pytest.mark.parametrize("hosts", [LOCAL, None])
def test_a_page_of_another_site_may_not_ask(origin, hosts):
    assert status(client(hosts=hosts), "localhost:8501", origin) == 403


def test_a_proxy_may_be_allowed():
    allowed = client(hosts=LOCAL, allowed={"skin.example.org"})
    assert status(allowed, "skin.example.org", "https://skin.example.org") == 200
    assert status(allowed, "127.0.0.1:8501", "https://skin.example.org") == 200
    assert status(allowed, "127.0.0.1:8501", "https://other.example.org") == 403
    assert status(client(), "any.example.org") == 200


def failing(error):
    async def app(scope, receive, send):
        raise error

    return TestClient(Guard(app), raise_server_exceptions=False)


def test_a_dropped_client_leaves_one_line(caplog):
    failing(ClientDisconnect()).get("/")
    (record,) = (record for record in caplog.records if record.name == "keras_skin")
    assert record.getMessage() == "A client closed its connection before it had an answer."
    assert record.exc_info is None


def test_our_own_errors_are_places_without_values(caplog):
    answer = failing(RuntimeError("Jane Doe")).get("/")
    assert answer.status_code == 500
    assert answer.json() == {"error": FAILED}
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "in app" in record.getMessage()
    assert "Jane" not in record.getMessage()


def test_half_an_answer_stays_half(caplog):
    async def parts():
        yield b"half"
        raise RuntimeError

    answer = TestClient(Guard(StreamingResponse(parts())), raise_server_exceptions=False).get("/")
    assert FAILED not in answer.text

"""The load test against a server that answers, fails and refuses."""

import importlib.util
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("load_test", Path(__file__).resolve().parent.parent / "tools" / "load_test.py")
load_test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(load_test)

INPUTS = {"image_bytes": {"dtype": "DT_STRING"}, "age": {"dtype": "DT_FLOAT"}, "sex": {"dtype": "DT_STRING"}}


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bodies, statuses = [], {}

    def do_GET(self):
        assert self.path == "/v1/models/m/metadata"
        self.answer(200, {"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": INPUTS}}}}})

    def do_POST(self):
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status = self.statuses.get(len(self.bodies), 200)
        self.answer(status, {"predictions": [{"valid": True}]} if status == 200 else {"error": "full"})

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    Server.bodies, Server.statuses = [], {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/models/m:predict"
        server.shutdown()


def test_all_requests_are_sent_and_timed(url, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"image")
    assert load_test.main([url, str(tmp_path / "a.jpg"), "--requests", "20", "--concurrency", "4"]) == 0
    assert len(Server.bodies) == 20 + load_test.WARM_UP
    assert Server.bodies[0] == {"instances": [{"image_bytes": {"b64": "aW1hZ2U="}, "age": -1, "sex": ""}]}
    output = capsys.readouterr().out
    assert "errors: 0" in output
    assert "requests/s" in output


def test_errors_are_counted_and_told(url):
    Server.statuses = {2: 503, 5: 503}
    done = load_test.load(url, b"image", 6, 2)
    assert len(done.seconds) == 4
    assert done.errors == ['503: {"error": "full"}'] * 2


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_memory_is_that_of_the_process():
    assert 10 < load_test.resident_megabytes(os.getpid()) < 100_000

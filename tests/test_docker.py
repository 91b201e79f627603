"""The containers' files, as far as they can be checked without a docker engine; each check also finds what is wrong in a copy."""

import http.server
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tests.container_checks import (
    CHECKS,
    ROOT,
    Files,
    badly_batched,
    badly_monitored,
    disagreeing,
    not_built,
    not_the_export,
    privileged,
    unlike_tensorflow,
    unpinned,
)
from tools.lock import LOCKS

LOOPBACK = "127.0.0.1"

SPOILT = [  # check, file, what stands there, what is put in its place
    (unpinned, "serving/compose.yaml", "tensorflow/serving:2.21.0", "tensorflow/serving:latest"),
    (unpinned, "serving/compose.yaml", "tensorflow/serving:2.21.0", "tensorflow/serving"),
    (unpinned, "Dockerfile", "PYTHON_VERSION=3.12.13", "PYTHON_VERSION=3"),
    (unlike_tensorflow, "serving/compose.yaml", "serving:2.21.0", "serving:2.19.1"),
    (privileged, "serving/compose.yaml", 'user: "10001:10001"', 'user: "0:0"'),
    (privileged, "serving/compose.yaml", '    user: "10001:10001"\n', ""),
    (privileged, "Dockerfile", "USER 10001", "USER root"),
    (privileged, "Dockerfile", "USER 10001\n", ""),
    (privileged, "serving/compose.yaml", '"127.0.0.1:8501:8501"', '"8501:8501"'),
    (privileged, "serving/compose.yaml", "    read_only: true\n", ""),
    (privileged, "serving/compose.yaml", "        read_only: true\n", ""),
    (privileged, "serving/compose.yaml", "    cap_drop: [ALL]\n", ""),
    (privileged, "serving/compose.yaml", "no-new-privileges:true", "seccomp:unconfined"),
    (privileged, "serving/compose.yaml", "    mem_limit: 8g\n", ""),
    (disagreeing, "serving/compose.yaml", "--enable_model_warmup", "--enable_model_warm_up"),
    (disagreeing, "serving/compose.yaml", "=/config/models.config", "=/config/model.config"),
    (disagreeing, "serving/compose.yaml", "source: ./monitoring.config", "source: ./metrics.config"),
    (disagreeing, "serving/compose.yaml", "--rest_api_port=8501", "--rest_api_port=8601"),
    (disagreeing, "serving/compose.yaml", "/dev/tcp/127.0.0.1/8501", "/dev/tcp/127.0.0.1/8500"),
    (not_the_export, "serving/models.config", 'name: "jrl"', 'name: "unet"'),
    (not_the_export, "serving/models.config", "/models/jrl", "/models/joint"),
    (not_the_export, "serving/models.config", "num_versions: 1", ""),
    (not_the_export, "serving/models.config", '"tensorflow"', '"pytorch"'),
    (not_the_export, "serving/compose.yaml", "folder of a finished run}/saved_model", "folder of a finished run}/export"),
    (not_the_export, "serving/compose.yaml", "GET /v1/models/jrl ", "GET /v1/models/model "),
    (not_the_export, "serving/compose.yaml", "8501/v1/models/jrl", "8501/v1/models/model"),
    (badly_batched, "serving/batching_parameters.txt", "max_batch_size", "maximum_batch_size"),
    (badly_batched, "serving/batching_parameters.txt", "max_batch_size { value: 8 }", "max_batch_size: 8"),
    (badly_batched, "serving/batching_parameters.txt", "num_batch_threads { value: 2 }", "allowed_batch_sizes: 4"),
    (badly_batched, "serving/compose.yaml", "      - --enable_batching\n", ""),
    (badly_monitored, "serving/monitoring.config", "prometheus_config", "prometheus"),
    (badly_monitored, "serving/monitoring.config", "enable: true", "enable: false"),
    (not_built, "Dockerfile", "COPY experiments experiments", "COPY experiment experiments"),
    (not_built, "Dockerfile.dockerignore", "!experiments\n", ""),
    (not_built, "Dockerfile.dockerignore", "*\n", "\n"),
    (not_built, "Dockerfile.dockerignore", "**/__pycache__\n", ""),
    (not_built, "Dockerfile", '"keras_skin.run"', '"keras_skin.train"'),
    (not_built, "Dockerfile", "ARG DEVICE=cpu\n", ""),
    (not_built, "serving/compose.yaml", "{DEVICE: cpu}", "{DEVICES: cpu}"),
]


@pytest.fixture(scope="module")
def files():
    return Files(ROOT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_is_wrong(check, files, tiny_run):
    assert check(files, tiny_run) == []


@pytest.mark.parametrize(("check", "file", "right", "wrong"), SPOILT)
def test_each_check_finds_what_is_wrong(check, file, right, wrong, files, tmp_path, tiny_run):
    root = tmp_path / "copy"
    root.mkdir()
    for item in ROOT.iterdir():  # the copy has files of its own below docker/ only
        if item.name != "docker":
            (root / item.name).symlink_to(item)
    shutil.copytree(ROOT / "docker", root / "docker")
    text = (root / "docker" / file).read_text()
    assert right in text
    (root / "docker" / file).write_text(text.replace(right, wrong, 1))
    assert set(check(Files(root), tiny_run)) - set(check(files, tiny_run)), "nothing was found"


def test_the_models_are_configured_by_the_published_message(files, tmp_path):
    (model,) = files.models.model_config_list.config
    assert (model.name, model.base_path) == ("jrl", "/models/jrl")
    with pytest.raises(text_format.ParseError, match="model_path"):
        text_format.Parse(
            (files.serving / "models.config").read_text().replace("base_path", "model_path"),
            model_server_config_pb2.ModelServerConfig(),
        )


def test_another_model_is_served_after_the_edit_that_the_readme_tells(tmp_path, tiny_run):
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    (command,) = re.findall(r"^sed .*$", (ROOT / "docker" / "README.md").read_text(), re.MULTILINE)
    subprocess.run(shlex.split(command), check=True, cwd=tmp_path)
    edited = Files(tmp_path)
    run = shutil.copytree(tiny_run / "saved_model", tmp_path / "run" / "saved_model").parent
    assert len(not_the_export(edited, run)) == 1
    about = run / "saved_model" / "1" / "assets" / "model.json"
    about.write_text(about.read_text().replace('"name": "jrl"', '"name": "tdbn"'))
    assert not_the_export(edited, run) == []


@contextmanager
def answering(status, body, path="/v1/models/jrl"):
    """A server that tells TensorFlow Serving's status of a model; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_healthy = self.path == path
            content = (body if is_healthy else '{ "error": "Could not find any versions of model" }').encode()
            self.send_response(status if is_healthy else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def status_of(state, error="OK"):
    status = {"error_code": error, "error_message": ""}
    return json.dumps({"model_version_status": [{"version": "1", "state": state, "status": status}]}, indent=1)


def healthy(files, service, port):
    test = files.compose["services"][service]["healthcheck"]["test"]
    assert test[0] == "CMD"
    command = [sys.executable if part == "python" else re.sub(r"\b8501\b", str(port), part) for part in test[1:]]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("service", ["tensorflow-serving", "page"])
def test_the_health_check_tells_whether_the_model_answers(files, service):
    with answering(200, status_of("AVAILABLE")) as port:
        assert healthy(files, service, port)
    assert not healthy(files, service, port), "nobody listens any more"
    with answering(200, status_of("LOADING")) as port:
        assert not healthy(files, service, port)
    with answering(200, status_of("END", "UNAVAILABLE")) as port:
        assert not healthy(files, service, port)
    with answering(200, status_of("AVAILABLE"), path="/v1/models/other") as port:
        assert not healthy(files, service, port)


@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("gpu", 0), ("tpu", 1), ("", 1)])
def test_devices(files, device, code):
    (check,) = (text for text in files.instruction("RUN") if text.startswith("case"))
    result = subprocess.run(["sh", "-c", check], env={"DEVICE": device}, capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert not code or "expected cpu or gpu" in result.stderr


@pytest.mark.parametrize(("device", "lock"), [("cpu", "requirements.lock"), ("gpu", "requirements-gpu.lock")])
def test_the_image_installs_the_lock_file_of_its_device(files, device, lock):
    (install,) = (text for text in files.instruction("RUN") if "--require-hashes" in text)
    command = install.replace("&& pip", "&& echo")
    printed = subprocess.run(["sh", "-c", command], check=True, env={"DEVICE": device}, capture_output=True, text=True).stdout
    assert printed.split()[-1] == lock
    assert f"docker/{lock}" in LOCKS


def test_the_page_is_started_with_arguments_that_the_command_takes(files):
    from keras_skin.serve import parser

    options = parser().parse_args(files.compose["services"]["page"]["command"])
    assert (options.host, options.port) == ("0.0.0.0", 8501)

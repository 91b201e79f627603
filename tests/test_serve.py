"""The command as a person starts it: errors before anything is loaded, a page in a browser, the examples of the docs, Ctrl-C."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from keras_skin import serve
from keras_skin.serving import limits

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "serving.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
REST = [(kind, text) for kind, text in BLOCKS if "localhost:8501/v1" in text]
BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def served(folder):
    """The real command on a free port; yields the process and its address."""
    command = [sys.executable, "-m", "keras_skin.serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    output = ""
    for line in process.stdout:
        output += line
        if match := re.search(r"Page: (http://127\.0\.0\.1:\d+)/", line):
            break
    else:
        pytest.fail(output + process.stderr.read())
    address = match[1]
    for _ in range(100):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    try:
        yield process, address
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def plain_server(tiny_run):
    with served(tiny_run) as (_, address):
        yield address


@pytest.fixture(scope="module")
def clinical_server(clinical_run):
    with served(clinical_run) as (_, address):
        yield address


@pytest.fixture(scope="module")
def mole(tmp_path_factory):
    """A JPEG of a dark ellipse on skin."""
    image = np.full((300, 400, 3), (150, 180, 220), np.uint8)
    cv2.ellipse(image, (200, 150), (90, 60), 20, 0, 360, (40, 60, 90), -1)
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    path = tmp_path_factory.mktemp("photographs") / "mole.jpg"
    cv2.imwrite(str(path), np.clip(image + noise, 0, 255).astype(np.uint8))
    return path


def test_help_imports_nothing_heavy():
    code = (
        "import sys, keras_skin.serve as command; command.parser(); "
        "assert not {'tensorflow', 'keras', 'pandas', 'numpy', 'fastapi', 'uvicorn'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_command_is_thin():
    assert len((ROOT / "keras_skin" / "serve.py").read_text().splitlines()) < 150


def test_a_path_that_is_no_export(tmp_path, capsys):
    assert serve.main([str(tmp_path), "--port", "0"]) == 2
    assert "neither a run with an exported model" in capsys.readouterr().err


def test_a_port_in_use_is_told_before_anything_is_loaded(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert serve.main([str(tmp_path), "--port", str(port)]) == 2
    assert f"Cannot listen at 127.0.0.1, port {port}: Address already in use. Try another --port." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--allow-host", "https://skin.example.org"], "expected a plain name without scheme, port and path"),
        (["--allow-host", "skin.example.org:8501"], "such as skin.example.org"),
        (["--port", "70000"], "--port 70000: expected a number from 0 to 65535"),
        (["--host", "no.such.host.invalid"], "Cannot listen at no.such.host.invalid"),
    ],
)
def test_addresses_that_cannot_be(tmp_path, capsys, arguments, words):
    assert serve.main([str(tmp_path), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serve, "MODULES", ("fastapi", "no_such_module"))
    assert serve.main([str(tmp_path)]) == 2
    assert 'needs no_such_module, which is not installed: pip install "keras_skin[serve]"' in capsys.readouterr().err


@pytest.mark.slow
def test_other_machines_are_let_in_with_a_warning(clinical_run, capsys, monkeypatch):
    import uvicorn

    server = {}
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: server.update(config=self.config, sockets=sockets))
    assert serve.main([str(clinical_run / "saved_model"), "--host", "0.0.0.0", "--port", "0"]) == 0
    output = capsys.readouterr()
    assert "WARNING: listening at 0.0.0.0" in output.err
    assert "not a medical device" in output.err
    assert "SYNTHETIC" in output.out
    assert "A SavedModel has no training images" in output.out
    assert not server["config"].access_log
    assert server["config"].limit_concurrency > limits.CONNECTIONS


@pytest.mark.slow
def test_ctrl_c_ends_it(clinical_run):
    with served(clinical_run / "saved_model") as (process, _):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert errors.endswith("\nInterrupted; the server has stopped.\n")


def test_the_examples_are_there():
    assert [kind for kind, _ in REST] == ["bash", "bash", "python", "python", "bash", "python", "python"]
    assert {re.search(r"/v1/models/(\w+)", text)[1] for _, text in REST} == {"jrl", "tdbn"}
    assert len(BLOCKS) == len(REST) + 1  # and gRPC


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(REST)))
def test_every_rest_example_works(number, plain_server, clinical_server, mole, tmp_path, monkeypatch):
    kind, text = REST[number]
    shutil.copy(mole, tmp_path / "mole.jpg")
    monkeypatch.chdir(tmp_path)
    address = plain_server if "models/jrl" in text else clinical_server
    text = text.replace("http://localhost:8501", address)
    assert "localhost" not in text
    if kind == "bash":
        if not all(map(shutil.which, ("bash", "curl", "base64"))):
            pytest.skip("needs bash, curl and base64")
        done = subprocess.run(["bash", "-e", "-c", text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert '"predictions": [{' in (tmp_path / "answer.json").read_text() if "--output" in text else "AVAILABLE" in done.stdout
    else:
        exec(compile(text, str(DOCS), "exec"), {})
        assert "mask.png" not in text or cv2.imread("mask.png").shape == (300, 400, 3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_request_beside_an_export_works(tiny_run, plain_server, clinical_run, clinical_server):
    for run, address in ((tiny_run, plain_server), (clinical_run, clinical_server)):
        script = run / "saved_model" / "1" / "assets.extra" / "request.sh"
        environment = {**os.environ, "SERVER": address}
        done = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, check=True)
        (prediction,) = json.loads(done.stdout)["predictions"]
        assert prediction["valid"] is True
        assert prediction["label"] in (run / "saved_model" / "1" / "assets" / "labels.txt").read_text().split()


@pytest.mark.slow
def test_the_grpc_example_is_what_the_model_takes(clinical_run, mole, monkeypatch, capsys):
    grpc = pytest.importorskip("grpc", reason="needs tensorflow-serving-api")
    services = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc", reason="needs tensorflow-serving-api")
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    model = tf.saved_model.load(str(clinical_run / "saved_model" / "1"))

    class Stub:
        """Answers as TensorFlow Serving would, from the SavedModel."""

        def __init__(self, channel):
            assert channel == "localhost:8500"

        def Predict(self, request, timeout):
            assert request.model_spec.name == "tdbn"
            signature = model.signatures[request.model_spec.signature_name]
            assert set(request.inputs) == set(signature.structured_input_signature[1])
            answers = signature(**{name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()})
            return predict_pb2.PredictResponse(outputs={name: tf.make_tensor_proto(value) for name, value in answers.items()})

    monkeypatch.setattr(grpc, "insecure_channel", lambda address: address)
    monkeypatch.setattr(services, "PredictionServiceStub", Stub)
    monkeypatch.chdir(mole.parent)
    (text,) = (text for _, text in BLOCKS if "grpc" in text)
    exec(compile(text, str(DOCS), "exec"), {})
    assert re.match(r"\w+ \[[\d. e+\-\n]+\]", capsys.readouterr().out)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium or google-chrome here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


def shoot(page, name):
    """Keeps a picture of the page where KERAS_SKIN_SCREENSHOTS names a folder."""
    if folder := os.environ.get("KERAS_SKIN_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_asks_in_a_browser(browser, clinical_server, mole, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    failures = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda request: failures.append(request.url) if not request.url.startswith(own) else None)
    own = (clinical_server, "data:", f"blob:{clinical_server}")
    page.goto(clinical_server)
    shoot(page, f"empty_{width}")
    assert page.get_by_text("Research software, not a medical device").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # by keyboard alone: labels lead to the fields, Enter sends
    page.get_by_label("Choose an image of the lesion").set_input_files(mole)
    assert page.locator("#preview").is_visible()
    page.get_by_label("Age", exact=True).fill("54")
    page.get_by_label("Sex", exact=True).select_option("male")
    page.get_by_label("Localization").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "submit"
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer .result", timeout=60_000)
    above, heading = page.locator(".always").bounding_box(), page.locator("#answer h2").bounding_box()
    assert above["y"] == 0
    assert above["height"] <= heading["y"] < 800 / 2
    shoot(page, f"result_{width}")
    assert page.evaluate("document.activeElement.textContent").startswith("Predicted: ")
    assert page.get_by_role("row").filter(has_text="%").count() == 7
    for image in page.locator("#answer img").all():
        assert image.get_attribute("alt")
        assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    assert page.get_by_role("row", name=re.compile("age.*54")).is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Choose an image of the lesion").set_input_files(
        {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"just words"}
    )
    page.get_by_role("button", name="Ask the model").click()
    page.wait_for_selector("#answer .error")
    shoot(page, f"error_{width}")
    assert "text file, expected JPEG, PNG or BMP" in page.get_by_role("alert").inner_text()
    assert page.evaluate("document.activeElement.textContent") == "This could not be answered"
    assert failures == []
    page.close()


@pytest.mark.slow
def test_without_script_the_form_works_as_well(browser, plain_server, mole):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(plain_server)
    page.get_by_label("Choose an image of the lesion").set_input_files(mole)
    page.get_by_role("button", name="Ask the model").click()
    page.wait_for_selector("#answer .result", timeout=60_000)
    assert page.get_by_role("heading", level=1).is_visible()
    assert page.locator("#answer img").count() == 2
    context.close()

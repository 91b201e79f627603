"""The check command as its user meets it: what it says, and with which exit code."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_skin.check import main
from keras_skin.data.datasets import readers

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    readers.get("isic2016").info["render"](root / "isic2016", 3, {"train": 12, "test": 4}, (64, 80))
    readers.get("isic2017").info["render"](root / "ours", 3, {"train": 8}, (64, 80))
    return root


def test_a_good_data_set_exits_with_0_and_writes_the_page(data, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    assert main(["isic2016", "--data", str(data), "--html", str(page)]) == 0
    output = capsys.readouterr()
    assert "compared with: isic2017 (ours)" in output.out
    assert "images also in isic2017 (ours)" in output.out
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_folder_a_reader_and_what_to_compare_with_can_be_named(data, capsys):
    assert main(["ours", "--data", str(data), "--against", "none"]) == 0
    assert "compared with: no other data set" in capsys.readouterr().out
    assert main(["ours", "--as", "isic2017", "--data", str(data), "--against", "isic2016"]) == 0
    assert "compared with: isic2016" in capsys.readouterr().out


def test_an_error_exits_with_1(data, tmp_path, capsys):
    readers.get("isic2016").info["render"](tmp_path / "isic2016", 3, {"train": 8, "test": 0}, (64, 80))
    next((tmp_path / "isic2016" / "ISBI2016_ISIC_Part1_Training_Data").iterdir()).write_bytes(b"")
    assert main(["isic2016", "--data", str(tmp_path)]) == 1
    assert "ERROR     1 image that cannot be used." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["isic2061", "--data", "DATA"], "There is no data set 'isic2061'. Did you mean 'isic201"),
        (["our", "--data", "DATA"], "Did you mean 'ours'?"),
        (["isic2016"], "no data folder was given"),
        (["isic2016", "--data", "DATA/nowhere"], "DATA/nowhere/isic2016: not there"),
        (["ham10000", "--data", "DATA"], "HAM10000_images_part_1"),
        (["ours", "--as", "isic2107", "--data", "DATA"], "Did you mean 'isic2017'?"),
        (["isic2016", "--data", "DATA", "--against", "isic2016"], "always compared with itself"),
        (["isic2016", "--data", "DATA", "--html", "DATA"], "is a folder, expected a file"),
    ],
)
def test_misuse_is_told_without_a_traceback(arguments, expected, data, capsys, monkeypatch):
    monkeypatch.delenv("KERAS_SKIN_DATA", raising=False)
    assert main([word.replace("DATA", str(data)) for word in arguments]) == 2
    output = capsys.readouterr()
    assert expected.replace("DATA", str(data)) in output.err
    assert "Traceback" not in output.err


def test_a_table_that_cannot_be_read_exits_with_2_and_names_the_line(tmp_path, capsys):
    readers.get("isic2016").info["render"](tmp_path / "isic2016", 3, {"train": 4, "test": 0}, (64, 80))
    (tmp_path / "isic2016" / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv").write_text("ISIC_0000000,banign\n")
    assert main(["isic2016", "--data", str(tmp_path)]) == 2
    assert "line 1: found label 'banign'" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_without_a_traceback(tmp_path):
    readers.get("isic2016").info["render"](tmp_path / "isic2016", 3, {"train": 4, "test": 0}, (64, 80))
    code = (
        "import sys, time, keras_skin.checking.scan as scan\n"
        "read = scan._read\n"
        "def slow(*paths):\n"
        "    sys.stdout.write('reading\\n'); sys.stdout.flush()\n"
        "    time.sleep(1)\n"
        "    return read(*paths)\n"
        "scan._read = slow\n"
        "from keras_skin.check import main\n"
        f"sys.exit(main(['isic2016', '--data', {str(tmp_path)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in output
    assert "Traceback" not in output


def test_help_answers_fast_and_the_command_is_thin():
    code = "import sys, keras_skin.check; assert not {'tensorflow', 'keras', 'pandas', 'numpy', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = [sys.executable, "-m", "keras_skin.check", "--help"]
        output = subprocess.run(run, check=True, cwd=ROOT, capture_output=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, seconds
    assert "exit codes: 0 no error; 1 an error" in output
    assert len((ROOT / "keras_skin" / "check.py").read_text().splitlines()) < 150

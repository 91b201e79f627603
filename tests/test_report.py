"""The report of a finished run, written again from its folder."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from keras_skin.report import main


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_the_same_folder_gives_the_same_page(run, capsys):
    (path_before,) = re.findall(r"Run folder: (.+)", (run / "run.log").read_text())
    before = (run / "report.html").read_text()
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == f"Report: {run / 'report.html'}\n"
    assert path_before in before
    after = (run / "report.html").read_text()
    assert after != before
    assert after.replace(path_before, str(run)) == before.replace(path_before, str(run))


def test_the_page_follows_the_files(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["segmentation"]["dsc"]["value"] = 0.12345
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert main([str(run)]) == 0
    assert "0.1235" in (run / "report.html").read_text()


def test_warnings_of_the_run_stand_at_its_head(run):
    content = json.loads((run / "report.json").read_text())
    assert content["warnings"] == []
    (run / "report.json").write_text(json.dumps({**content, "warnings": ["Far too many of them."]}))
    assert main([str(run)]) == 0
    page = (run / "report.html").read_text()
    assert page.index("Far too many of them.") < page.index("<h2")


def test_it_needs_no_tensorflow(run):
    code = f"import sys; from keras_skin.report import main; main([{str(run)!r}]); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("report.json", None, "report.json cannot be read"), ("run.json", '{"finished": false}', "has not finished. Resume it")],
)
def test_a_run_that_is_not_complete_is_refused_and_the_old_page_stays(run, name, content, message, capsys):
    before = (run / "report.html").read_bytes()
    (run / name).unlink() if content is None else (run / name).write_text(content)
    assert main([str(run)]) == 2
    assert message in capsys.readouterr().err
    assert (run / "report.html").read_bytes() == before

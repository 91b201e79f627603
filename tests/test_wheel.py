"""A wheel built from the tree, installed outside the checkout, runs a shipped experiment by its bare name."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from keras_skin import list_presets
from keras_skin.run_folder import PRESET
from tests.tiny_run import TINY, arguments

ROOT = Path(__file__).resolve().parent.parent


def files_of_preset(name):
    manifest = json.loads((ROOT / "keras_skin" / "presets" / name / PRESET).read_text())
    return [f"{name}/{file}" for file in (PRESET, *manifest["files"])]


@pytest.mark.slow
def test_wheel_runs_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("keras_skin-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "keras_skin/experiments/jrl_ph2.json",
        "keras_skin/experiments/schema.json",
        "keras_skin/experiments/tables/jrl.json",
        "keras_skin/evaluation/report.html.j2",
        "keras_skin/experiments/colab/01_quickstart.ipynb",
        "keras_skin/export/model_card.md.j2",
        "keras_skin/serving/page.html.j2",
        "keras_skin/py.typed",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]
    presets = {name for name in names if name.startswith("keras_skin/presets/") and name.count("/") > 2}
    shipped = {f"keras_skin/presets/{name}" for preset in list_presets() for name in files_of_preset(preset)}
    assert presets == shipped
    assert sum(file.compress_size for file in zipfile.ZipFile(wheel).infolist() if file.filename in presets) < 40e6

    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        cwd=tmp_path,
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = subprocess.run(
        [sys.executable, "-c", "import keras_skin; print(keras_skin.__file__)"],
        check=True,
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(site)), "the checkout was imported instead of the wheel"
    command = [
        sys.executable,
        "-m",
        "keras_skin.run",
        *arguments("jrl_ph2", "--dry-run", overrides=[*TINY, "explain.images=0", "explain.measured=0"]),
    ]
    result = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert list((elsewhere / "runs").glob("*/report.html"))

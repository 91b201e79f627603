"""Every shipped experiment, from its file to an exported model that answers the same in a process without keras_skin."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from keras_skin.experiment import load_experiment, shipped_experiments
from keras_skin.run import main
from tests.tiny_run import TINY, arguments

ASK = """
import json, sys
import tensorflow as tf
asked = json.load(sys.stdin)
served = tf.saved_model.load(asked["saved_model"]).signatures["serving_default"]
answers = served(image_bytes=tf.constant([open(path, "rb").read() for path in asked["files"]]))
assert not any(name.split(".")[0] == "keras_skin" for name in sys.modules)
print(json.dumps({name: value.numpy().tolist() for name, value in answers.items() if name in ("probabilities", "valid")}))
"""


def ask_in_a_fresh_process(run, files):
    asked = json.dumps({"saved_model": str(run / "saved_model" / "1"), "files": [str(file) for file in files]})
    result = subprocess.run([sys.executable, "-c", ASK], input=asked, capture_output=True, text=True, cwd=run, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def check_export(run):
    predictions = pd.read_csv(run / "predictions.csv")
    files = [next((run / "demo_data").rglob(f"{name}.*[jb][pm][gp]")) for name in predictions["image_id"]]
    answers = ask_in_a_fresh_process(run, files)
    assert all(answers["valid"])
    if "probabilities" in answers:
        written = predictions[["probability_benign", "probability_malignant"]].to_numpy()
        assert answers["probabilities"] == pytest.approx(written, abs=1e-4)


def test_exported_model_answers_as_the_run_did_in_a_fresh_process(tiny_run):
    check_export(tiny_run)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped_experiments() if name != "jrl_ph2" and not name.endswith("crossval")])
def test_experiment_runs_through_export(name, tmp_path):
    overrides = [text for text in TINY if "filters" not in text or load_experiment(name).model.name != "resnet50"]
    assert main(arguments(name, "--dry-run", "--out", str(tmp_path), overrides=overrides)) == 0
    (run,) = tmp_path.iterdir()
    check_export(run)

"""Every shipped experiment, from its file to an exported model that answers the same in a process without keras_skin."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_skin.data.images.decode import decode_image
from keras_skin.data.images.load import model_image
from keras_skin.experiment import load_experiment, shipped_experiments
from keras_skin.run import main
from keras_skin.workflow import load_run
from keras_skin.workflow.opened_run import preprocessing
from keras_skin.workflow.prepare import prepare_data
from tests.tiny_run import arguments, tiny

ASK = """
import json, sys
import tensorflow as tf
asked = json.load(sys.stdin)
served = tf.saved_model.load(asked["saved_model"]).signatures["serving_default"]
fields = {name: tf.constant(values) for name, values in asked["fields"].items()}
answers = served(image_bytes=tf.constant([open(path, "rb").read() for path in asked["files"]]), **fields)
assert not any(name.split(".")[0] == "keras_skin" for name in sys.modules)
print(json.dumps({name: value.numpy().tolist() for name, value in answers.items() if name in ("probabilities", "mask", "valid")}))
"""


def ask_in_a_fresh_process(run, table, fields):
    request = json.dumps({"saved_model": str(run / "saved_model" / "1"), "files": table["image"].tolist(), "fields": fields})
    result = subprocess.run([sys.executable, "-c", ASK], input=request, capture_output=True, text=True, cwd=run, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def check_export(run):
    finished, predictions = load_run(run), pd.read_csv(run / "predictions.csv", dtype={"image_id": str})
    known = prepare_data(finished.experiment, run / "demo_data", metadata=finished.metadata).table
    table = predictions[["dataset", "image_id"]].merge(known, on=["dataset", "image_id"], validate="one_to_one")
    assert len(table) == len(predictions) > 0
    tasks = {"mask": "segmentation", "label": "classification"}
    measured = finished.metrics.get("test") or finished.metrics["validation"]  # a paper's single split is the validation split
    assert set(measured) == {task for output, task in tasks.items() if output in finished.model.output}
    fields = {
        field.name: table[field.name].tolist()
        if field.kind == "categorical"
        else [float(text or -1) for text in table[field.name]]
        for field in (finished.metadata.fields if finished.metadata else ())
    }
    answers = ask_in_a_fresh_process(run, table, fields)
    assert all(answers["valid"])
    if "probabilities" in answers:
        written = predictions[[f"probability_{name}" for name in finished.classes]].to_numpy()
        assert answers["probabilities"] == pytest.approx(written, abs=1e-4)
    if "mask" in answers:
        np.testing.assert_allclose(answers["mask"], own_masks(finished, table["image"]), atol=1e-4)


def own_masks(finished, files):
    """The masks of the run's model, or of the segmenter that it is chained to, for image files."""
    run = finished.segmenter or finished
    size, steps = run.experiment.image_size, preprocessing(run.experiment)
    images = tf.stack([model_image(decode_image(tf.io.read_file(file), size), size, steps) for file in files])
    return tf.sigmoid(run.model({"image": images}, training=False)["mask"]).numpy()


SYSTEMS = {
    "deep_unet_isic2018": [],
    "dual_task_ham10000": ["model.classifier=shared"],
    "dualrefnet_isic2019": ["model.backbone=vgg13"],
    "msfa_ham10000": [],
    "tdbn_ham10000": ["model.shared_encoder=true"],
}
"""One experiment of each system but jrl, whose is `tiny_run`, and overrides that leave out what is slow to trace."""


def run_and_check(name, out, tiny_run, *overrides):
    overrides = [*tiny(name), "explain.measured=0", *overrides]  # the faithfulness of maps has tests of its own
    if load_experiment(name).segmenter:
        overrides.append(f"segmenter.run={tiny_run}")
    assert main(arguments(name, "--dry-run", "--out", str(out), overrides=overrides)) == 0
    (run,) = out.iterdir()
    check_export(run)


@pytest.mark.slow
def test_exported_model_answers_as_the_run_did_in_a_fresh_process(tiny_run):
    check_export(tiny_run)


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_each_system_runs_through_export(name, tmp_path, tiny_run):
    run_and_check(name, tmp_path, tiny_run, *SYSTEMS[name])


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in shipped_experiments() if name != "jrl_ph2" and not name.endswith("crossval")])
def test_experiment_runs_through_export(name, tmp_path, tiny_run):
    run_and_check(name, tmp_path, tiny_run)

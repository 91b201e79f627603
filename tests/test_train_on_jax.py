"""A run that is trained on JAX without TensorFlow and measured here."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from keras_skin import workflow
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder
from keras_skin.training.run_state import load_run_state
from tests.conftest import REPOSITORY
from tools import train_on_jax

WITHOUT_TENSORFLOW = """
import sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError("this machine has no TensorFlow", name="tensorflow")

sys.meta_path.insert(0, NoTensorFlow())
from tools.train_on_jax import main
sys.exit(main())
"""


def on_jax(*arguments):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, text=True, check=False, capture_output=True)


@pytest.mark.slow
def test_a_training_on_jax_is_that_of_the_experiment(tiny_run, tmp_path):
    pytest.importorskip("jax", reason="the test needs JAX: pip install 'keras_skin[test]'")
    run, packed, trained = tmp_path / "run", tmp_path / "packed.npz", tmp_path / "trained"
    shutil.copytree(tiny_run, run)
    RunFolder(run).update_record(finished=False)
    assert train_on_jax.main(["pack", str(run), str(packed), "--quality", "100"]) == 0
    done = on_jax("train", packed, trained)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(run / "checkpoints" / "run_state.npz", tmp_path / "tensorflow.npz")
    assert train_on_jax.main(["unpack", str(trained), str(run)]) == 0
    (run / "metrics.json").unlink()
    workflow.resume(run)
    folder = RunFolder(run)
    assert folder.finished
    assert folder.record["trained_elsewhere"]["versions"]["jax"]
    assert {"test", "validation"} <= set(folder.metrics)
    # same images in the same order with the same losses: the histories are close, although JPEG changes pixels
    own, other = (pd.read_csv(path / "history.csv") for path in (tiny_run, run))
    np.testing.assert_allclose(other["loss"], own["loss"], rtol=0.02)
    np.testing.assert_allclose(other["learning_rate"], own["learning_rate"], rtol=1e-5)
    before, after = load_run_state(tmp_path / "tensorflow.npz"), load_run_state(folder.state)
    assert before.layout == after.layout


def test_what_cannot_be_trained_elsewhere_is_refused(tiny_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("saved_model", "figures", "explain", "demo_data"))
    settings = json.loads((run / "experiment.json").read_text())
    settings["balancing"] = {"name": "curriculum"}
    settings["augmentation"] = {"name": "flips_rotations"}
    (run / "experiment.json").write_text(json.dumps(settings))
    assert train_on_jax.main(["pack", str(run), str(tmp_path / "packed.npz")]) == 2
    assert "cannot be trained elsewhere: balancing 'curriculum'" in capsys.readouterr().err
    (run / "checkpoints" / "run_state.npz").unlink()
    assert train_on_jax.main(["pack", str(run), str(tmp_path / "packed.npz")]) == 2
    assert "has not started to train" in capsys.readouterr().err
    assert not (tmp_path / "packed.npz").exists()
    assert train_on_jax.main(["train", str(tmp_path / "packed.npz"), str(tmp_path / "trained")]) == 2
    assert "is no file of `pack`" in capsys.readouterr().err


def test_the_training_of_another_run_is_refused(tiny_run, tmp_path, monkeypatch):
    trained = tmp_path / "trained"
    shutil.copytree(tiny_run / "checkpoints", trained / "checkpoints")
    state = load_run_state(tiny_run / "checkpoints" / "run_state.npz")
    other = dict(state.record, context={"experiment": "another"})
    monkeypatch.setattr(
        "keras_skin.training.run_state.load_run_state",
        lambda path: state if tiny_run in path.parents else type(state)(path, state.arrays, state.layout, other),
    )
    with pytest.raises(UserError, match="is the training of another run"):
        train_on_jax.unpack(trained, tiny_run)

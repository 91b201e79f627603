"""A training that is interrupted anywhere and resumed in a new process ends exactly like an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("small_training.py")
REPOSITORY = SCRIPT.parents[2]


def train(folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Trains in a separate process."""
    folder.mkdir(exist_ok=True)
    settings = {"epochs": 3, "save_every_steps": 2, **settings}
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-W",
            "ignore::FutureWarning",
            str(SCRIPT),
            str(folder),
            json.dumps(settings),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=300,
        check=False,
    )


def outcome(folder: Path) -> dict[str, np.ndarray]:
    """All variables and the history at the end of the training."""
    with np.load(folder / "outcome.npz") as archive:
        return dict(archive)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        # Training maximises the loss, so that the rate falls after the second epoch and after the third.
        pytest.param(
            {"schedule": {"name": "plateau", "factor": 0.5, "patience": 1}, "monitor": "loss", "mode": "max"},
            marks=pytest.mark.nightly,
        ),
        {"schedule": {"name": "cosine", "warmup_epochs": 0.5}, "ema": 0.9},
    ],
    ids=["exponential", "plateau", "cosine and averaged weights"],
)
def test_killed_in_an_epoch_then_interrupted_then_finished(tmp_path: Path, settings: dict[str, Any]) -> None:
    undisturbed = train(tmp_path / "undisturbed", **settings)
    assert undisturbed.returncode == 0, undisturbed.stderr
    # The state is saved after 2 and 4 of 5 steps; the kill comes at the end of the fourth step of the second epoch, before its
    # save: the training falls back to the state after 2.
    folder = tmp_path / "disturbed"
    killed = train(folder, signal=[1, 3, "SIGKILL"], **settings)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    interrupted = train(folder, signal=[2, 2, "SIGINT"], resume=True, seed=1, **settings)
    assert interrupted.returncode == 130, interrupted.stderr
    assert "resumes in epoch 3, after 3 of 5 steps" in interrupted.stdout
    assert not (folder / "outcome.npz").exists()
    resumed = train(folder, resume=True, seed=2, **settings)
    assert resumed.returncode == 0, resumed.stderr

    expected, result = outcome(tmp_path / "undisturbed"), outcome(folder)
    assert set(expected) == set(result)
    assert len(expected["history"]) == 3
    assert expected["history"][-1, 1] < expected["history"][0, 1], "the learning rate has fallen"
    for name in expected:
        np.testing.assert_array_equal(expected[name], result[name], err_msg=name)

"""Run folders that a result can be recorded of, without training."""

import json

import numpy as np
import pandas as pd

from keras_skin.experiment import load_experiment
from tests.evaluation.run_folders import images, write_run

MACHINE = {
    "keras_skin": "0.1.0",
    "python": "3.11.9",
    "processor": "A processor",
    "cpus": 2,
    "gpus": [],
    "packages": {"tensorflow": "2.20.0", "keras": "3.12.0", "numpy": "2.2.0", "pandas": "2.2.0"},
    "commit": "0123456789abcdef",
}


def write_recordable(path, experiment, overrides=(), seed=0, table=None, missing=0, **more):
    """Writes a finished run with the environment, the history and the excluded images that `record` reads."""
    tested = images() if table is None else table
    tasks = ("mask", "label") if "mask" in load_experiment(experiment, overrides).losses else ("label",)
    facts = {"finished_on": "2026-01-31", "peak_memory_mib": 2048, **more.pop("record", {})}
    all_overrides = [*overrides, f"train.seed={seed}"]
    options = {"tasks": tasks, "seed": seed + len(path.name), "record": facts, **more}
    write_run(path, tested, experiment=experiment, overrides=all_overrides, **options)
    training = tested.assign(split="train", image_id=[f"T{number}" for number in range(len(tested))])
    splits = pd.concat([tested, training])[["image_id", "group_id", "label", "split", "dataset"]]
    splits.to_csv(path / "splits.csv", index=False)
    (path / "environment.json").write_text(json.dumps(MACHINE))
    history = pd.DataFrame({"epoch": [1, 2], "learning_rate": 0.1, "seconds": [600.0, 300.0], "loss": np.nan})
    history.to_csv(path / "history.csv", index=False)
    rows = [["isic2016", f"M{number}", "", "a row without an image", "train", "missing image"] for number in range(missing)]
    columns = ["dataset", "image_id", "file", "reason", "split", "kind"]
    pd.DataFrame(rows, columns=columns).to_csv(path / "excluded.csv", index=False)
    return path

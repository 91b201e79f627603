"""The typed experiment: all settings of a run, read from a JSON file; an error lists every mistake at once.

    experiment = load_experiment("experiments/jrl_ph2.json", overrides=["train.epochs=2"])

A file may name a parent with `extends`; its values override the parent's. Components are objects with a `name` and arguments
(`{"name": "jrl", "variant": "mtl3"}`); a component with another name than its parent's replaces it completely.
"""

from keras_skin.experiment.components import DatasetSettings
from keras_skin.experiment.fields import Experiment
from keras_skin.experiment.loading import load_experiment, shipped_experiments, validate
from keras_skin.experiment.schema import json_schema

__all__ = ["DatasetSettings", "Experiment", "json_schema", "load_experiment", "shipped_experiments", "validate"]

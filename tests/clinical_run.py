"""A run folder with clinical metadata, as `python -m keras_skin.run` writes it, of a model that was not trained."""

import json

import keras
import numpy as np
import pandas as pd

from keras_skin.data.datasets.readers import ham10000
from keras_skin.data.metadata import fit_metadata
from keras_skin.experiment import load_experiment
from keras_skin.explain.callback import SHAP_BACKGROUND
from keras_skin.explain.shap_values import MetadataShap
from keras_skin.export.saved_model import export_model
from keras_skin.workflow.opened_run import build_model
from tests.tiny_run import tiny

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
TABLE = pd.DataFrame(
    {
        "age": ["20", "35", "50", "80", "", "60"],
        "sex": ["female", "male", "", "male", "female", "male"],
        "localization": ["back", "face", "scalp", "", "back", "face"],
    }
)


def make_clinical_run(out):
    """Writes the run folder `tdbn` of an untrained TDBN: one image branch with age, sex and site."""
    folder = out / "tdbn"
    keras.utils.set_random_seed(7)
    experiment = load_experiment("tdbn_ham10000", [*tiny("tdbn_ham10000"), "segmenter=null", "model.branches=image"])
    encoder = fit_metadata(TABLE, ham10000.METADATA, missing="mask", inputs=list(TABLE))
    arguments = {
        "class_counts": [1] * len(CLASSES),
        "metadata_width": encoder.width,
        "metadata_fields": [len(field.column_names) for field in encoder.fields],
    }
    model = build_model(experiment, len(CLASSES), arguments)
    for name in ("checkpoints", "explain"):
        (folder / name).mkdir(parents=True)
    (folder / "experiment.json").write_text(experiment.to_json())
    (folder / "run.json").write_text(
        json.dumps({"classes": CLASSES, "model_arguments": arguments, "demo": True, "finished": True})
    )
    (folder / "metrics.json").write_text("{}")
    (folder / "metadata.json").write_text(encoder.to_json())
    model.save_weights(folder / "checkpoints" / "best.weights.h5")
    image = np.random.default_rng(0).uniform(0, 255, (len(TABLE), *experiment.image_size, 3)).astype(np.float32)
    inputs = {"image": image, "metadata": encoder.transform(TABLE)}
    explainer = MetadataShap(model, inputs, encoder.field_of_columns, encoder.availability_columns)
    np.savez(folder / "explain" / SHAP_BACKGROUND, *explainer.background)
    export_model(
        model,
        folder / "saved_model",
        classes=CLASSES,
        image_size=experiment.image_size,
        name=experiment.model.name,
        metadata=encoder,
        synthetic=True,
        extra={"title": experiment.title, "trained_on": {"ham10000": len(TABLE)}},
    )

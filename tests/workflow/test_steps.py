"""Steps of a run that need no training."""

from types import SimpleNamespace

import pandas as pd
import pytest

from keras_skin.experiment import load_experiment
from keras_skin.workflow.steps import check_shares


@pytest.mark.parametrize(
    ("override", "curriculum", "expected"),
    [
        ("predict.prior=null", None, 'set "predict": {"prior": "training"}'),
        ("predict.prior=null", ("admitted", "replayed"), "Train longer"),
        ("predict.prior=training", None, "Train longer"),
        ("predict.prior=uniform", None, None),
    ],
)
def test_predicted_shares_far_from_the_training_splits_are_reported(override, curriculum, expected, caplog):
    images = pd.DataFrame({"label": ["benign"] * 80 + ["malignant"] * 20})
    run = SimpleNamespace(
        experiment=load_experiment("jrl_ph2", [override]),
        data=SimpleNamespace(classes=("benign", "malignant"), rows=lambda split: images),
    )
    training = SimpleNamespace(shown={"benign": 320.0, "malignant": 320.0}, curriculum=curriculum)
    evaluation = SimpleNamespace(predictions=pd.DataFrame({"predicted": ["malignant"] * 45 + ["benign"] * 5}))
    warnings = check_shares(run, training, {"validation": evaluation})
    assert caplog.messages == warnings
    assert len(warnings) == (expected is not None)
    assert all(expected in text for text in warnings)
    masks_only = SimpleNamespace(predictions=pd.DataFrame({"dsc": [0.5]}))
    assert check_shares(run, training, {"validation": masks_only}) == []

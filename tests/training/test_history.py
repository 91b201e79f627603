"""The history file."""

from types import SimpleNamespace

import pandas as pd
import pytest

from keras_skin.training.history import EpochHistory


def test_history_writes_what_it_holds(tmp_path):
    history = EpochHistory(tmp_path / "deep" / "history.csv")
    history.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.5)))
    history.set_state({"rows": [{"epoch": 1, "learning_rate": 1.0, "seconds": 2.0, "loss": 0.1 + 0.2}], "seconds": 100.0})
    history.on_epoch_begin(1)
    history.on_epoch_end(1, {"loss": 0.25})
    table = pd.read_csv(history.path, float_precision="round_trip")
    assert list(table.columns) == ["epoch", "learning_rate", "seconds", "loss"]
    assert table["loss"].tolist() == [0.1 + 0.2, 0.25]
    assert table["seconds"][1] == pytest.approx(100.0, abs=1.0)
    assert sorted(path.name for path in history.path.parent.iterdir()) == ["history.csv"]

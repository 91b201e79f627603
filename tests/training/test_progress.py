"""The lines that a training logs and draws."""

import io
import logging

import pytest

from keras_skin.training import progress
from keras_skin.training.best_weights import BestWeights
from keras_skin.training.history import EpochHistory
from keras_skin.training.monitor import Monitor
from keras_skin.training.progress import Progress, duration, headline, number

LOGS = {
    "label_auc": 0.9,
    "label_f1_weighted": 0.7,
    "label_loss": 0.6,
    "loss": 0.412,
    "mask_dsc": 0.843,
    "mask_iou": 0.7,
    "val_label_auc": 0.8,
    "val_label_f1_weighted": 0.78,
    "val_label_loss": 0.5,
    "val_loss": 0.39,
    "val_mask_dsc": 0.861,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def make(stream, tmp_path, best_epoch=None):
    history = EpochHistory(tmp_path / "history.csv")
    history.rows = [{"epoch": epoch, "learning_rate": 0.0021, "seconds": 41.0} for epoch in (1, 2, 3)]
    best = BestWeights(tmp_path / "best.weights.h5", Monitor(("val_loss",), False))
    best.best_epoch = best_epoch
    return Progress(50, 388, history, best, stream)


def test_the_line_of_an_epoch(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="keras_skin")
    make(io.StringIO(), tmp_path, best_epoch=3).on_epoch_end(2, LOGS)
    assert caplog.messages == [
        "epoch  3/50  loss 0.412 DSC 0.843 wF1 0.700 | val loss 0.390 DSC 0.861 wF1 0.780  lr 0.0021  41 s  left 32 min  *best"
    ]


def test_no_star_and_nothing_left_at_the_end(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="keras_skin")
    make(io.StringIO(), tmp_path, best_epoch=3).on_epoch_end(49, {"loss": 0.5})
    assert caplog.messages == ["epoch 50/50  loss 0.500  lr 0.0021  41 s"]


def test_a_terminal_line_is_rewritten_and_removed(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="keras_skin")
    stream = Terminal()
    callback = make(stream, tmp_path)
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.0)
    callback.on_epoch_begin(2)
    callback.on_train_batch_end(119, {"loss": 0.4})
    callback.on_test_batch_end(6)
    callback.clear()
    callback.clear()
    lines = stream.getvalue().split("\r\x1b[K")
    assert lines == ["", "epoch  3/50  step 120/388  loss 0.400  0.0 s", "epoch  3/50  validation step 7  0.0 s", ""]
    assert caplog.messages == []


def test_without_a_terminal_a_line_comes_only_now_and_then(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="keras_skin")
    stream = io.StringIO()
    callback = make(stream, tmp_path)
    callback.on_epoch_begin(0)
    for step in range(20):
        callback.on_train_batch_end(step, {"loss": 0.4})
    assert caplog.messages == []
    callback._shown_at -= 61
    callback.on_train_batch_end(20, {"loss": 0.4})
    callback.on_train_batch_end(21, {"loss": 0.4})
    assert caplog.messages == ["epoch  1/50  step 21/388  loss 0.400  0.0 s"]
    assert stream.getvalue() == ""


def test_names_stay_apart_and_unknown_metrics_are_all_shown():
    two_masks = headline({"loss": 1.0, "mask_dsc": 0.5, "mask_aux_1_dsc": 0.25})
    assert two_masks == ("loss 1.000 mask_dsc 0.500 mask_aux_1_dsc 0.250", "")
    assert headline({"loss": 1.0, "label_auc": 0.5, "precision": 0.25})[0] == "loss 1.000 AUC 0.500 precision 0.250"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.96, "10 s"), (41, "41 s"), (119, "119 s"), (120, "2 min"), (1975, "33 min"), (7500, "2 h 05 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_number():
    assert [number(value) for value in (0.0, 0.41234, 12.3456, 1234.5, 0.0001234, float("nan"))] == [
        "0.000",
        "0.412",
        "12.346",
        "1.23e+03",
        "0.000123",
        "nan",
    ]

"""The monitored value."""

import math

import pytest

from keras_skin.registry import UserError
from keras_skin.training.monitor import LAST, Monitor

LOGGED = ["loss", "mask_dsc", "val_loss", "val_mask_dsc", "val_label_auc", "val_error_rate"]


@pytest.mark.parametrize(
    ("names", "mode", "maximise"),
    [
        ("val_loss", "auto", False),
        ("val_error_rate", "auto", False),
        ("val_mask_dsc", "auto", True),
        (["val_mask_dsc", "val_label_auc"], "auto", True),
        ("val_mask_dsc", "min", False),
        (["val_loss", "val_mask_dsc"], "max", True),
    ],
)
def test_direction(names, mode, maximise):
    assert Monitor.create(names, mode, LOGGED).maximise is maximise


def test_several_values_are_averaged():
    monitor = Monitor.create(["val_mask_dsc", "val_label_auc"], "auto", LOGGED)
    assert monitor.value({"val_mask_dsc": 0.5, "val_label_auc": 1.0, "loss": 9.0}) == 0.75
    assert str(monitor) == "highest mean of val_mask_dsc and val_label_auc"


def test_better_is_strictly_better_and_nan_never_is():
    low, high = Monitor(("a",), False), Monitor(("a",), True)
    assert low.improves(5.0, None)
    assert low.improves(0.1, 0.2)
    assert not low.improves(0.2, 0.2)
    assert high.improves(0.3, 0.2)
    assert not high.improves(0.1, 0.2)
    for value in (math.nan, math.inf, -math.inf):
        for best in (None, 0.5):
            assert not low.improves(value, best)
            assert not high.improves(value, best)


def test_the_last_epoch_is_always_better():
    monitor = Monitor.create(LAST, "auto", [])
    assert monitor.is_last
    assert monitor.value({"loss": 1.0}) is None
    assert monitor.improves(None, None)
    assert str(monitor) == "the last one"
    assert not Monitor.create("val_loss", "auto", LOGGED).is_last


@pytest.mark.parametrize(
    ("names", "mode", "words"),
    [
        (
            ["val_mask_dcs", "nothing"],
            "auto",
            ["'val_mask_dcs'", "Did you mean 'val_mask_dsc'?", "'nothing'", "logs: loss, mask_dsc"],
        ),
        ([], "auto", ["There is no value to monitor"]),
        ("loss", "best", ["'best'", "auto, min, max"]),
        (["val_loss", "val_mask_dsc"], "auto", ["some should be low, some high"]),
    ],
)
def test_mistakes(names, mode, words):
    with pytest.raises(UserError) as error:
        Monitor.create(names, mode, LOGGED)
    for word in words:
        assert word in str(error.value)

"""Models by name, and the messages of a mistake."""

import pytest

from keras_skin import models
from keras_skin.registry import UserError


def test_builds_by_name() -> None:
    model = models.create_model("jrl", image_size=(32, 64), classes=3, variant="mtl0", filters=(4, 4, 8))
    assert {key: tensor.shape for key, tensor in model.output.items()} == {"mask": (None, 32, 64, 1), "label": (None, 3)}


def test_unknown_model() -> None:
    with pytest.raises(UserError, match="Did you mean 'unet'"):
        models.create_model("unett")


def test_unknown_argument() -> None:
    with pytest.raises(UserError, match=r"no argument 'variants'. Did you mean 'variant'\?.*image_size, classes, variant"):
        models.create_model("jrl", variants="mtl0")

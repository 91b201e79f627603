"""Exports that are damaged: found when they are opened."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_skin.export.contract import CONTRACT, SERVING_DEFAULT
from keras_skin.predict import main as predict
from keras_skin.registry import UserError
from keras_skin.serve import main as serve
from keras_skin.workflow.prediction import open_exported


@pytest.fixture
def export(tmp_path):
    """A run folder with a SavedModel that has what `open_exported` asks for."""
    return write_export(tmp_path / "run", 1.0)


def write_export(run, number):
    module = tf.Module()
    module.weight = tf.Variable(np.full(1000, number, np.float32))
    module.call = tf.function(
        lambda image_bytes: {"valid": tf.strings.length(image_bytes) > tf.cast(module.weight[0], tf.int32)},
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    version = run / "saved_model" / "1"
    tf.saved_model.save(module, str(version), signatures={SERVING_DEFAULT: module.call})
    (version / "assets").mkdir(exist_ok=True)
    signatures = {SERVING_DEFAULT: {"inputs": {"image_bytes": {"dtype": "string"}}, "outputs": {"valid": {}}}}
    about = {"contract": CONTRACT, "name": "small", "classes": [], "signatures": signatures, "metadata": {}}
    (version / "assets" / "model.json").write_text(json.dumps(about))
    return run


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def about_without(key):
    def damage(path):
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))

    return damage


ABOUT, GRAPH, INDEX = "assets/model.json", "saved_model.pb", "variables/variables.index"
DATA = "variables/variables.data-00000-of-00001"
DAMAGES = {
    "model.json truncated": (ABOUT, truncate),
    "model.json empty": (ABOUT, lambda path: path.write_text("")),
    "model.json a list": (ABOUT, lambda path: path.write_text("[]")),
    "model.json nested": (ABOUT, lambda path: path.write_text("[" * 100_000)),
    "model.json without classes": (ABOUT, about_without("classes")),
    "model.json without signatures": (ABOUT, about_without("signatures")),
    "graph truncated": (GRAPH, truncate),
    "graph empty": (GRAPH, lambda path: path.write_bytes(b"")),
    "graph missing": (GRAPH, os.unlink),
    "variables truncated": (DATA, truncate),
    "variables changed": (DATA, flip),
    "variables missing": (DATA, os.unlink),
    "index truncated": (INDEX, truncate),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_export_gets_a_sentence(export, name):
    file, damage = DAMAGES[name]
    damage(export / "saved_model" / "1" / file)
    with pytest.raises(UserError) as error:
        open_exported(export)
    assert "is damaged" in str(error.value)
    assert str(export / "saved_model" / "1") in str(error.value)
    assert "python -m keras_skin.export RUN --editions float32" in str(error.value)


def test_an_export_that_is_whole_is_opened(export):
    assert open_exported(export)(image_bytes=tf.constant([b"", b"abc"]))["valid"].numpy().tolist() == [False, True]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_export_whose_weights_are_not_finite_is_refused(tmp_path, number):
    with pytest.raises(UserError, match=r"The SavedModel in .*: 1 of 1 arrays hold numbers that are not finite"):
        open_exported(write_export(tmp_path / "run", number))


def test_commands_say_it_without_a_traceback(export, tmp_path, capsys):
    truncate(export / "saved_model" / "1" / GRAPH)
    (tmp_path / "a.png").write_bytes(b"")
    assert predict([str(export), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
    assert serve([str(export), "--port", "0"]) == 2
    message = capsys.readouterr().err
    assert message.count("is damaged") == 2
    assert "Traceback" not in message

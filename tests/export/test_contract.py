"""What later exports may change, and the contract as it was written down."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_skin.export.about import specs
from keras_skin.export.contract import CONTRACT, breaking_changes
from keras_skin.export.endpoints import Endpoints, Segmenter
from keras_skin.export.saved_model import export_model, write_served
from keras_skin.registry import UserError
from tests.export.small_models import CLASSES, SIZE, AgeAndSex, branched_model, joint_model, segmenter_model

WRITTEN_DOWN = Path(__file__).with_name("contract.json")

spec = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["string", "float32"]), "shape": st.lists(st.none() | st.integers(1, 9), max_size=3)}
)
tensors = st.dictionaries(st.sampled_from("abcdef"), spec, min_size=1, max_size=3)
signatures = st.dictionaries(
    st.sampled_from(["serving_default", "predict_images", "explain"]),
    st.fixed_dictionaries({"inputs": tensors, "outputs": tensors}),
    min_size=1,
)
exports = st.fixed_dictionaries(
    {"signatures": signatures, "classes": st.lists(st.text("xyz", min_size=1), min_size=1, unique=True)}
)


@given(exports)
def test_the_same_again_and_more_of_it_break_nothing(export):
    assert breaking_changes(export, export) == []
    more = copy.deepcopy(export)
    more["signatures"]["later"] = next(iter(export["signatures"].values()))
    for signature in more["signatures"].values():
        signature["outputs"] = {**signature["outputs"], "new": {"dtype": "bool", "shape": [None]}}
    assert breaking_changes(export, more) == []


@given(exports, st.data())
def test_whatever_a_client_relies_on_is_missed(export, data):
    less = copy.deepcopy(export)
    signature = data.draw(st.sampled_from(sorted(export["signatures"])))
    kind = data.draw(st.sampled_from(["inputs", "outputs"]))
    name = data.draw(st.sampled_from(sorted(export["signatures"][signature][kind])))
    del less["signatures"][signature][kind][name]
    (gone,) = breaking_changes(export, less)
    assert signature in gone
    assert f"'{name}'" in gone
    assert "is missing" in gone
    if kind == "inputs":
        (new,) = breaking_changes(less, export)
        assert "every input must be sent" in new
    del less["signatures"][signature]
    assert breaking_changes(export, less) == [f"signature '{signature}' is missing"]
    assert breaking_changes(export, {**export, "classes": export["classes"][1:]})


def joint():
    return Endpoints(joint_model(), CLASSES, SIZE, (), None, None)


def chained():
    segmenter = Segmenter(segmenter_model(), (16, 20), ())
    return Endpoints(branched_model(), CLASSES, SIZE, (), AgeAndSex(), segmenter)


@pytest.mark.slow
def test_signatures_are_those_that_were_written_down(tmp_path):
    """If this fails, clients will: raise CONTRACT, tell it in the changelog, and write the new signatures into contract.json."""
    signatures = {"joint": write_served(joint(), tmp_path / "joint"), "chained": write_served(chained(), tmp_path / "chained")}
    assert {"contract": CONTRACT, "signatures": signatures} == json.loads(WRITTEN_DOWN.read_text())


@pytest.mark.slow
def test_a_later_version_that_clients_do_not_understand_is_refused(tmp_path):
    arguments = {"classes": CLASSES, "image_size": SIZE, "name": "joint"}
    first = export_model(joint_model(), tmp_path, **arguments)
    about = first / "assets" / "model.json"
    with pytest.raises(UserError, match=r"holds version 1\. .*output 'mask_png_bytes' is missing.*Export it into another folder"):
        export_model(joint_model(keys=("label",)), tmp_path, **arguments)
    with pytest.raises(UserError, match="the classes are malignant, benign, were benign, malignant"):
        export_model(joint_model(), tmp_path, **{**arguments, "classes": CLASSES[::-1]})
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert export_model(joint_model(), tmp_path, **arguments).name == "2"
    for version in (first, tmp_path / "2"):  # of an earlier contract: that number tells clients
        about = version / "assets" / "model.json"
        about.write_text(json.dumps({**json.loads(about.read_text()), "contract": CONTRACT - 1}))
    assert export_model(joint_model(keys=("label",)), tmp_path, **arguments).name == "3"


def test_specifications_say_shape_and_dtype():
    inputs = dict(next((name, examples) for name, examples, _ in joint().all() if name == "predict_images")[1])
    assert specs(inputs) == {"image": {"shape": [None, *SIZE, 3], "dtype": "float32"}}

"""The printed numbers of a paper stay with the settings that they belong to, and every changed setting is listed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_skin.experiment.changes import changed_settings, flattened, headline
from keras_skin.experiment.loading import load_experiment, shipped_experiments, shipped_folder
from keras_skin.registry import UserError

OTHER_EXPERIMENTS = {
    "model.variant": "mtl1",
    "data.extra_train": [],
    "image.size": [96, 128],
    "losses.mask.weight": 0.7,
    "train.epochs": 1,
    "train.steps_per_epoch": 8,
    "train.optimizer.learning_rate": 0.1,
    "augmentation": {"name": "none"},
    "split.validation": 0.3,
}
SAME_EXPERIMENT = {
    "train.seed": 3,
    "train.precision": "float32",
    "data.train.folder": "elsewhere",
    "data.leak_guard": "exclude",
    "split.protocol": "paper",
    "explain.images": 0,
}


def override(key, value):
    return f"{key}={json.dumps(value)}"


@pytest.mark.parametrize("key", OTHER_EXPERIMENTS)
def test_another_experiment_has_no_published_numbers(key):
    paper = load_experiment("jrl_isic2016", [override(key, OTHER_EXPERIMENTS[key])]).paper
    assert not paper.has_numbers
    assert key in paper.dropped
    assert "(published: " in paper.dropped
    assert paper.citation.startswith("Al-masni")
    assert paper.notes == []


@pytest.mark.parametrize("key", SAME_EXPERIMENT)
def test_settings_that_leave_the_experiment_the_same_keep_them(key):
    experiment = load_experiment("jrl_isic2016", [override(key, SAME_EXPERIMENT[key])])
    assert experiment.paper == load_experiment("jrl_isic2016").paper
    assert list(experiment.changes) == [key]


@pytest.mark.parametrize("name", ["tdbn_ham10000", "tdbn_ham10000_image"])
def test_the_place_of_a_segmenter_is_no_setting(name):
    run = "segmenter.run=/data/runs/deep_unet_isic2018-20260131-101500"
    assert load_experiment(name, [run]).paper.has_numbers
    other = load_experiment(name, ["segmenter.run=runs/unet_isic2018"]).paper
    assert other.has_numbers == (name == "tdbn_ham10000_image")
    if name == "tdbn_ham10000":
        assert other.dropped == "segmenter.run is unet_isic2018 (published: deep_unet_isic2018)"
    else:
        assert load_experiment(name, ["segmenter=null"]).paper.has_numbers


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({*OTHER_EXPERIMENTS, *SAME_EXPERIMENT})), st.booleans(), max_size=6))
def test_exactly_the_overridden_settings_are_listed(keys):
    """An override with the file's own value changes nothing."""
    file = json.loads(load_experiment("jrl_isic2016").to_json())
    values = {**OTHER_EXPERIMENTS, **SAME_EXPERIMENT}
    overrides = [override(key, values[key] if changes else at(file, key)) for key, changes in keys.items()]
    experiment = load_experiment("jrl_isic2016", overrides)
    expected = {key for key, changes in keys.items() if changes}
    listed = {"augmentation" if key.startswith("augmentation.") else key for key in experiment.changes}
    assert listed == expected
    assert experiment.paper.has_numbers == (not expected & set(OTHER_EXPERIMENTS))


def at(values, key):
    for part in key.split("."):
        values = values[part]
    return values


def test_a_child_of_another_model_does_not_inherit_them(tmp_path):
    def write(name, **values):
        (tmp_path / name).write_text(json.dumps({"title": name, **values}))
        return load_experiment(tmp_path / name)

    assert write("same.json", extends="jrl_isic2016").paper.has_numbers
    child = write("other.json", extends="same.json", train={"epochs": 2})
    assert child.paper.dropped == "train.epochs is 2 (published: 50)"
    assert child.changes == {}
    own = {"results": {"test": {"segmentation": {"dsc": "> 0.9"}}}}
    child = write("own.json", extends="same.json", train={"epochs": 2}, paper=own)
    assert child.paper.results == own["results"]
    assert child.paper.dropped == ""
    assert not write("none.json", extends="same.json", paper={"results": {}}).paper.has_numbers


def test_a_changed_experiment_stays_changed_when_it_is_run_again(tmp_path):
    file = tmp_path / "experiment.json"
    file.write_text(load_experiment("jrl_isic2016", ["train.epochs=1"]).to_json())
    again = load_experiment(file)
    assert again.changes == {"train.epochs": "50"}
    assert not again.paper.has_numbers
    assert load_experiment(file, ["train.epochs=2", "train.seed=4"]).changes == {"train.epochs": "50", "train.seed": "0"}
    assert load_experiment(file, ["train.epochs=50"]).changes == {}


def test_no_folder_of_the_machine_is_named():
    overrides = [override("data.train.folder", "/home/me/skin"), override("model.init", "../runs/first")]
    settings = json.loads(load_experiment("jrl_isic2016", overrides).to_json())
    assert changed_settings(settings) == {"data.train.folder": "skin (file: null)", "model.init": "first (file: null)"}
    assert headline(settings).endswith("(changed: data.train.folder=skin, model.init=first)")


def test_the_title_names_changes_and_the_list_is_complete():
    settings = json.loads(load_experiment("jrl_isic2016", ["train.epochs=1", "model.variant=mtl1"]).to_json())
    assert headline(settings, "dry run", "").endswith("PH2 (dry run; changed: model.variant=mtl1, train.epochs=1)")
    assert changed_settings(settings) == {"model.variant": "mtl1 (file: mtl3)", "train.epochs": "1 (file: 50)"}
    overrides = [override(key, value) for key, value in OTHER_EXPERIMENTS.items()]
    settings = json.loads(load_experiment("jrl_isic2016", overrides).to_json())
    assert headline(settings).endswith("more settings)")
    assert {"model.variant", "train.epochs", "image.size"} <= set(changed_settings(settings))
    assert headline(json.loads(load_experiment("jrl_isic2016").to_json())) == load_experiment("jrl_isic2016").title


@pytest.mark.parametrize("name", shipped_experiments())
def test_shipped_experiments_never_inherit_numbers_of_another_experiment(name):
    """A file whose settings are not those of its parent names its own numbers, or says that it has none."""
    experiment = load_experiment(name)
    assert experiment.changes == {}
    assert experiment.paper is None or experiment.paper.dropped == ""


def test_shipped_files_hold_no_key_that_the_program_writes():
    for file in shipped_folder().iterdir():
        if file.name.endswith(".json") and file.name != "schema.json":
            values = json.loads(file.read_text())
            assert "changes" not in values
            assert "dropped" not in (values.get("paper") or {})


@pytest.mark.parametrize("bound", ["0.85", "about 0.8", ">0.85", "> x"])
def test_a_bound_has_a_sign_and_a_number(bound, tmp_path):
    file = tmp_path / "x.json"
    paper = {"results": {"test": {"classification": {"accuracy": bound}}}}
    file.write_text(json.dumps({"extends": "jrl_isic2016", "title": "x", "paper": paper}))
    with pytest.raises(UserError) as error:
        load_experiment(file)
    where = "paper.results.test.classification.accuracy"
    assert str(error.value).splitlines()[1:] == [f"  - {where}: expected a number, or a bound such as '> 0.85'."]


def test_flattened_lists_scalars_by_their_path():
    assert dict(flattened({"title": "t", "train": {"epochs": 2, "schedule": {}}, "data": {"x": [1]}})) == {
        "train.epochs": "2",
        "train.schedule": "{}",
        "data.x": "[1]",
    }

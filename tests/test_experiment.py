"""The experiment files: reading, inheriting, overriding, and the messages of every mistake."""

import contextlib
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_skin.experiment import Experiment, json_schema, load_experiment, shipped_experiments, validate
from keras_skin.registry import UserError

FOLDER = Path(__file__).resolve().parent.parent / "experiments"


@pytest.mark.parametrize("name", shipped_experiments())
def test_shipped_experiment_is_valid_and_resolves_to_itself(name, tmp_path):
    experiment = load_experiment(name)
    resolved = tmp_path / "experiment.json"
    resolved.write_text(experiment.to_json())
    assert load_experiment(resolved).model_dump() == {**experiment.model_dump(), "extends": None}
    load_experiment(name, demo=True)


@pytest.mark.parametrize("name", shipped_experiments())
def test_shipped_experiment_names_its_schema(name):
    assert json.loads((FOLDER / f"{name}.json").read_text())["$schema"] == "schema.json"


def test_a_lite_experiment_shows_no_numbers_of_another_network():
    names = [name for name in shipped_experiments() if name.endswith("_lite")]
    assert len(names) >= 6
    assert [name for name in ("jrl_isic", *names) if load_experiment(name).paper.results] == []


def test_numbers_of_paper_000_that_stand_together_have_the_same_errors():
    """A false positive of one class is an error: the seven specificities make one accuracy, precisions and recalls the other."""
    images = {"MEL": 223, "NV": 1341, "BCC": 103, "AKIEC": 65, "BKL": 220, "DF": 23, "VASC": 28}
    total = sum(images.values())
    paper = load_experiment("dual_task_ham10000").paper
    section = paper.results["test"]["classification"]
    errors = sum(round((1 - section[f"tnr/{name}"]) * (total - count)) for name, count in images.items())
    assert errors == 289
    assert section["accuracy"] == pytest.approx(1 - errors / total, abs=5e-5)
    table = paper.other_results["table 2"]["test"]["classification"]
    right = {name: round(table[f"tpr/{name}"] * count) for name, count in images.items()}
    assert total - sum(right.values()) == 314
    assert table["accuracy"] == pytest.approx(sum(right.values()) / total, abs=5e-5)
    assert sum(round(right[name] / table[f"precision/{name}"]) for name in images) == total
    assert not set(section) & set(table) - {"accuracy"}


def test_schema_file_is_current():
    assert json.loads((FOLDER / "schema.json").read_text()) == json_schema(), "run: python tools/write_schema.py"


def test_bare_name_path_and_file_name_are_the_same():
    assert load_experiment("jrl_ph2") == load_experiment(FOLDER / "jrl_ph2.json") == load_experiment("jrl_ph2.json")


def test_child_is_laid_over_parent():
    parent, child = load_experiment("jrl_isic2016"), load_experiment("jrl_ph2")
    assert child.train == parent.train
    assert child.data.test.name == "ph2"
    assert child.data.external == []
    assert "external/ph2" not in child.paper.results, "published results of the parent's row must not leak into the child's"


def test_component_of_another_name_replaces_its_parents():
    assert load_experiment("unet_isic2016").model.arguments == {}
    assert set(load_experiment("unet_isic2016").losses) == {"mask"}


def test_overrides():
    experiment = load_experiment(
        "jrl_isic2016",
        [
            "train.epochs=2",
            "train.steps_per_epoch=7",
            "model.variant=mtl1",
            "image.size=[64, 96]",
            "data.external.0.folder=ph2_sample",
        ],
    )
    assert (experiment.train.epochs, experiment.train.steps_per_epoch) == (2, 7)
    assert experiment.model.arguments["variant"] == "mtl1"
    assert experiment.image.size == (64, 96)
    assert experiment.data.external[0].folder == "ph2_sample"


def test_demo_overrides_come_before_set():
    assert load_experiment("jrl_ph2", demo=True).image.size == (96, 128)
    assert load_experiment("jrl_ph2", ["image.size=[64,64]"], demo=True).image.size == (64, 64)


def test_every_problem_at_once_with_path_value_and_nearest_key():
    with pytest.raises(UserError) as error:
        load_experiment(
            "jrl_ph2",
            [
                "train.epoch=5",
                "train.batch_size=0",
                "train.precision=bfloat16",
                "model.varient=mtl2",
                "imge.size=[1,2]",
                "split.scheme=ofical",
                "losses.mask.name=dise",
            ],
        )
    message = str(error.value)
    assert "7 problems" in message
    for part in (
        "train.epoch = 5: unknown key. Did you mean 'epochs'?",
        "train.batch_size = 0",
        "train.precision",
        "'variant'",
        "imge",
        "Did you mean 'image'?",
        "split.scheme",
        "Did you mean 'dice'?",
    ):
        assert part in message, f"{part!r} is not in:\n{message}"


def test_wrong_choice_of_a_component_names_the_choices():
    with pytest.raises(UserError, match=r"(?s)mtl9.*mtl0, mtl1, mtl2, mtl3"):
        load_experiment("jrl_ph2", ["model.variant=mtl9"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"title": "x", }', "not valid JSON"),
        ("[1, 2]", "expected a JSON object, got a list"),
        ('{"title": "a", "title": "b"}', "repeated key in one object: title"),
        ('{"extends": 3}', "'extends' must be a file name"),
        ('{"extends": "nowhere.json"}', "no experiment file 'nowhere.json'"),
        ('{"extends": "me.json"}', "forms a circle"),
    ],
)
def test_broken_files(tmp_path, text, expected):
    path = tmp_path / "me.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_experiment(path)
    assert expected in str(error.value)


def test_unknown_experiment_suggests_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'jrl_ph2'"):
        load_experiment("jrl_ph")


@pytest.mark.parametrize("override", ["train.epochs", "=3", "data.external.7.name=ph2", "title.x=3"])
def test_bad_override_is_named(override):
    with pytest.raises(UserError, match="--set"):
        load_experiment("jrl_isic2016", [override])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(Experiment.model_fields)),
)
def test_any_json_value_in_any_field_is_accepted_or_a_user_error(value, field):
    values = load_experiment("jrl_ph2").model_dump(mode="json", by_alias=True)
    values[Experiment.model_fields[field].alias or field] = value
    with contextlib.suppress(UserError):  # anything else fails the test
        assert isinstance(validate(values, "file.json"), Experiment)


def test_a_backbone_of_random_weights_is_not_frozen():
    frozen = 'train.backbone={"frozen_epochs": 2}'
    with pytest.raises(UserError, match=r"frozen_epochs' freezes a backbone with random weights: set 'model\.weights'"):
        load_experiment("msfa_ham10000", ["model.weights=null", frozen])
    assert load_experiment("msfa_ham10000", [frozen]).train.backbone.frozen_epochs == 2


def test_a_prior_needs_classes_whose_shares_are_known():
    prior = "predict.prior=training"
    assert load_experiment("jrl_ph2", [prior]).predict.prior == "training"
    with pytest.raises(UserError, match=r"'predict\.prior' shifts the logits of the classes, but no class is trained"):
        load_experiment("unet_isic2016", [prior])
    with pytest.raises(UserError, match=r"balancing 'curriculum' depend on the losses: remove one of them"):
        load_experiment("jrl_ph2", [prior, "balancing.name=curriculum"])


def test_a_schedule_takes_its_own_keys():
    cosine = 'train.schedule={"name": "cosine", "warmup_epochs": 2}'
    assert load_experiment("jrl_ph2", [cosine]).train.schedule.warmup_epochs == 2
    assert load_experiment("jrl_ph2", ['train.schedule={"name": "cosine", "factor": 0.01}']).train.schedule.factor == 0.01
    plateau = 'train.schedule={"name": "plateau", "factor": 0.1, "patience": 5}'
    assert load_experiment("jrl_ph2", [plateau]).train.schedule.patience == 5
    with pytest.raises(UserError, match=r"schedule 'plateau' takes factor and patience, got: every, factor"):
        load_experiment("jrl_ph2", ['train.schedule={"name": "plateau", "factor": 0.1, "every": 5}'])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('train.schedule={"name": "exponental", "factor": 0.1}', "Did you mean 'exponential'?"),
        ('train.schedule={"name": "exponential"}', "takes factor, got: none"),
        ('train.schedule={"name": "exponential", "factor": 1.5}', "train.schedule.factor = 1.5"),
        ('train.schedule={"name": "step", "factor": 0.5, "every": 0.5}', "train.schedule.every = 0.5"),
        ('train.schedule={"name": "plateau", "factor": 0, "patience": 1}', "train.schedule.factor = 0"),
        ('train.schedule={"name": "plateau", "factor": 0.1, "patience": 0}', "train.schedule.patience = 0"),
        ('train.schedule={"name": "cosine", "every": 3}', "schedule 'cosine' takes warmup_epochs and factor, got: every"),
        (
            'train.schedule={"name": "plateau", "factor": 0.1, "patience": 1, "warmup_epochs": 1}',
            "takes factor and patience, got",
        ),
        ('train.schedule={"name": "cosine", "warmup_epochs": -1}', "train.schedule.warmup_epochs = -1"),
        ("train.ema=1", "train.ema = 1"),
        ('predict.prior={"benign": 0}', "predict.prior"),
        ("predict.tta=rotations", 'predict.tta = "rotations"'),
        ('train.schedule={"name": "step", "gamma": 1}', "train.schedule.gamma = 1"),
        ("train.optimizer.name=adm", "Did you mean 'adam'?"),
        ("train.optimizer.learning_rate=-1.0", "train.optimizer.learning_rate = -1.0"),
        ("train.optimizer.beta1=0.9", "train.optimizer.beta1 = 0.9"),
        ('train.backbone={"rate": 0}', "train.backbone.rate = 0"),
        ('train.backbone={"frozen_epochs": -1}', "train.backbone.frozen_epochs = -1"),
    ],
)
def test_values_that_no_training_can_use_are_refused(override, message):
    with pytest.raises(UserError) as error:
        load_experiment("msfa_ham10000", [override])
    assert message in str(error.value)


def test_an_optimizer_takes_its_own_keys():
    with pytest.raises(UserError, match="optimizer 'adam' takes no momentum; sgd and rmsprop do"):
        load_experiment("jrl_ph2", ["train.optimizer.momentum=0.9"])
    with pytest.raises(UserError, match=r"l2 \(coupled\) and weight_decay \(decoupled\) exclude each other"):
        load_experiment("jrl_ph2", ["train.optimizer.l2=0.1", "train.optimizer.weight_decay=0.1"])


def test_the_caches_of_before_are_ignored_with_a_sentence(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("keras_skin"), "propagate", True)
    experiment = load_experiment("jrl_ph2", ["train.cache=disk", "train.epochs=3"])
    assert experiment.train.epochs == 3
    assert "train.cache is ignored; every run uses the image store instead" in caplog.text


def test_only_experiments_with_added_melanomas_are_called_mtl4():
    """Without ISIC 2017 they are called MTL3; the others have no added melanomas, or all of ISIC 2017."""
    called = {name: [item.without for item in load_experiment(name).data.extra_train] for name in shipped_experiments()}
    with_melanomas = {name for name, texts in called.items() if texts == ["MTL3, not MTL4"]}
    assert with_melanomas == {"jrl_isic2016", "jrl_isic2016_paper_protocol", "jrl_ph2"}
    assert {name for name, texts in called.items() if texts == [None]} >= {"jrl_isic", "jrl_isic_lite"}
    assert [name for name in called if "MTL4" in load_experiment(name).title and name not in with_melanomas] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('train.monitor=["last", "val_loss"]', "'last' keeps the last epoch whatever it logs: name it alone"),
        ('train.early_stopping={"patience": 3}', "monitor is 'last', but early_stopping need a logged value"),
        ('train.schedule={"name": "plateau", "factor": 0.5, "patience": 2}', "schedule 'plateau' need a logged value"),
    ],
)
def test_the_last_epoch_needs_no_value_and_others_do(override, message):
    with pytest.raises(UserError, match=message):
        load_experiment("jrl_isic2016_paper_protocol", [override])


JRL_ROWS = [
    "jrl_isic2016",
    "jrl_isic2016_paper_protocol",
    *(f"jrl_isic2016_mtl{number}" for number in range(4)),
    "resnet50_isic2016",
    "jrl_ph2",
]
PH2, ISIC_2016 = (160, 40), (304, 75)


@pytest.mark.parametrize("name", JRL_ROWS)
def test_the_printed_rates_of_paper_001_are_those_of_whole_images(name):
    """TPR and TNR, of benign and malignant images that the test sets have, give the printed weighted TPR, which is accuracy."""
    experiment = load_experiment(name)
    for split, tasks in experiment.paper.results.items():
        benign, malignant = PH2 if "ph2" in (split.removeprefix("external/"), name.removeprefix("jrl_")) else ISIC_2016
        printed = tasks["classification"]
        right = (round(printed["tnr"] * benign), round(printed["tpr"] * malignant))
        assert (right[0] / benign, right[1] / malignant) == pytest.approx((printed["tnr"], printed["tpr"]), abs=1e-4)
        assert sum(right) / (benign + malignant) == pytest.approx(printed["tpr_weighted"], abs=1e-4)

"""A training that starts from the weights of a preset or of a finished run."""

import numpy as np
import pytest

from keras_skin.registry import UserError
from keras_skin.run import main
from keras_skin.run_folder import RunFolder
from keras_skin.workflow.initial import start_from
from keras_skin.workflow.opened_run import build_model, load_run
from keras_skin.workflow.segmenter import fitted_images
from tests.tiny_run import TINY, arguments


def build(run, classes=2, **changes):
    experiment = run.experiment
    model = experiment.model.model_copy(update=changes)
    return build_model(experiment.model_copy(update={"model": model}), classes, run.model_arguments)


@pytest.mark.parametrize("kind", ["run", "preset"])
def test_all_weights_of_the_same_model_are_copied(tiny_run, preset, kind):
    source = {"run": tiny_run, "preset": preset}[kind]
    run = load_run(source)
    model = build(run)
    record = start_from(model, str(source))
    assert record == {
        "name": source.name,
        "weights_sha256": RunFolder(source).weights_sha256,
        "copied": len(model.weights),
        "new": [],
    }
    for own, initial in zip(model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(own, initial)


def test_a_layer_for_other_classes_starts_anew(tiny_run, preset):
    run = load_run(tiny_run)
    model = build(run, classes=5)
    record = start_from(model, str(preset))
    assert record["new"] == ["label/kernel", "label/bias"]
    assert record["copied"] == len(model.weights) - 2
    own, initial = ({variable.path: variable for variable in item.weights} for item in (model, run.model))
    np.testing.assert_allclose(own["decoder_1_norm/gamma"], initial["decoder_1_norm/gamma"])


def test_another_network_is_refused(tiny_run, preset):
    model = build_model(RunFolder(tiny_run).experiment.model_copy(update={"image": _image(64)}), 2)
    assert start_from(model, str(preset))["new"] == []  # the size of the image is in no weight
    experiment = RunFolder(tiny_run).experiment
    other = experiment.model.model_copy(update={"filters": [3, 5, 7, 9, 11, 13]})
    other.model_extra.update(filters=[3, 5, 7, 9, 11, 13])
    with pytest.raises(UserError, match=r"holds another network: its weights fit \d+% .*expected at least 50%"):
        start_from(build_model(experiment.model_copy(update={"model": other}), 2), str(preset))
    with pytest.raises(
        UserError, match=r"model\.init: There is neither a folder nor a preset 'jrl_isic_lit'\. Did you mean 'jrl_isic_lite'"
    ):
        start_from(model, "jrl_isic_lit")


def _image(side):
    from keras_skin.experiment.fields import ImageSettings

    return ImageSettings(size=(side, side))


def test_the_initial_model_s_images_are_not_measured_and_are_handed_on(preset, tmp_path, monkeypatch, capsys):
    """A demo draws its images; here they count as real, as the preset's were drawn from the same seed. With another split some of
    those that the preset was trained on would validate."""
    monkeypatch.setattr(RunFolder, "synthetic", False)
    overrides = [*TINY, f"model.init={preset}", "explain.images=0", "explain.measured=0", "export.enabled=false", "split.seed=1"]
    assert main(arguments("jrl_ph2", "--dry-run", "--out", str(tmp_path), overrides=[*overrides, "data.leak_guard=error"])) == 2
    assert "Leak: The model of model.init was fitted on images, patients or lesions" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_names_the_weights_that_it_started_from(preset, tmp_path, monkeypatch):
    overrides = [*TINY, f"model.init={preset}", "train.epochs=1", "explain.images=0", "explain.measured=0"]
    assert main(arguments("jrl_ph2", "--dry-run", "--out", str(tmp_path), overrides=overrides)) == 0
    (path,) = tmp_path.iterdir()
    run = RunFolder(path)
    assert run.record["init"]["name"] == "tiny"
    assert "Initial weights" in (path / "report.html").read_text()
    own = run.splits["split"].isin(["train", "validation"]).sum()
    assert len(fitted_images(run)) == own  # a demo
    monkeypatch.setattr(RunFolder, "synthetic", False)
    assert len(fitted_images(run)) == own + len(fitted_images(RunFolder(preset)))

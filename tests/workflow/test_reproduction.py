"""The runs of a table: which are started, resumed, skipped, repeated, and what the page and the CSV show. No training."""

import csv
import json
import shutil

import pytest

from keras_skin import workflow
from keras_skin.evaluation.report import TASKS
from keras_skin.experiment.tables import load_table
from keras_skin.registry import UserError
from keras_skin.run_folder import RunFolder
from keras_skin.training.fit import NonFiniteLoss
from keras_skin.workflow import reproduction
from keras_skin.workflow.reproduction import planned_runs, reproduce
from tests.evaluation.run_folders import images, write_run

LABEL = "MTL0"


def table(tmp_path, rows=None, **more):
    values = {
        "title": "Ladder",
        "paper": "Somebody, 2026",
        "metrics": {"segmentation": ["dsc"], "classification": ["f1_weighted"]},
        "rows": rows
        or [
            {"label": LABEL, "experiment": "jrl_isic2016_mtl0", "seeds": 2},
            {"label": "MTL3", "experiment": "jrl_isic2016_mtl3", "budget": {"epochs": 5}},
        ],
        **more,
    }
    path = tmp_path / "table.json"
    path.write_text(json.dumps(values))
    return load_table(path, TASKS)


class Workflow:
    """Stands for `workflow.start` and `workflow.resume`: a run's folder is written without training."""

    def __init__(self, monkeypatch):
        self.started, self.resumed, self.errors = [], [], {}
        monkeypatch.setattr(workflow, "start", self.start)
        monkeypatch.setattr(workflow, "resume", self.resume)

    def start(self, experiment, name, out, data_dir=None):
        self.started.append(name)
        return self.write(experiment, name, out)

    def resume(self, path, data_dir=None):
        name = path.name.rsplit("-", 2)[0]
        self.resumed.append(name)
        experiment = RunFolder(path).experiment
        shutil.rmtree(path)
        return self.write(experiment, name, path.parent)

    def write(self, experiment, name, out):
        error = self.errors.pop(name, None)
        if isinstance(error, UserError):
            raise error
        path = RunFolder.create(out, name).path
        path.rmdir()
        count = 60 if "image-level" in name else 40
        split = "validation" if experiment.split.validation == 0.2 and experiment.split.test == 0 else "test"
        classes = ("BCC", "MEL", "NV") if "ham" in experiment.data.train.name else ("benign", "malignant")
        listed = images(count, classes).assign(split=split)
        tasks = ("mask", "label") if "mask" in experiment.losses else ("label",)
        write_run(path, listed, classes, finished=error is None, seed=experiment.train.seed, tasks=tasks)
        (path / "experiment.json").write_text(experiment.to_json())
        listed.iloc[:0].assign(kind="").to_csv(path / "excluded.csv", index=False)
        if error is not None:
            raise error
        return path


@pytest.fixture
def runs(monkeypatch):
    return Workflow(monkeypatch)


def numbers(out):
    with (out / "table.csv").open() as stream:
        return {(line["row"], line["metric"]): line for line in csv.DictReader(stream)}


def test_every_run_of_every_row_is_started_once(tmp_path, runs):
    assert reproduce(table(tmp_path), tmp_path / "out", None)
    assert runs.started == ["mtl0-seed0", "mtl0-seed1", "mtl3-seed0"]
    assert reproduce(table(tmp_path), tmp_path / "out", None)
    assert len(runs.started) == 3
    lines = numbers(tmp_path / "out")
    first, last = lines[LABEL, "dsc"], lines["MTL3", "f1_weighted"]
    assert (first["published"], first["seeds"], first["n"]) == ("0.9003", "2", "40")
    assert float(first["difference"]) == pytest.approx(float(first["measured"]) - 0.9003)
    values = [float(value) for value in first["seed_values"].split()]
    assert float(first["measured"]) == pytest.approx(sum(values) / 2, abs=1e-6)
    assert first["training"] == "50 epochs, as in the paper's experiment"
    assert last["training"] == "5 epochs instead of 50"
    assert "5 epochs instead of 50" in (tmp_path / "out" / "table.html").read_text()


def test_seeds_can_be_changed(tmp_path, runs):
    assert [run.name for run in planned_runs(table(tmp_path), 1)] == ["mtl0-seed0", "mtl3-seed0"]
    reproduce(table(tmp_path), tmp_path / "out", None, seeds=1)
    reproduce(table(tmp_path), tmp_path / "out", None)
    assert runs.started == ["mtl0-seed0", "mtl3-seed0", "mtl0-seed1"]


@pytest.mark.parametrize("error", [UserError("no images"), NonFiniteLoss("loss is nan"), MemoryError("too big")])
def test_a_failed_run_keeps_its_reason_and_the_others_run(tmp_path, runs, error):
    runs.errors["mtl0-seed1"] = error
    out = tmp_path / "out"
    assert not reproduce(table(tmp_path), out, None)
    assert runs.started == ["mtl0-seed0", "mtl0-seed1", "mtl3-seed0"]
    assert str(error) in json.loads((out / "failures.json").read_text())["mtl0-seed1"]
    assert str(error) in numbers(out)[LABEL, "dsc"]["missing"]
    assert numbers(out)[LABEL, "dsc"]["seeds"] == "1"
    assert str(error) in (out / "table.html").read_text()
    assert reproduce(table(tmp_path), out, None)
    assert json.loads((out / "failures.json").read_text()) == {}
    assert runs.started.count("mtl0-seed1") + runs.resumed.count("mtl0-seed1") == 2
    assert numbers(out)[LABEL, "dsc"]["seeds"] == "2"


def test_an_interrupted_run_is_resumed_and_the_page_is_written(tmp_path, runs):
    runs.errors["mtl0-seed1"] = workflow.RunInterrupted("saved", 130)
    out = tmp_path / "out"
    with pytest.raises(workflow.RunInterrupted):
        reproduce(table(tmp_path), out, None)
    assert numbers(out)[LABEL, "dsc"]["missing"] == "mtl0-seed1: interrupted"
    assert numbers(out)["MTL3", "dsc"]["missing"] == "mtl3-seed0: not started yet"
    assert reproduce(table(tmp_path), out, None)
    assert runs.resumed == ["mtl0-seed1"]
    assert [path.name.rsplit("-", 2)[0] for path in sorted(out.glob("*-seed*"))] == ["mtl0-seed0", "mtl0-seed1", "mtl3-seed0"]


def test_a_row_with_other_settings_is_run_anew_and_a_new_title_is_not(tmp_path, runs):
    out = tmp_path / "out"
    rows = [{"label": LABEL, "experiment": "jrl_isic2016_mtl0"}]
    reproduce(table(tmp_path, rows), out, None)
    reproduce(table(tmp_path, [{**rows[0], "set": {"title": "Another title"}}]), out, None)
    assert runs.started == ["mtl0-seed0"]
    reproduce(table(tmp_path, [{**rows[0], "set": {"train.batch_size": 4}}]), out, None)
    assert runs.started == ["mtl0-seed0", "mtl0-seed0"]
    assert "other settings: train.batch_size" in numbers(out)[LABEL, "dsc"]["departures"]
    assert numbers(out)[LABEL, "dsc"]["overrides"] == "train.batch_size=4"


def test_the_price_of_the_leak_stands_beside_the_leak_free_number(tmp_path, runs):
    rows = [
        {
            "label": "Focal",
            "experiment": "msfa_ham10000",
            "paper_protocol": {"experiment": "msfa_ham10000_paper_protocol", "split": "validation"},
        }
    ]
    out = tmp_path / "out"
    assert reproduce(table(tmp_path, rows, metrics={"classification": ["accuracy"]}), out, None, seeds=2)
    assert runs.started == ["focal-seed0", "focal-seed1", "focal-image-level-seed0", "focal-image-level-seed1"]
    line = numbers(out)["Focal", "accuracy"]
    assert (line["n"], line["image_level_n"]) == ("40", "60")
    assert float(line["leak_price"]) == pytest.approx(float(line["image_level"]) - float(line["measured"]))
    assert float(line["leak_price_ci95_low"]) < float(line["leak_price"]) < float(line["leak_price_ci95_high"])
    assert float(line["image_level_difference"]) == pytest.approx(float(line["image_level"]) - 0.788)
    page = (out / "table.html").read_text()
    assert "price of the leak" in page
    assert "split by patient or lesion, the paper&#39;s image by image" in page


def test_claims_are_judged_from_the_numbers(tmp_path, runs):
    claims = [
        {"text": "MTL3 classifies better.", "task": "classification", "metric": "f1_weighted", "better": "MTL3", "than": LABEL}
    ]
    reproduce(table(tmp_path, claims=claims), tmp_path / "out", None)
    page = (tmp_path / "out" / "table.html").read_text()
    assert "MTL3 classifies better. F1, weighted of MTL3 minus MTL0: " in page


def test_missing_images_are_a_departure(tmp_path, runs):
    out = tmp_path / "out"
    reproduce(table(tmp_path), out, None)
    run = next(out.glob("mtl3-seed0-*"))
    rows = "image_id,dataset,file,reason,split,kind\n" + "".join(
        f"ISIC_{number},isic2016,table.csv,a row without an image,train,missing image\n" for number in range(1200)
    )
    (run / "excluded.csv").write_text(rows)
    reproduction.write_table(table(tmp_path), out)
    assert "1,200 images of isic2016 are missing" in numbers(out)["MTL3", "dsc"]["departures"]

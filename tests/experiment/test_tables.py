"""Tables of papers: every row resolves, and every mistake of a file is listed at once."""

import json
from pathlib import Path

import pytest

from keras_skin.evaluation.report import TASKS, published_results
from keras_skin.experiment import load_experiment
from keras_skin.experiment.loading import shipped_folder
from keras_skin.experiment.tables import load_table, shipped_tables, table_schema, table_titles
from keras_skin.registry import UserError

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "tables"


def table(**changes):
    values = {
        "title": "A ladder",
        "paper": "Somebody, 2026",
        "metrics": {"segmentation": ["dsc"], "classification": ["f1_weighted", "tpr/malignant"]},
        "rows": [
            {"label": "MTL0", "experiment": "jrl_isic2016_mtl0", "seeds": 2, "budget": {"epochs": 3}},
            {"label": "MTL3", "experiment": "jrl_isic2016_mtl0", "set": {"model.variant": "mtl3"}},
        ],
        "claims": [{"text": "MTL3 wins.", "task": "classification", "metric": "f1_weighted", "better": "MTL3", "than": "MTL0"}],
    }
    return {**values, **changes}


def write(path, **changes):
    path.write_text(json.dumps(table(**changes)))
    return path


@pytest.mark.parametrize("name", shipped_tables())
def test_every_row_of_a_shipped_table_is_a_valid_experiment(name):
    for row in load_table(name, TASKS).rows:
        assert row.experiment_of(0).model.name
        if row.paper_protocol:
            assert row.experiment_of(0, paper_protocol=True).split.protocol == "paper"


def test_every_table_of_printed_rows_holds_printed_numbers():
    for name in shipped_tables():
        papers = [row.paper_experiment.paper for row in load_table(name).rows]
        assert any(paper.results for paper in papers), name


def test_schema_file_is_current_and_every_table_names_it():
    assert json.loads((FOLDER / "schema.json").read_text()) == table_schema(), "run: python tools/write_schema.py"
    for name in shipped_tables():
        assert json.loads((FOLDER / f"{name}.json").read_text())["$schema"] == "schema.json"


def test_titles_are_listed_without_reading_the_experiments():
    titles = table_titles()
    assert list(titles) == shipped_tables()
    assert all(titles.values())
    assert shipped_folder().joinpath("tables").is_dir()


def test_a_row_has_its_overrides_its_budget_and_its_seed(tmp_path):
    first, second = load_table(write(tmp_path / "table.json"), TASKS).rows
    assert [first.experiment_of(seed).train.seed for seed in range(first.seeds)] == [0, 1]
    assert first.experiment_of(0).train.epochs == 3
    assert second.experiment_of(0).train.epochs == load_experiment("jrl_isic2016").train.epochs == 50
    assert second.experiment_of(0).model.arguments == {"variant": "mtl3"}
    assert second.paper_experiment.paper.row == "table 3, MTL0"


def test_the_protocol_is_laid_over_the_row(tmp_path):
    rows = [
        {
            "label": "Joint",
            "experiment": "dual_task_ham10000",
            "set": {"model.classifier": "shared"},
            "paper_protocol": {"set": {"split.protocol": "paper"}},
        }
    ]
    (row,) = load_table(write(tmp_path / "table.json", rows=rows, claims=[])).rows
    repeated = row.experiment_of(4, paper_protocol=True)
    assert (repeated.split.protocol, repeated.train.seed, row.experiment_of(4).split.protocol) == ("paper", 4, "grouped")
    assert repeated.model == row.experiment_of(0).model


def test_the_overrides_of_a_table_hold_for_all_rows_and_a_row_has_the_last_word(tmp_path):
    rows = [
        {"label": "A", "experiment": "jrl_isic2016", "set": {"train.epochs": 2}},
        {"label": "B", "experiment": "jrl_isic2016_mtl0"},
    ]
    overrides = {"image.size": [96, 128], "train.epochs": 7}
    table = load_table(write(tmp_path / "table.json", set=overrides, rows=rows, claims=[]), TASKS)
    first, second = (row.experiment_of(0) for row in table.rows)
    assert [tuple(item.image.size) for item in (first, second)] == [(96, 128)] * 2
    assert (first.train.epochs, second.train.epochs) == (2, 7)
    assert table.rows[0].paper_experiment.train.epochs == 50
    path = write(tmp_path / "table.json", set={"train.epochz": 7}, rows=rows, claims=[])
    with pytest.raises(UserError, match=r"rows\.1: train\.epochz = 7: unknown key\. Did you mean 'epochs'"):
        load_table(path, TASKS)


def test_every_mistake_at_once_with_the_nearest_name(tmp_path):
    rows = [
        {"label": "A", "experiment": "jrl_isic2061"},
        {"label": "B", "experiment": "jrl_isic2016", "set": {"train.epochz": 3}},
        {"label": "C", "experiment": "jrl_isic2016", "sedes": 2},
        {"label": "D", "experiment": "jrl_isic2016", "budget": {}},
        {"label": "E", "experiment": "jrl_isic2016", "paper_protocol": {}},
    ]
    claims = [{"text": "x", "task": "segmentation", "metric": "dsk", "better": "AA", "than": "B", "split": "tset"}]
    path = write(tmp_path / "table.json", metrics={"segmentation": ["dcs"]}, rows=rows, claims=claims, rowz=[])
    with pytest.raises(UserError) as error:
        load_table(path, TASKS)
    message = str(error.value)
    for expected in (
        "8 problems in the table",
        "metrics: there is no metric 'dcs' of segmentation. Did you mean 'dsc'?",
        "rows.0: There is no experiment file 'jrl_isic2061'. Did you mean 'jrl_isic2016'?",
        "rows.1: train.epochz = 3: unknown key. Did you mean 'epochs'?",
        "rows.2.sedes = 2: unknown key. Did you mean 'seeds'?",
        'rows.3.budget: set "epochs"',
        "rows.4: paper_protocol: split.protocol of its experiment is 'grouped', expected 'paper'",
        "there is no row 'AA'. Did you mean 'A'?",
        "there is no metric 'dsk' of segmentation",
        "the split 'tset' is not among the table's: test",
        "rowz = []: unknown key. Did you mean 'rows'?",
    ):
        assert expected in message, message


def test_labels_must_differ_in_the_names_of_their_folders(tmp_path):
    rows = [{"label": label, "experiment": "jrl_isic2016"} for label in ("U-Net", "u net", "U-Net++")]
    with pytest.raises(UserError, match="labels must differ in more than punctuation: U-Net, u net"):
        load_table(write(tmp_path / "table.json", rows=rows, claims=[]))


def test_an_unknown_table_suggests_the_nearest():
    with pytest.raises(UserError, match=r"no table 'jlr'\. Did you mean 'jrl'\?\nShipped tables: deep_unet, "):
        load_table("jlr")


# The matrix of a table


def matrix(**changes):
    values = {
        "experiment": "dualrefnet_pad_ufes_20",
        "row": "table 3a",
        "task": "classification",
        "metrics": ["accuracy", "auc"],
        "columns": {"VGG13": {}, "ResNet50": {"model.backbone": "resnet50"}},
        "methods": {
            "AuxNet": {
                "set": {"model.gamma": 0.0},
                "source": "Somebody, 2024",
                "cells": {"VGG13": {"experiment": "dualrefnet_pad_ufes_20_auxnet"}, "ResNet50": [0.848, 0.967]},
            },
            "Proposed": {"cells": {"ResNet50": [0.843, 0.995]}},
        },
    }
    return {**values, **changes}


def matrix_table(path, **changes):
    claim = {"text": "x", "task": "classification", "metric": "auc", "better": "Proposed, ResNet50", "than": "AuxNet, ResNet50"}
    return write(path, **{"rows": [], "matrix": matrix(), "claims": [claim], **changes})


def test_a_matrix_gives_a_row_for_every_cell(tmp_path):
    table = load_table(matrix_table(tmp_path / "table.json"), TASKS)
    assert [row.label for row in table.rows] == ["AuxNet, VGG13", "AuxNet, ResNet50", "Proposed, ResNet50"]
    file, cited, own = table.rows
    assert file.experiment_of(0) == load_experiment("dualrefnet_pad_ufes_20_auxnet")
    experiment = cited.experiment_of(2)
    assert experiment.title == "AuxNet, ResNet50: DualRefNet on PAD-UFES-20"
    assert (experiment.model.arguments["backbone"], experiment.model.arguments["gamma"]) == ("resnet50", 0.0)
    assert (experiment.train.seed, experiment.changes, experiment.paper.results) == (2, {}, {})
    paper = experiment.paper.model_dump()
    assert (paper["row"], paper["cited"][0]["source"]) == ("table 3a, AuxNet, ResNet50", "Somebody, 2024")
    assert published_results(paper)["test"]["classification"] == {"accuracy": "0.8480 (cited)", "auc": "0.9670 (cited)"}
    paper = own.experiment_of(0).paper
    assert paper.results == {"test": {"classification": {"accuracy": 0.843, "auc": 0.995}}}
    assert paper.cited == []


def test_a_cell_that_is_shortened_has_no_printed_numbers_and_lists_what_was_changed(tmp_path):
    table = load_table(matrix_table(tmp_path / "table.json", set={"train.epochs": 2}), TASKS)
    experiment = table.row("Proposed, ResNet50").experiment_of(0)
    assert experiment.changes == {"train.epochs": "70"}
    assert experiment.paper.dropped == "train.epochs is 2 (published: 70)"
    assert not experiment.paper.has_numbers
    printed = table.row("Proposed, ResNet50").paper_experiment
    assert printed.train.epochs == 70
    assert printed.paper.has_numbers


def test_the_mistakes_of_a_matrix(tmp_path):
    methods = {"A": {"cells": {"VGG31": [0.1, 0.2], "ResNet50": [0.1]}}}
    with pytest.raises(UserError) as error:
        load_table(matrix_table(tmp_path / "table.json", matrix=matrix(methods=methods), claims=[]), TASKS)
    assert "matrix: A: there is no column 'VGG31'. Did you mean 'VGG13'? Columns: VGG13, ResNet50" in str(error.value)
    assert "A, ResNet50: 1 numbers, expected 2: accuracy, auc" in str(error.value)
    with pytest.raises(UserError, match="rows: a table needs rows or a matrix"):
        load_table(write(tmp_path / "table.json", rows=[], claims=[]))


@pytest.mark.parametrize(("name", "cells"), [("dualrefnet_pad_ufes_20", 35), ("dualrefnet_isic2019", 25)])
def test_every_cell_of_table_3_has_its_own_experiment_and_three_printed_numbers(name, cells):
    table = load_table(name, TASKS)
    experiments = [table.row(f"{method}, {column}").experiment_of(0) for method, column in _cells(table)]
    assert len(experiments) == cells
    settings = [json.loads(experiment.to_json()) for experiment in experiments]
    distinct = {json.dumps({key: values[key] for key in ("model", "metadata", "losses")}) for values in settings}
    assert len(distinct) == cells
    for experiment, (method, _) in zip(experiments, _cells(table), strict=True):
        numbers = published_results(experiment.paper.model_dump())["test"]["classification"]
        assert {"accuracy", "balanced_accuracy", "auc"} <= set(numbers)
        assert all(isinstance(value, str) == (method != "Proposed") for value in numbers.values())


@pytest.mark.parametrize("name", ["dualrefnet_pad_ufes_20", "dualrefnet_isic2019"])
def test_the_files_of_cells_have_the_settings_of_their_method_and_column(name):
    table = load_table(name, TASKS)
    for method, column in _cells(table):
        overrides = {**table.matrix.methods[method].overrides, **table.matrix.columns[column]}
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        expected, row = load_experiment(table.matrix.experiment, texts), table.row(f"{method}, {column}").experiment_of(0)
        for block in ("data", "metadata", "model", "losses", "train", "balancing", "split", "image"):
            left, right = getattr(row, block), getattr(expected, block)
            if block == "losses":
                left, right = ({key: loss for key, loss in losses.items() if loss} for losses in (left, right))
            assert left == right, (method, column, block)


def _cells(table):
    return [(name, column) for name, method in table.matrix.methods.items() for column in method.cells]

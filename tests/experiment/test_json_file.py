"""Experiment files that nobody meant: each is refused in one sentence, quickly."""

import time

import pytest

from keras_skin.experiment import load_experiment
from keras_skin.experiment.json_file import DEEPEST, MOST_VALUES, check_values, read_json
from keras_skin.registry import UserError
from keras_skin.run import main


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def keys(count: int) -> str:
    return ",".join(f'"k{number}": {number}' for number in range(count))


NESTED_OBJECTS = '{"a":' * 5000 + "1" + "}" * 5000
DATA_SETS = ", ".join(['{"name": "ph2"}'] * 4000)
FILES = {
    "demo is a text": ('"demo": "abc"', 'demo = "abc": expected an object'),
    "demo is a list": ('"demo": [["train.epochs", 1]]', "demo = "),
    "nested": (f'"title": {nested(5000)}', f"nested deeper than {DEEPEST} levels"),
    "nested less": (f'"title": {nested(100)}', "title.0.0"),
    "nested objects": (f'"model": {NESTED_OBJECTS}', f"nested deeper than {DEEPEST} levels"),
    "5000 digits": (f'"train": {{"epochs": {"1" * 5000}}}', "train.epochs: not a number that can be used"),
    "-5000 digits": (f'"model": {{"name": "jrl", "filters": [-{"1" * 5000}]}}', "model.filters.0: not a number"),
    "infinite": ('"train": {"optimizer": {"learning_rate": 1e999}}', "train.optimizer.learning_rate: not a number"),
    "not a number": ('"model": {"name": "jrl", "filters": NaN}', "model.filters: not a number"),
    "surrogate in a value": ('"title": "a\\ud800"', "title: the text 'a\\ud800' holds \\ud800"),
    "surrogate in a key": ('"model": {"\\udfff": 1}', "model: the text '\\udfff' holds \\udfff"),
    "surrogate in a name": ('"model": {"name": "\\udfff"}', "model.name: the text"),
    "surrogate in demo": ('"demo": {"train.\\udfff": 1}', "demo: the text"),
    "long output": (f'"losses": {{"{"a" * 30_000}": {{"name": "dice"}}}}', "there is no output 'aaaa"),
    "long path in demo": (
        f'"demo": {{"{"a" * 30_000}": 1}}',
        "keys must be dotted paths of this file such as 'train.epochs', got: aaaa",
    ),
    "many keys": (keys(200_000), f"more than {MOST_VALUES:,} values"),
    "many arguments": (f'"model": {{"name": "jrl", {keys(200_000)}}}', f"more than {MOST_VALUES:,} values"),
    "many repeated keys": (",".join(f'"k{number % 100_000}": 1' for number in range(200_000)), "and 99,980 more"),
    "large": (f'"title": "{"a" * 5_000_000}"', "larger than 4 MiB"),
    "keys below the bound": (keys(9000), "9000 problems in the experiment"),
    "arguments below the bound": (f'"model": {{"name": "jrl", {keys(9000)}}}', "takes no 'k19'"),
    "data sets below the bound": (f'"data": {{"external": [{DATA_SETS}]}}', "ph2 named more than once"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("demo", [(), ("--demo",)], ids=["plain", "demo"])
def test_a_strange_file_gets_a_sentence_that_names_it(name, demo, tmp_path, capsys):
    content, expected = FILES[name]
    path = tmp_path / "strange.json"
    path.write_text(f'{{"extends": "jrl_ph2", {content}}}')
    start = time.process_time()
    assert main([str(path), *demo, "--out", str(tmp_path / "runs")]) == 2
    assert time.process_time() - start < 5, "it is not linear"
    message = capsys.readouterr().err
    assert expected in message
    assert str(path) in message
    assert "Traceback" not in message
    assert len(message) < 20_000
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("extends", "expected"),
    [
        ("a" * 5000, "There is no experiment file 'aaaa"),
        ("a/" * 2500, "There is no experiment file 'a/a/"),
        ("sub/../me.json", "'extends' forms a circle"),
        ("sub/../you.json", "'extends' forms a circle"),
        ("link.json", "'extends' forms a circle"),
        ("a\\u0000b", "There is no experiment file"),
        ("a\\ud800", "extends: the text"),
        ("", "There is no experiment file ''"),
        (".", "There is no experiment file '.'"),
    ],
)
def test_a_parent_that_no_file_can_be_is_named(extends, expected, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "you.json").write_text('{"extends": "sub/../sub/../me.json"}')
    path = tmp_path / "me.json"
    (tmp_path / "link.json").symlink_to(path)
    path.write_text(f'{{"extends": "{extends}"}}')
    with pytest.raises(UserError) as error:
        load_experiment(path)
    assert expected in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 10_000


def test_a_long_chain_of_parents_ends(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.json").write_text(f'{{"extends": "{number + 1}.json"}}')
    with pytest.raises(UserError, match="leads through more than 32 files"):
        load_experiment(tmp_path / "0.json")


def test_two_ways_to_one_parent_are_no_circle(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "parent.json").write_text('{"extends": "jrl_ph2", "title": "a pair of surrogates: \\ud83d\\ude00"}')
    (tmp_path / "sub" / "child.json").write_text('{"extends": "../sub/../parent.json"}')
    assert load_experiment(tmp_path / "sub" / "child.json").title.endswith("\U0001f600")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"train.epochs={'1' * 5000}", "--set train.epochs: not a number"),
        (f"title={nested(5000)}", "--set title: lists or objects are nested"),
        (f"{'a.' * 5000}a=1", "5,001 keys deep"),
        (f"image.preprocessing.{'1' * 5000}=1", "image.preprocessing"),
        ("title=a\udcff", "--set title: the text"),
        ("tit\udcffle=a", "--set: the text"),
        ("a" * 100_000, "--set takes KEY=VALUE"),
    ],
)
def test_a_strange_override_gets_a_short_sentence(override, expected, capsys):
    assert main(["jrl_ph2", "--set", override]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert len(message) < 1000


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "locked.json"
    path.write_text("{}")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(UserError, match=r"locked\.json cannot be read: Permission denied"):
        read_json(path)


def test_values_at_the_bounds_are_accepted():
    deep: object = 1
    for _ in range(DEEPEST):
        deep = [deep]
    check_values(deep, "file")
    with pytest.raises(UserError, match="nested deeper"):
        check_values([deep], "file")
    check_values([10**17] * (MOST_VALUES - 1), "file")
    with pytest.raises(UserError, match="more than 10,000 values"):
        check_values([1] * MOST_VALUES, "file")

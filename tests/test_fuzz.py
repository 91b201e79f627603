"""A short form of tools/fuzz.py, and proof that it notices what is no sentence."""

import random

import pytest

from keras_skin.registry import UserError
from tools import fuzz

SEED = 1


@pytest.mark.parametrize(("target", "count"), [("experiments", 200), ("tables", 40), ("images", 150)])
def test_damaged_files_are_accepted_or_refused_in_a_sentence(target, count, tmp_path, capsys):
    assert fuzz.main(["--out", str(tmp_path), f"--{target}", str(count), "--seed", str(SEED)]) == 0
    assert f"{target}: {count} cases" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.nightly
def test_damaged_requests_are_answered(clinical_run, tmp_path):
    assert fuzz.main(["--out", str(tmp_path), "--requests", "60", "--run", str(clinical_run), "--seed", str(SEED)]) == 0


def outcomes(case, out, count=1):
    (out / "input").write_bytes(b"the input")
    return fuzz.fuzz("tables", fuzz.Cases(case, out / "input"), count, 0, out)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (ValueError("a traceback"), "ValueError: a traceback"),
        (UserError(""), "empty"),
        (RecursionError("deep"), "RecursionError"),
    ],
)
def test_what_is_no_sentence_is_kept_with_its_input(error, kept, tmp_path):
    def case(draw):
        raise error

    assert outcomes(case, tmp_path)["failed"] == 1
    assert kept in (tmp_path / "tables_0_0.txt").read_text()
    assert (tmp_path / "tables_0_0.input").read_bytes() == b"the input"


def test_a_sentence_passes(tmp_path):
    def case(draw):
        raise UserError("table.csv, line 3: found 'x', expected a number.")

    assert outcomes(case, tmp_path, 3) == {"refused": 3}


def test_what_hangs_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "LONGEST", 0.05)

    def case(draw):
        while True:
            pass

    assert outcomes(case, tmp_path)["failed"] == 1
    assert "Hung: no answer" in (tmp_path / "tables_0_0.txt").read_text()


def test_a_case_follows_from_its_seed_and_number():
    value = {"a": [1, {"b": 2}], "c": {"d": "e"}}
    changed = [fuzz.changed_json(value, random.Random(f"x 0 {number}")) for number in range(30)]
    assert repr(changed) == repr([fuzz.changed_json(value, random.Random(f"x 0 {number}")) for number in range(30)])
    assert sum(item != value for item in changed) > 25
    assert value == {"a": [1, {"b": 2}], "c": {"d": "e"}}
    assert fuzz.VALUES[7:11] == ([], {}, [[]], {"name": []}), "a change of a drawn value is no change of the next draw"

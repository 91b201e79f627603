"""docs/results.md is what the recorded runs say."""

import importlib.util
import sys
from pathlib import Path

import pytest

from keras_skin.evaluation.recorded import RecordedRun
from keras_skin.registry import UserError
from tests.evaluation.run_folders import images
from tests.recorded_runs import write_recordable

ROOT = Path(__file__).resolve().parent.parent
MSFA = ["BCC", "MEL", "NV"]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool():
    return load("results_page")


@pytest.fixture
def page(tool, tmp_path):
    """Records run folders, and returns the page's section of a title."""
    recorder, results = load("record_result"), tmp_path / "results"

    def write(*runs, section="", names=None):
        for number, run in enumerate(runs):
            recorder.record_result(run, names and names[number], results=results)
        text = tool.results_page(tool.read_results(results))
        return text if not section else text.partition(f"## {section}")[2].partition("\n## ")[0]

    return write


def jrl(tmp_path, variant, seed=0, **more):
    return write_recordable(tmp_path / f"{variant}{seed}{len(more)}", f"jrl_isic2016_{variant}", seed=seed, **more)


def test_the_page_in_the_documentation_is_current(tool):
    expected = tool.results_page(tool.read_results(tool.RESULTS))
    assert tool.PAGE.read_text(encoding="utf-8") == expected, "run: python tools/results_page.py"


def test_without_results_the_page_says_what_is_missing(tool):
    text = tool.results_page({})
    assert "No run is recorded yet" in text
    assert text.count("Not measured yet: ") == len(tool.FIRST)


def test_a_paper_s_own_row_stands_beside_its_number(page, tmp_path):
    runs = [jrl(tmp_path, "mtl0", seed) for seed in range(2)]
    section = page(*runs, section="Joint reverse learning: tables 3 and 4")
    line = next(line for line in section.splitlines() if line.startswith("| MTL0 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["MTL0", "40 images of isic2016", "Test split", "40", "DSC"]
    assert cells[5].startswith("0.8")
    assert " to " in cells[5]
    assert cells[6].startswith("2, sd 0.0")
    assert cells[7] == "0.9003"
    assert "Not measured yet: ResNet50; U-Net; MTL1; " in section
    assert "| MTL0 | 0.9003 | 0.8315 | 0.8610 |" in section


def test_a_shorter_training_is_named_and_other_images_are_not_compared(page, tmp_path):
    title = "Joint reverse learning: tables 3 and 4"
    section = page(jrl(tmp_path, "mtl0", missing=561), section=title)
    measured = [line for line in section.splitlines() if "| Test split |" in line]
    assert measured[0].endswith("| not comparable: 561 images of isic2016 are missing |")
    assert {line.rpartition("|")[0].rpartition("|")[2].strip() for line in measured[1:]} <= {"not comparable", "not printed"}
    assert not any("0.9003" in line for line in measured)


def test_claims_are_judged_in_pairs(page, tmp_path):
    runs = [jrl(tmp_path, "mtl2", skill=0), jrl(tmp_path, "mtl3", skill=6)]
    section = page(*runs, section="Joint reverse learning: tables 3 and 4")
    assert "- **Showed up**: Attention modules (MTL3) classify better than MTL2, table 3. F1, weighted of MTL3" in section
    assert "- **Not measured**: Joint reverse learning (MTL2) classifies better than MTL1" in section
    assert "on different images" not in section


def test_the_price_of_the_leak(page, tmp_path):
    table = images(40, MSFA, "ham10000")
    free = write_recordable(tmp_path / "free", "msfa_ham10000", table=table, classes=MSFA)
    other = images(60, MSFA, "ham10000")
    leaky = write_recordable(
        tmp_path / "leaky", "msfa_ham10000_paper_protocol", table=other, classes=MSFA, skill=5, stamp="groups may straddle"
    )
    rename(leaky, "validation")
    section = page(free, leaky, section="Light multi-scale ResNet18 on HAM10000: tables II")
    assert "The price of the leak:" in section
    line = section.partition("The price of the leak:")[2].splitlines()[4]
    assert line.startswith("| Focal loss, oversampling | Accuracy | 1.0000 (1.0000 to 1.0000) | ")
    assert line.split("|")[-3].strip().startswith("+0.")
    assert line.split("|")[-2].strip() == "0.7880", "under the paper's protocol its number is comparable"
    assert "not comparable: split by patient or lesion, the paper's image by image" in section


def rename(run, split):
    for name in ("metrics.json", "predictions.csv", "splits.csv"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace('"test"', f'"{split}"').replace(",test,", f",{split},"))


def test_a_run_of_no_row_is_listed_with_its_overrides(page, tmp_path):
    run = write_recordable(tmp_path / "run", "jrl_isic2016_mtl0", ["train.epochs=8"])
    text = page(run)
    assert "Joint reverse learning: tables 3 and 4" not in text
    assert "| `jrl_isic2016_mtl0-epochs-8-seed0` | `train.epochs=8` | 40 images of isic2016 | Test split | 40 | DSC | 0.8" in text
    assert "1 runs are recorded. The longest training, `jrl_isic2016_mtl0-epochs-8-seed0`, took 15 minutes" in text
    assert "| `jrl_isic2016_mtl0` | `train.epochs=8` | 0 | 2 | 15 | 2.0 GiB | A processor, 2 cores | 2026-01-31 |" in text


def test_the_same_seed_twice_is_refused(page, tmp_path):
    runs = [jrl(tmp_path, "mtl0"), jrl(tmp_path, "mtl0", skill=2)]
    with pytest.raises(UserError, match="the same experiment, overrides and seed: a, b"):
        page(*runs, names=["a", "b"])


def test_seeds_that_measured_other_images_are_not_averaged(page, tmp_path):
    runs = [jrl(tmp_path, "mtl0"), jrl(tmp_path, "mtl0", seed=1, table=images(count=30))]
    with pytest.raises(UserError, match="The seeds of one experiment measured different images"):
        page(*runs)


def test_recorded_files_are_valid():
    for path in (ROOT / "results").glob("*.json"):
        assert RecordedRun.read(path).splits, path

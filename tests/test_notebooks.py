"""The Colab notebooks run from top to bottom on drawn images, have no outputs in git, and save whole runs to Drive."""

import ast
import copy
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from keras_skin.experiment import load_experiment

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "experiments" / "colab").glob("*.ipynb"))
WARNING = "Research software, not a medical device."
FORM = {  # which code cell, and what stands in its form
    0: ('REPOSITORY = ""', 'BRANCH = "main"'),
    1: ("USE_REAL_DATA = False", 'DATA_DIR = "/content/', "SAVE_TO_DRIVE = False", 'DRIVE_DIR = "/content/drive/MyDrive/'),
}


def read(path):
    return nbformat.read(path, as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def problems(book):
    """What a notebook must not be like in git."""
    problems = []
    try:
        nbformat.validate(book)
    except nbformat.ValidationError as error:
        problems.append(f"not valid: {error}")
    first, cells = book.cells[0], code(book)
    if first.cell_type != "markdown" or not first.source.startswith("# ") or WARNING not in first.source:
        problems.append("the first cell is not a title with the warning")
    for number, cell in enumerate(cells):
        if cell.outputs or cell.execution_count is not None:
            problems.append(f"code cell {number} has outputs or an execution count")
    for number, lines in FORM.items():
        cell = cells[number]
        if not cell.source.startswith("# @title ") or cell.metadata.get("cellView") != "form":
            problems.append(f"code cell {number} is no form")
        problems += [
            f"code cell {number}: {line} is no field of the form"
            for line in lines
            if not re.search(rf"^{re.escape(line)}.*# @param \{{type:\"\w+\"\}}$", cell.source, re.MULTILINE)
        ]
    if "drive.mount" not in cells[-1].source or any("drive.mount" in cell.source for cell in cells[:-1]):
        problems.append("the last code cell alone may ask for Drive")
    if "colab" not in book.metadata or book.metadata["kernelspec"]["name"] != "python3":
        problems.append("the notebook's metadata are not Colab's")
    shown = "\n".join(cell.source for cell in book.cells)
    problems += [f"a path of some machine: {path}" for path in re.findall(r"/(?:work|tmp|opt|home|root)/\S*", shown)]
    return problems


def set_output(book):
    code(book)[3].outputs = [nbformat.v4.new_output("stream", text="x")]


def set_count(book):
    code(book)[0].execution_count = 1


def set_title(book):
    book.cells[0].source = "# Quickstart"


def set_form(book):
    code(book)[0].source = code(book)[0].source.replace("# @param", "# param")


def set_real_data(book):
    code(book)[1].source = code(book)[1].source.replace("USE_REAL_DATA = False", "USE_REAL_DATA = True")


def set_view(book):
    del code(book)[1].metadata["cellView"]


def set_drive(book):
    code(book)[2].source += "\ndrive.mount('/content/drive')"


def set_metadata(book):
    del book.metadata["colab"]


def set_path(book):
    code(book)[2].source += "\nopen('/work/data.csv')"


def set_type(book):
    code(book)[2]["outputs"] = {}


SPOILT = [set_output, set_count, set_title, set_form, set_real_data, set_view, set_drive, set_metadata, set_path, set_type]


def test_there_are_four():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_wrong_in_git(path):
    assert problems(read(path)) == []


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_found(spoil):
    book = copy.deepcopy(read(NOTEBOOKS[0]))
    spoil(book)
    assert problems(book)


def test_installing_and_saving_are_the_same_everywhere():
    assert len({code(read(path))[0].source for path in NOTEBOOKS}) == 1
    assert len({code(read(path))[-1].source for path in NOTEBOOKS}) == 1


@pytest.fixture
def not_installed(monkeypatch):
    """Makes keras_skin look as if it were not there; gives the commands that were run."""
    ran = []
    find_spec = importlib_find_spec()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "keras_skin" else find_spec(name))
    monkeypatch.setattr(subprocess, "run", lambda command, **options: ran.append((command, options)))
    return ran


def importlib_find_spec():
    import importlib.util

    return importlib.util.find_spec


def test_without_a_repository_it_says_what_to_do(not_installed):
    with pytest.raises(SystemExit, match=r"REPOSITORY is empty\. Enter the address"):
        exec(code(read(NOTEBOOKS[0]))[0].source, {})
    assert not_installed == []


def test_it_installs_the_branch_of_the_repository(not_installed):
    source = code(read(NOTEBOOKS[0]))[0].source
    source = source.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.org/skin.git"').replace('"main"', '"next"')
    exec(source, {})
    ((command, options),) = not_installed
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1] == "keras_skin[serve,pretrained] @ git+https://example.org/skin.git@next"
    assert options["check"]


def test_what_is_installed_already_is_used(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: pytest.fail("something was installed"))
    exec(code(read(NOTEBOOKS[0]))[0].source, {})
    assert "keras_skin" in capsys.readouterr().out


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "jrl_ph2-demo-1"
    for name in ("report.html", "saved_model/1/saved_model.pb", "demo_data/ph2/x.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def colab(monkeypatch):
    """Stands in for google.colab; gives what was asked of Drive."""
    requests = []
    drive = types.SimpleNamespace(
        mount=lambda place: requests.append(f"mount {place}"), flush_and_unmount=lambda: requests.append("flush")
    )
    package = types.ModuleType("google.colab")
    package.drive = drive
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", package)
    return requests


def save(run, drive, wanted=True):
    settings = {"SAVE_TO_DRIVE": wanted, "DRIVE_DIR": str(drive), "run": run, "Path": Path}
    exec(code(read(NOTEBOOKS[0]))[-1].source, settings)


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_run_is_saved_whole_and_then_named(run, colab, tmp_path, capsys):
    drive = tmp_path / "drive"
    save(run, drive)
    assert files(drive) == [f"{run.name}/report.html", f"{run.name}/saved_model/1/saved_model.pb"]
    assert colab == ["mount /content/drive", "flush"]
    save(run, drive)
    assert "Saved already" in capsys.readouterr().out


def test_what_was_cut_short_has_no_name_and_is_replaced(run, colab, tmp_path, monkeypatch):
    drive = tmp_path / "drive"

    def breaks(source, target, **options):
        Path(target).mkdir(parents=True)
        shutil.copy(source / "report.html", target)
        raise OSError("the session ended")

    with monkeypatch.context() as context:
        context.setattr(shutil, "copytree", breaks)
        with pytest.raises(OSError, match="the session ended"):
            save(run, drive)
    assert [item.name for item in drive.iterdir()] == [f"{run.name}.partial"]
    (drive / f"{run.name}.partial" / "stale.txt").write_text("of before")
    save(run, drive)
    assert files(drive) == [f"{run.name}/report.html", f"{run.name}/saved_model/1/saved_model.pb"]


def test_drive_is_left_alone_unless_asked_for(run, colab, tmp_path, capsys):
    save(run, tmp_path / "drive", wanted=False)
    assert colab == []
    assert not (tmp_path / "drive").exists()
    assert str(run) in capsys.readouterr().out


def test_outside_colab_nothing_is_mounted(run, tmp_path, capsys):
    save(run, tmp_path / "drive")
    assert "This is not Colab" in capsys.readouterr().out
    assert not (tmp_path / "drive").exists()


TRAINING = re.compile(r"^ *!\{sys.executable\} -m keras_skin.run .*\n *assert _exit_code == 0.*\n", re.MULTILINE)


def edit(book, old, new):
    (cell,) = (cell for cell in code(book) if old in cell.source)
    cell.source = cell.source.replace(old, new)


def use_run(book, run):
    """Makes a notebook use a finished run where it would train one."""
    if any('RUN = ""' in cell.source for cell in code(book)):
        edit(book, 'RUN = ""', f'RUN = "{run}"')
    else:
        (command,) = (match[0] for cell in code(book) for match in TRAINING.finditer(cell.source))
        edit(book, command, "")


def check_notebook(book, folder):
    """Runs a notebook in `folder` and checks what it shows and leaves there."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "KERAS_SKIN_DATA")}
    client = NotebookClient(book, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env={**environment, "PYTHONPATH": str(ROOT)})
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1, "no picture was shown"
    text = "".join(output["text"] for output in outputs if output.output_type == "stream")
    assert "Not saved to Drive" in text
    (run,) = (folder / "runs").iterdir()
    assert (run / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["01_quickstart", "04_export_and_query"])
def test_every_cell_runs_with_a_finished_run(name, tmp_path, tiny_run):
    book = read(ROOT / "experiments" / "colab" / f"{name}.ipynb")
    use_run(book, shutil.copytree(tiny_run, tmp_path / "runs" / tiny_run.name))
    check_notebook(book, tmp_path)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path):
    check_notebook(read(path), tmp_path)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if "smaller = [" in path.read_text()], ids=lambda path: path.stem)
def test_the_settings_of_its_demo_are_valid(path):
    source = "\n".join(cell.source for cell in code(read(path)))
    overrides = ast.literal_eval(re.search(r"smaller = (\[.*?\n *\])\n", source, re.DOTALL)[1])
    load_experiment(re.findall(r"keras_skin\.run (\w+)", source)[-1], overrides)

"""Guards the direction of imports, and what may be imported at all, by reading the source."""

import ast
import graphlib
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "keras_skin"
FILES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = {"run", "check", "predict", "explain.__main__", "export.__main__", "compare", "serve", "cache", "report", "reproduce"}
FREE = {"registry", "experiment", "console"}

# layer -> parts of keras_skin that it may import (itself is always allowed)
ALLOWED = {
    "registry": set(),
    "experiment": {"registry"},
    "console": {"registry"},
    "run_folder": {"registry", "experiment"},
    "layers": {"registry"},
    "losses": {"registry", "layers"},
    "metrics": {"registry", "layers"},
    "models": {"registry", "layers", "losses", "metrics"},
    "data.images": {"registry"},
    "data.metadata": {"registry"},
    "data.datasets": {"registry", "data.images"},
    "data.splits": {"registry", "data.datasets", "data.images"},
    "data.pipeline": {"registry", "data.images"},
    "training": {"registry", "run_folder", "losses", "metrics"},
    "evaluation": {"registry", "run_folder", "experiment"},
    "figures": {"registry", "run_folder", "evaluation"},
    "explain": {"registry", "run_folder", "evaluation.bootstrap", "evaluation.explanations", "figures.explanations"},
    "export": {"registry", "run_folder", "data.images", "explain.grad_cam"},
    "presets": {"registry", "run_folder", "data.images.cache"},
    "checking": {"registry", "data", "evaluation.bootstrap", "evaluation.classification"},
}
NO_TENSORFLOW = {"layers", "losses", "metrics", "models", "evaluation", "figures", "checking", "registry", "experiment"}
TENSORFLOW_EXCEPTION = "layers.batch_normalization"
IMPORT_SITES = {  # they may be gone one day; two layers that may not import each other need keras-cv
    "keras_cv": {"data.pipeline.batch_augment", "models.deeplabv3plus"},
    "tf_explain": {"explain.saliency"},
    "albumentations": {"data.pipeline.augment"},
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """All imported dotted names of a file, with the line and whether the import stands at the top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names += [(f"{node.module}.{alias.name}", node.lineno, id(node) in top) for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_follow_the_arrows(path):
    name = module_name(path)
    part = name.split(".")[0]
    for imported, line, _ in imports(path):
        if part in NO_TENSORFLOW and name != TENSORFLOW_EXCEPTION:
            assert imported.split(".")[0] != "tensorflow", f"{name}:{line} imports tensorflow"
        if not imported.startswith("keras_skin."):
            continue
        target = imported.removeprefix("keras_skin.")
        first = target.split(".")[0]
        assert first not in COMMANDS or first == part, f"{name}:{line} imports a command module: {imported}"
        assert first != "checking" or part in {"check", "checking"}, f"{name}:{line} imports the check of data sets"
        assert first != "serving" or part in {"serve", "serving"}, f"{name}:{line} imports the server"
        above = name in COMMANDS or part in COMMANDS | {
            "__init__",
            "workflow",
            "serving",
        }  # a package's __main__ is a command, too
        assert first != "workflow" or above, f"{name}:{line} imports the workflow"
        layer = ".".join(name.split(".")[:2]) if part == "data" else part
        if layer in ALLOWED and name not in COMMANDS:
            allowed = any(
                target == item or target.startswith(f"{item}.") for item in ALLOWED[layer] | {layer, "version", "templates"}
            )
            assert allowed, (
                f"{name}:{line} imports {imported}; {layer} may import {sorted(ALLOWED[layer]) or 'nothing of the package'}"
            )


PRIVATE_IMPORTS: set[str] = set()  # modules that still import a private name of another one


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_private_name_is_imported_from_another_module(path):
    private = [
        f"{imported}:{line}"
        for imported, line, _ in imports(path)
        if imported.startswith("keras_skin.") and any(re.match(r"_(?!_)", name) for name in imported.split("."))
    ]
    assert bool(private) == (module_name(path) in PRIVATE_IMPORTS), private


def test_no_import_goes_in_a_circle():
    """Imports inside functions and for type checkers count: a reader follows them, too."""
    names = {f"keras_skin.{module_name(path)}".removesuffix(".__init__"): path for path in FILES}
    names["keras_skin"] = names.pop("keras_skin.__init__", PACKAGE / "__init__.py")
    graph = {}
    for name, path in names.items():
        targets = (next((t for t in (i, i.rpartition(".")[0]) if t in names), None) for i, _, _ in imports(path))
        graph[name] = {target for target in targets if target and target != name}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"These modules import one another: {' -> '.join(error.args[1])}")


def test_data_has_five_rooms():
    """Every module of `data` lives in one of them, so that ALLOWED speaks of all of them."""
    assert {module_name(path).split(".")[1] for path in FILES if module_name(path).startswith("data.")} == {
        layer.removeprefix("data.") for layer in ALLOWED if layer.startswith("data.")
    }


@pytest.mark.parametrize("library", IMPORT_SITES)
def test_library_is_imported_where_it_is_known_to_be_and_inside_a_function(library):
    sites = [
        (module_name(path), line, top)
        for path in FILES
        for imported, line, top in imports(path)
        if imported.split(".")[0] == library
    ]
    assert {module for module, _, _ in sites} == IMPORT_SITES[library], sites
    assert not any(top for _, _, top in sites), sites


def test_only_the_server_knows_of_its_web_framework():
    for path in FILES:
        used = {imported.split(".")[0] for imported, _, _ in imports(path)} & {"fastapi", "starlette", "uvicorn", "anyio"}
        assert not used or module_name(path).split(".")[0] in {"serve", "serving"}, f"{path} imports {used}"


@pytest.mark.parametrize("part", sorted(FREE))
def test_light_modules_use_standard_library_and_pydantic_only(part):
    for path in FILES:
        if module_name(path).split(".")[0] == part:
            for imported, line, _ in imports(path):
                assert imported.split(".")[0] in sys.stdlib_module_names | {"pydantic", "keras_skin"}, (
                    f"{path}:{line} imports {imported}"
                )


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_forbidden_things_are_absent(path):
    text = path.read_text(encoding="utf-8")
    assert path.name not in {"utils.py", "helpers.py"}
    for pattern in (r"\bimport pickle\b", r"\beval\(", r"\bLambda\(", r"channels_first", r"/(work|tmp|opt)/"):
        assert not re.search(pattern, text), f"{path}: {pattern}"


def test_run_is_thin():
    assert len((PACKAGE / "run.py").read_text().splitlines()) < 150


def test_help_answers_fast_without_tensorflow():
    code = "import sys, keras_skin.run; assert not {'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules), 'heavy import'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "keras_skin.run", "--help"], check=True, cwd=ROOT, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # processor time: the seconds on the clock of a machine that does nothing else
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, seconds


def test_public_face_imports_no_tensorflow():
    code = (
        "import sys, keras_skin; keras_skin.list_models(); keras_skin.list_datasets(); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_test_file_mirrors_a_module():
    """tests/data/images/test_decode.py tests keras_skin/data/images/decode.py, tests/test_x.py tools/x.py.

    A test of a whole package may say what it is about instead.
    """
    modules = {module_name(path).replace(".", "/") for path in FILES}
    packages = {str(Path(name).parent) for name in modules}
    about_the_whole = {
        "test_architecture",
        "test_built_once",
        "test_docker",
        "test_docs_site",
        "test_experiments_end_to_end",
        "test_golden_arrays",
        "test_jax_backend",
        "test_notebooks",
        "test_public_names",
        "test_readme",
        "test_wheel",
    }
    about_a_package = {"test_conformance", "test_create_model"}
    grouped = {"metrics/test_masks", "metrics/test_classes"}  # metrics of one kind share their checks
    for path in (ROOT / "tests").rglob("test_*.py"):
        place = path.relative_to(ROOT / "tests").with_suffix("")
        mirrored = str(place.parent / place.name.removeprefix("test_")).removeprefix("./")
        fine = (
            mirrored in modules
            or path.stem in about_the_whole
            or str(place) in grouped
            or (ROOT / "tools" / f"{mirrored}.py").is_file()
            or (path.stem in about_a_package and str(place.parent) in packages)
        )
        assert fine, f"{place} mirrors no module of the package"

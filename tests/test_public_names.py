"""What a person would try to import can be imported, and costs nothing before it is used."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import keras_skin
from keras_skin.registry import UserError

PACKAGES = ("losses", "metrics", "layers", "explain")
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_imported(package):
    module = importlib.import_module(f"keras_skin.{package}")
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=f"module 'keras_skin.{package}' has no attribute"):
        _ = module.Nothing


def test_a_mistyped_name_gets_a_suggestion():
    with pytest.raises(AttributeError, match="Did you mean 'Dice'"):
        _ = importlib.import_module("keras_skin.losses").Dise


def test_no_layer_loss_or_metric_is_left_out():
    """Every class that Keras can save is a public name of its package."""
    root = Path(keras_skin.__file__).parent
    for package in ("losses", "metrics", "layers"):
        public = importlib.import_module(f"keras_skin.{package}").__all__
        for path in (root / package).glob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("class ") and not line.startswith("class _"):
                    assert line.removeprefix("class ").partition("(")[0].rstrip(":") in public, f"{path}: {line}"


def test_every_model_is_a_public_name():
    """`from keras_skin.models import UNet` gives the builder that is registered as `unet`."""
    from keras_skin import models

    builders = {getattr(models, name) for name in models.__all__ if name[0].isupper()}
    assert builders == {models.get(name).builder for name in models.list_models()}
    assert all(name.lower() == models.registry.builders[name].replace("_", "") for name in models.registry.builders)


def test_a_model_by_its_registered_name_gets_a_suggestion():
    code = "from keras_skin import models; models.unet"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "module 'keras_skin.models' has no attribute 'unet'. Did you mean 'UNet'?" in done.stderr
    with pytest.raises(AttributeError, match="Did you mean 'create_model'"):
        _ = importlib.import_module("keras_skin.models").create_modle


def test_importing_the_packages_imports_no_keras():
    names = ", ".join(f"keras_skin.{name}" for name in (*PACKAGES, "models"))
    subprocess.run([sys.executable, "-c", f"import sys, {names}; assert 'keras' not in sys.modules"], check=True, cwd=ROOT)


def test_list_models():
    assert keras_skin.list_models() == importlib.import_module("keras_skin.models").list_models()
    assert "jrl" in keras_skin.list_models()


def test_create_model_checks_its_arguments():
    with pytest.raises(UserError, match="Did you mean 'variant'"):
        keras_skin.create_model("jrl", variants="mtl0")

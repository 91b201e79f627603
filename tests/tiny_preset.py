"""The preset of the tiny run, made by the tool."""

import importlib.util
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "tools" / "make_preset.py"


def load_tool():
    """The module tools/make_preset.py."""
    spec = importlib.util.spec_from_file_location("make_preset", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_tiny_preset(run, out):
    """Makes the preset `tiny` in `out`."""
    load_tool().make_preset(run, "tiny", out, for_tests=True)

"""The lock files hold what setup.cfg asks for, with hashes. They are written by tools/lock.py, which needs the package index."""

import configparser
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import LOCKS, ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def requirements(extras):
    """The requirements of the package and of extras; an extra may name others of the package itself."""
    lines = SETUP["options"]["install_requires"].split("\n")
    for extra in extras:
        lines += SETUP["options.extras_require"][extra].split("\n")
    for requirement in map(Requirement, filter(None, lines)):
        if requirement.name == "keras_skin":
            yield from requirements(requirement.extras)
        else:
            yield requirement


def entries(text):
    """(requirement, hashes) of each entry of a lock file."""
    for entry in re.split(r"\n(?=[^\s#])", text.strip()):
        line, *hashes = entry.split(" \\\n    ")
        yield Requirement(line), hashes


def problems(text, extras):
    """What setup.cfg asks for and the lock file lacks, and entries that are not pinned."""
    locked = {}
    for requirement, hashes in entries(text):
        pin = re.fullmatch(r"==([^*,]+)", str(requirement.specifier))
        if not pin or not hashes or not all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", item) for item in hashes):
            yield f"{requirement} is not pinned by version and hash"
        elif requirement.marker is None or requirement.marker.evaluate():
            locked[canonicalize_name(requirement.name)] = pin.group(1)
    for requirement in requirements(extras):
        version = locked.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield f"setup.cfg asks for {requirement}, the lock file has {version}: run tools/lock.py"


@pytest.mark.parametrize("file", LOCKS)
def test_it_holds_what_setup_cfg_asks_for(file):
    assert not list(problems((ROOT / file).read_text(encoding="utf-8"), LOCKS[file]))


def test_problems_are_found():
    text = (ROOT / ".ci/requirements.lock").read_text(encoding="utf-8")
    assert set(problems(re.sub(r"\nkeras==[\d.]+", "\nkeras==2.15.0", text), ["test"])) == {
        "setup.cfg asks for keras<4,>=3.13, the lock file has 2.15.0: run tools/lock.py"
    }
    without_hash = re.sub(r"(\nkeras==[\d.]+)( \\\n    --hash=sha256:\w+)+", r"\1", text)
    assert any("keras==" in problem and "not pinned" in problem for problem in problems(without_hash, ["test"]))

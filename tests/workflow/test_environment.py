import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_skin.workflow.environment import environment, peak_memory_mib, reset_peak_memory

ROOT = Path(__file__).resolve().parents[2]


def test_no_name_and_no_path_of_the_machine_is_recorded():
    import getpass
    import platform

    text = str(environment())
    assert str(ROOT) not in text
    assert platform.node() not in text
    assert f"/{getpass.getuser()}" not in text


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_commit_of_the_checkout_is_recorded():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert environment()["commit"] in (head, f"{head}-dirty")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_peak_memory_counts_since_it_was_reset():
    before = peak_memory_mib()
    block = np.ones(300 * 2**17)  # 300 MiB
    assert peak_memory_mib() >= before
    del block
    reset_peak_memory()
    base = peak_memory_mib()
    block = np.ones(200 * 2**17)
    assert base + 150 < peak_memory_mib() < base + 400
    assert block.nbytes == 200 * 2**20

"""Libraries are silent while they are imported; errors and later messages are not."""

import os
import subprocess
import sys

from keras_skin.console import quiet_import

CODE = """
import os, sys
from keras_skin.console import quiet_import
with quiet_import():
    os.write(2, b"chatter of a library")
print("afterwards", file=sys.stderr)
with quiet_import():
    import no_such_module
"""


def test_libraries_are_silent_and_errors_are_not():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert "chatter" not in result.stderr
    assert "afterwards" in result.stderr
    assert "ModuleNotFoundError: No module named 'no_such_module'" in result.stderr


def test_descriptors_are_given_back():
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with quiet_import():
            pass
    assert len(os.listdir("/dev/fd")) == before

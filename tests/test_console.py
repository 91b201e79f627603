"""Libraries are silent while they are imported; errors and later messages are not. A bar on a terminal, few lines elsewhere."""

import io
import os
import subprocess
import sys

from keras_skin.console import ProgressBar, quiet_import

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


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_a_bar_that_is_taken_away():
    stream = Terminal()
    bar = ProgressBar(stream)
    for done in range(1, 101):
        bar("reading files", done, 100)
    assert "[" + "#" * 30 + "] reading files  100/100" in stream.getvalue()
    assert stream.getvalue().count("\r") < 20
    bar.clear()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_anything_else_gets_a_line_now_and_then():
    stream = io.StringIO()
    bar = ProgressBar(stream)
    for done in range(1, 1001):
        bar("reading files", done, 1000)
    bar.clear()
    assert stream.getvalue() == ""
    bar = ProgressBar(stream, heartbeat_seconds=0)
    bar("reading files", 10, 1000)
    assert stream.getvalue().startswith("reading files  10/1,000")
    assert "\r" not in stream.getvalue()

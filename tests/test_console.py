"""Libraries are silent while they are imported; errors and later messages are not. A bar on a terminal, few lines elsewhere."""

import errno
import io
import os
import signal
import subprocess
import sys
import time

import pytest

from keras_skin.console import FailureKind, ProgressBar, exit_code, machine_failure, quiet_import
from keras_skin.registry import UserError

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


def test_what_a_command_ends_with(capsys):
    def fails(error):
        raise error

    assert exit_code(lambda: None, "unused") == exit_code(lambda: 0, "unused") == 0
    assert exit_code(lambda: 3, "unused") == 3
    assert exit_code(lambda: fails(UserError("a mistake")), "unused") == 2
    assert capsys.readouterr().err == "a mistake\n"
    assert exit_code(lambda: fails(KeyboardInterrupt()), "It is kept.") == 130
    assert capsys.readouterr().err == "\nIt is kept.\n"
    with pytest.raises(RuntimeError):
        exit_code(lambda: fails(RuntimeError("a defect keeps its traceback")), "unused")


class ResourceExhaustedError(Exception):
    """As TensorFlow's, for a full disk and for full memory alike."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "x", "/runs/a.json"), FailureKind.FILES, "/runs/a.json cannot be read or written: No space left"),
        (OSError(errno.EROFS, "x", "/a"), FailureKind.FILES, "Read-only file system. Its disk is read-only"),
        (PermissionError(errno.EACCES, "x", "/a"), FailureKind.FILES, "Permission denied. Change its permissions"),
        (OSError(errno.ENAMETOOLONG, "x", "/a"), FailureKind.FILES, "Give it a shorter name"),
        (OSError("Unable to write (file write failed: errno = 28)"), FailureKind.FILES, "The disk is full: free some space"),
        (ResourceExhaustedError("/a/variables.data; No space left on device"), FailureKind.FILES, "/a/variables.data cannot"),
        (OSError("truncated file"), FailureKind.FILES, "A file cannot be read or written: truncated file."),
        (MemoryError(), FailureKind.MEMORY, "There is not enough memory."),
        (OSError(errno.ENOMEM, "x"), FailureKind.MEMORY, "There is not enough memory."),
        (ResourceExhaustedError("failed to allocate memory"), FailureKind.MEMORY, "There is not enough memory."),
        (ResourceExhaustedError("OOM on device:GPU:0 by GPU_0_bfc"), FailureKind.MEMORY, "not enough memory of the GPU"),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), FailureKind.MEMORY, "not enough memory of the GPU"),
    ],
)
def test_a_failure_of_the_machine_is_a_sentence(error, kind, words, capsys):
    def fails():
        raise error

    assert machine_failure(error).kind is kind
    assert exit_code(fails, "unused") == 3
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_a_failure_behind_another_exception_is_found_and_a_defect_is_none():
    error = RuntimeError("the training failed")
    error.__cause__ = OSError(errno.ENOSPC, "x", "/a")
    assert machine_failure(error).kind is FailureKind.FILES
    assert machine_failure(KeyError("label")) is None
    defect = KeyError("label")
    defect.__context__ = FileNotFoundError(errno.ENOENT, "x", "/a")
    assert machine_failure(defect) is None, "a defect keeps its traceback"


def test_ctrl_c_while_a_program_ends_leaves_no_traceback():
    """Python waits for its threads meanwhile."""
    code = (
        "import signal, threading, time; from keras_skin.console import end_program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Thread(target=time.sleep, args=(30,)).start(); print('ends', flush=True); end_program(130)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ends\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT
    assert process.communicate()[1] == ""

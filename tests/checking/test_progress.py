"""A bar on a terminal, few lines elsewhere."""

import io

from keras_skin.checking.progress import ProgressBar


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

"""What only a process of its own shows: signals, closed pipes, terminals, the cost of `--help`."""

import os
import pty
import select
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

FAKE = [sys.executable, "-W", "error", str(Path(__file__).with_name("fake_model.py"))]


@contextmanager
def start(*arguments, **options):
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen([*FAKE, *arguments], env=environment, **streams | options) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(*arguments, stdin=None, **environment):
    return subprocess.run(
        [*FAKE, *arguments],
        input=stdin,
        capture_output=True,
        env=os.environ | environment,
        timeout=20,
    )


def test_the_answer_is_streamed_and_control_c_ends_it():
    with start("pause=0.05", "generate", " ".join(["word"] * 500)) as process:
        assert os.read(process.stdout.fileno(), 6) == b"heard "
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output.endswith(b"\n")
    assert ("user=" + " ".join(["word"] * 400)).encode().startswith(output[:-1])
    assert b"ended by Ctrl-C" in errors
    assert b"Traceback" not in errors


def test_a_closed_pipe_ends_quietly():
    with start("pause=0.02", "generate", " ".join(["word"] * 500)) as process:
        assert os.read(process.stdout.fileno(), 6) == b"heard "
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 141


def test_output_that_the_encoding_cannot_show_does_not_end_the_answer():
    result = finish("script=caf|é| ok", "generate", "hello", PYTHONIOENCODING="ascii")
    assert result.stdout == b"caf? ok\n"
    assert b"Error" not in result.stderr


@pytest.mark.parametrize("io_encoding", ["utf-8", "ascii"])
def test_input_that_is_no_text_is_named_as_such(io_encoding):
    result = finish("generate", "-", stdin=b"caf\xe9\n", PYTHONIOENCODING=io_encoding)
    assert result.returncode == 2
    assert b"not valid UTF-8" in result.stderr


def test_a_message_that_is_no_text_does_not_end_the_conversation():
    result = finish("chat", "-q", stdin=b"caf\xe9\nhello\n")
    assert result.stdout == b"heard user=hello\n"
    assert result.stderr == b"Error: The text is not valid UTF-8.\n"


def test_a_pipe_receives_every_byte_of_the_answer():
    result = finish("script=a|\x1b]0;title\x07", "generate", "hello")
    assert result.stdout == b"a\x1b]0;title\x07\n"


class Terminal:
    """A pseudo-terminal: a process writes to `child`, the test reads what a person would see."""

    def __init__(self):
        self._ours, self.child = pty.openpty()
        self._unread = b""

    def given_away(self):
        """Close the child's end here, so that the process holds the only one."""
        os.close(self.child)

    def write(self, text):
        os.write(self._ours, text)

    def read_until(self, awaited):
        while awaited not in self._unread:
            received = self._receive()
            assert received, self._unread
            self._unread += received
        seen, _, self._unread = self._unread.partition(awaited)
        return seen

    def read_all(self):
        seen = self._unread + b"".join(iter(self._receive, b""))
        os.close(self._ours)
        return seen

    def _receive(self):
        assert select.select([self._ours], [], [], 20)[0], "nothing came for 20 seconds"
        try:
            return os.read(self._ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            return b""


def test_a_terminal_receives_no_command_from_the_model():
    terminal = Terminal()
    arguments = ["script=a|\x1b]0;title\x07|b", "generate", "hello"]
    with start(*arguments, stdout=terminal.child) as process:
        terminal.given_away()
        assert terminal.read_all().decode() == "a\ufffd]0;title\ufffdb\r\n"
        assert process.wait(timeout=20) == 0


def test_a_terminal_shows_what_is_going_on():
    terminal = Terminal()
    with start("pause=0.3", "generate", "hello", stderr=terminal.child) as process:
        terminal.given_away()
        terminal.read_until(b"Loading smollm2_135m_instruct_en")
        terminal.read_until(b"Reading the prompt")
        terminal.read_until(b"peak memory")
        terminal.read_all()
        assert process.stdout.read() == b"heard user=hello\n"


@pytest.mark.parametrize("leave", [b"/exit\n", b"\x04", None], ids=["/exit", "Ctrl-D", "Ctrl-C"])
def test_a_conversation_on_a_terminal(leave):
    terminal = Terminal()
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.child)
    with start("chat", **ends) as process:
        terminal.given_away()
        terminal.read_until(b"> ")
        terminal.write(b"hello\n")
        terminal.read_until(b"heard user=hello")
        terminal.read_until(b"> ")
        if leave is None:
            interrupt(process)
        else:
            terminal.write(leave)
        assert b"Traceback" not in terminal.read_all()
        assert process.wait(timeout=20) == 0


def interrupt(process):
    """Press Ctrl-C, and again where it came between the prompt and the wait for a line."""
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=3)
            return


def test_help_costs_less_than_a_second_of_cpu_time():
    command = [sys.executable, "-c", "from nextword.cli import main; main()", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert b"generate" in output
    assert usage.ru_utime + usage.ru_stime < 1.0

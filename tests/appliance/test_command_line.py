"""However a command fails, it says so in one line, in any character set, and ends with an exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import typer
from pydantic import BaseModel
from appliance.command_line import run_app

class Name(BaseModel):
    name: int

app = typer.Typer()

@app.command()
def act():
    {act}

run_app(app)
"""


def ended(act: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line with one command that does `act`, in a process of its own."""
    program = _PROGRAM.format(act=act)
    given = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("Name(name='Met Police')", "name: Input should be a valid integer"),
        ("open('/nonexistent/file')", "/nonexistent/file: No such file or directory"),
    ],
)
def test_a_value_or_file_that_is_refused_is_one_line(act: str, words: str) -> None:
    done = ended(act)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Met Police" not in done.stderr, "a value is not repeated"


def test_ctrl_c_ends_with_its_own_code() -> None:
    assert ended("raise KeyboardInterrupt").returncode == 130


def test_a_sign_that_the_terminal_lacks_is_replaced() -> None:
    done = ended("print(chr(0x2714), 'ready')", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, "? ready\n")

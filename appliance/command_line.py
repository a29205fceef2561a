"""How the three commands end: an expected failure is one red line and its own exit code, never a traceback."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from rich.text import Text

from appliance.errors import BluelampError


def complain(message: str) -> None:
    """One red line on stderr, never wrapped: it may be grepped."""
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(line, style="red"))


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line and exit: 0 done, 2 wrong usage, else the failure's own exit code (errors.py).

    A value that no record takes, and a file that the system refuses, are one line and exit code 1.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a sign the terminal's character set lacks must not end a command
    try:
        app()
    except BluelampError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except ValidationError as error:
        complain("; ".join(_told(e) for e in error.errors(include_input=False, include_url=False)))
        sys.exit(1)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _told(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else error["msg"]

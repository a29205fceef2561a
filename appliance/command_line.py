"""How the three commands end: an expected failure is one red line and its own exit code, never a traceback."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from appliance.errors import BluelampError


def complain(message: str) -> None:
    """One red line on stderr, never wrapped: it may be grepped."""
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(line, style="red"))


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line and exit: 0 done, 2 wrong usage, else the failure's own exit code (errors.py)."""
    try:
        app()
    except BluelampError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)

"""`make console` on built-in data: an alert comes with both pictures, and the console answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import workbench


@pytest.mark.slow
@pytest.mark.usefixtures("mosquitto")
def test_the_demo_shows_an_alert_with_both_pictures_and_ends() -> None:
    workbench.built_in()
    command = [sys.executable, "-m", "demo.console", "--once", "--pace", "fast", "--port", "0", "--adjudicators", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "password" in done.stdout
    assert "an alert with both pictures is here; the console answers: 200" in done.stdout
    assert "token" not in done.stdout  # its members have passwords already

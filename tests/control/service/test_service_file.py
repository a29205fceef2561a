"""The control room's service file: sound, narrow, and every option with its reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

UNIT = ROOT / "control" / "systemd" / "bluelamp-control.service"
MOST = 2.0  # exposure as `systemd-analyze security` reckons it; it serves browsers, so it listens


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed: apt install systemd")
    return found


def test_it_verifies_without_a_word(analyze: str, tmp_path: Path) -> None:
    stand_in = UNIT.read_text().replace("/usr/bin/bluelamp-control", "/bin/true")  # the program is not installed here
    (tmp_path / UNIT.name).write_text(stand_in)
    done = subprocess.run([analyze, "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_is_no_more_exposed_than_it_must_be(analyze: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={round(MOST * 10)}", "--no-pager", str(UNIT)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


def test_every_option_has_its_reason_before_it() -> None:
    before = ""
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            assert before.startswith("# "), line
        before = line

"""A thousand alerts a minute: every one reaches ledger and browsers once, and the console stays usable."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import console


@pytest.mark.slow
@pytest.mark.usefixtures("mosquitto")
@pytest.mark.timeout(400)
def test_nothing_is_lost_or_told_twice_and_pages_load(tmp_path: Path) -> None:
    found = console.measure(tmp_path, minutes=1.0, per_minute=1000, readers=2)
    assert (found["alerts"], found["lost"], found["twice"]) == (1000, 0, 0)
    assert found["event_p99_ms"] < 5000  # of a shared test machine; the README has the measured figures
    assert found["page_p99_ms"] < 5000

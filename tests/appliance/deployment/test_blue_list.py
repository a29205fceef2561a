"""Live TPIR and FPIR from volunteers and footfall (requirement 20)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from appliance.deployment.blue_list import BlueList, Pressed, PressLog, monitor
from appliance.rates import lower, share, upper


def blue(limit: float = 0.001) -> BlueList:
    return BlueList("blue-list", limit)


def test_passes_and_their_alerts_give_tpir() -> None:
    """Nine of ten logged passes are followed by an alert within fifteen seconds."""
    team = blue()
    for number in range(10):
        team.pressed(Pressed(time=100.0 * number, mark="passed"))
        if number != 4:
            team.alerted(100.0 * number + 7, "blue-list")
    figures = team.figures(probes=500, now=2000)
    assert (figures.tpir.count, figures.tpir.of, figures.unexplained) == (9, 10, 0)
    assert (round(figures.tpir.low, 4), round(figures.tpir.high, 4)) == (0.5550, 0.9975)


def test_an_alert_belongs_to_one_pass() -> None:
    team = blue()
    team.pressed(Pressed(time=100, mark="passed"))
    team.pressed(Pressed(time=105, mark="passed"))
    team.alerted(107, "blue-list")
    assert team.figures(10, 1000).tpir.count == 1


def test_a_pass_just_now_is_not_yet_missed() -> None:
    team = blue()
    team.pressed(Pressed(time=100, mark="passed"))
    assert team.figures(10, 110).tpir.of == 0
    assert team.figures(10, 120).tpir.of == 1


def test_alerts_without_a_press_are_shown_apart() -> None:
    """A forgotten press or a false alert; alerts of other categories are no volunteers."""
    team = blue()
    team.alerted(100, "blue-list")
    team.alerted(100, "wanted-on-warrant")
    assert team.figures(10, 1000).unexplained == 1


def test_the_alarm_needs_proof_not_a_bad_minute() -> None:
    """One false alert among 200 is a share of 1 in 200, five times the limit, and yet no proof; five are."""
    team = blue()
    team.pressed(Pressed(time=1, mark="false"))
    assert team.alarm(probes=200) is None
    for _ in range(4):
        team.pressed(Pressed(time=1, mark="false"))
    assert "the order allows 0.001" in str(team.alarm(probes=200))


@given(count=st.integers(0, 50), more=st.integers(0, 500))
def test_intervals_are_exact(count: int, more: int) -> None:
    """Clopper-Pearson: at each limit the observed count is just as unlikely as was asked for."""
    of = count + more
    if of == 0:
        assert (share(0, 0).low, share(0, 0).high) == (0.0, 1.0)
        return
    low, high = lower(count, of, 0.025), upper(count, of, 0.025)
    assert 0 <= low <= count / of <= high <= 1
    if count:
        assert binom.sf(count - 1, of, low) == pytest.approx(0.025, rel=1e-6)
    if more:
        assert binom.cdf(count, of, high) == pytest.approx(0.025, rel=1e-6)


def test_presses_are_read_as_they_come(tmp_path: Path) -> None:
    """A half-written line waits for its end; a damaged one is left out; nothing is read twice."""
    log = PressLog(tmp_path / "passes.jsonl")
    reader = PressLog(log.path)
    assert reader.news() == []
    log.add(Pressed(time=1, mark="passed"))
    with log.path.open("a") as file:
        file.write('junk\n{"time": 2, "mark"')
    assert [p.time for p in reader.news()] == [1]
    with log.path.open("a") as file:
        file.write(': "false"}\n')
    assert [p.mark for p in reader.news()] == ["false"]
    assert reader.news() == []


def test_the_permit_asks_the_monitor(tmp_path: Path) -> None:
    """Presses reach the alarm through the file the team's command writes."""
    log = PressLog(tmp_path / "passes.jsonl")
    alarm = monitor(blue(), PressLog(log.path), lambda: 100)
    assert alarm() is None
    for _ in range(5):
        log.add(Pressed(time=time.time(), mark="false"))
    assert alarm() is not None

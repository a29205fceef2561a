"""`status` shows what is known of a unit from the outside, and works when nothing runs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from appliance.cli import app
from appliance.config import CameraPart, UnitConfig, UnitPart
from appliance.deployment import arming
from appliance.deployment import files as deployment
from appliance.deployment.site import Site
from appliance.rates import share
from appliance.records import CameraHealth, Health, StageTimes
from appliance.sockets import health as figures
from appliance.sockets.link import Greeting
from appliance.status import cli as status_cli
from appliance.status import status
from appliance.status.status import Status
from appliance.trust import envelope
from tests.support import workbench


def health(**changes: object) -> Health:
    """What a vision process that scans tells of itself."""
    gate = CameraHealth(name="gate", state="running", frames=900, dropped=3, fps=14.8)
    yard = CameraHealth(name="yard", state="reconnecting", frames=20, dropped=0, fps=0.3, message="trying again in 2 s")
    fields: dict[str, object] = {
        "unit": "van-1", "deployment": "D-1", "time": time.time(), "uptime": 61.0, "state": "armed",
        "cameras": (gate, yard), "faces": 5000, "tracks": 420, "probes": 600, "alerts": 12, "queued": 2,
        "stages": StageTimes(), "resident_bytes": 289_000_000, "temperature": 83.0, "watchlist_entries": 12,
        "watchlist_recall": 1.0, "blue_passes": 10, "blue_found": 9, "false_alerts": 1, "beacon": "lit",
        "sandbox": ("no network", "no writable file"),
    }  # fmt: skip
    return Health.model_validate({**fields, **changes})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> workbench.Workbench:
    bench = workbench.build(tmp_path_factory.mktemp("bench"))
    bench.ordered()
    return bench


@pytest.fixture
def site(shared: workbench.Workbench, tmp_path: Path) -> Site:
    """An armed unit."""
    bench = shared.copy(tmp_path / "bench")
    made = bench.site(bench.root / "van-D-1")
    deployment.arm(made, bench.folder, bench.packs, workbench.confirmed(), "PC 1234")
    return made


def config_of(site: Site) -> UnitConfig:
    part = UnitPart(keys=site.key_folder, watchlist=site.watchlist, order=site.order, state=site.state)
    return UnitConfig(unit=part, camera=(CameraPart(name="gate", source="0"),))


@pytest.fixture
def vision(site: Site) -> Iterator[Health]:
    """Vision's end of its socket, with figures on it."""
    told, path = health(), site.state / "run"
    path.mkdir(mode=0o700)
    served = figures.serve(path / "vision.sock", 0o600)
    served.show(told)
    served.start()
    yield told
    served.stop()


def text_of(now: Status) -> str:
    """The screen as text, wide enough that nothing is cut."""
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(status_cli.screen(now))
    return console.export_text()


def test_an_armed_unit_that_scans_is_shown_whole(site: Site, vision: Health) -> None:
    now = status.look(config_of(site))
    assert (now.mode, now.deployment, now.version, now.entries) == ("scanning", "D-1", 1, 12)
    text = text_of(now)
    for words in (
        "● SCANNING, ", "High Street", "12 templates, version 1", "● running", "▲ reconnecting",
        "5000 faces in 420 tracks", "12, of these adjudicated as false: 1", "9 of 10 passes of the blue list: 90 %",
        "1 of 411 tracks", "● lit", "▲ 83 C", "289 MB", "no network; no writable file", "unit van-1",
        "camera yard: trying again in 2 s", "arming D-1",
    ):  # fmt: skip
        assert words in text, words


def test_live_rates_come_with_their_intervals() -> None:
    """Clopper-Pearson, as the blue list's own figures (requirement 20)."""
    now = status.judged(health(), None, None, None, time.time())
    assert now.tpir == share(9, 10)
    assert now.fpir == share(1, 411)
    assert status_cli.told(share(9, 10), "passes") == "9 of 10 passes: 90 % (55 to 100)"
    assert status_cli.told(share(1, 411), "tracks") == "1 of 411 tracks: 0.243 % (0.006 to 1.348)"
    assert status_cli.told(share(0, 0), "tracks") == "0 of 0 tracks: 0 % (0 to 100)"


@pytest.mark.parametrize(
    ("vision_state", "armed", "mode"),
    [("armed", True, "scanning"), ("armed", False, "rehearsing"), ("disarmed", True, "paused"), (None, True, "armed"),
     (None, False, "not armed"), ("ended", False, "not armed")],
)  # fmt: skip
def test_the_mode_follows_from_vision_and_the_arming(
    site: Site, vision_state: str | None, armed: bool, mode: str
) -> None:
    known = status.look(config_of(site))
    assert known.mode == "armed"
    assert known.left is not None
    assert 7000 < known.left <= 7200
    record = envelope.unverified(site.armed.read_bytes(), arming.KIND, arming.Armed) if armed else None
    told = health(state=vision_state) if vision_state else None
    assert status.judged(told, None, record, None, time.time()).mode == mode


def test_a_courier_without_its_broker_is_said() -> None:
    text = text_of(status.judged(None, Greeting(queued=7), None, None, time.time()))
    assert "running, 7 sealed alert(s) wait" in text
    assert "▲ not connected; alerts wait on this unit" in text
    assert "● connected" in text_of(status.judged(None, Greeting(broker=True), None, None, time.time()))


def test_figures_that_stopped_coming_are_said_to_be_old() -> None:
    old = health(time=time.time() - 95)
    assert "▲ last heard of 1 min ago" in text_of(status.judged(old, None, None, None, time.time()))


def test_a_damaged_file_is_a_message_and_not_an_end(site: Site) -> None:
    """Somebody edited the arming: the screen stays, and says so."""
    site.armed.write_text("{}")
    now = status.look(config_of(site))
    assert now.mode == "not armed"
    assert any("not a signed armed" in line for line in now.messages)


def test_messages_never_grow_the_screen(site: Site) -> None:
    """Only the log's last lines, each cut to one."""
    log = site.state / "audit.log"
    log.write_bytes(log.read_bytes() * 50)
    messages = status.look(config_of(site)).messages
    assert len(messages) == status.MESSAGES
    assert all(len(line) <= 160 for line in messages)


def test_the_command_works_when_nothing_runs(tmp_path: Path) -> None:
    """Nothing is there but a configuration: no keys, no state, nobody. Once as text, once as JSON."""
    path = tmp_path / "unit.toml"
    path.write_text('[unit]\nkeys = "k"\nwatchlist = "w"\nstate = "s"\n[[camera]]\nname = "gate"\nsource = "0"\n')
    for option in ("--once", "--json"):
        done = CliRunner().invoke(app, ["status", option, "--config", str(path)])
        assert done.exit_code == 0
        if option == "--once":
            assert "○ NOT ARMED" in done.stdout
            assert done.stdout.count("○ is not running") == 2
        else:
            assert json.loads(done.stdout)["mode"] == "not armed"
    assert list(tmp_path.iterdir()) == [path], "looking leaves nothing behind"


def test_the_screen_is_printed_once_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "unit.toml"
    path.write_text('[unit]\nkeys = "k"\nwatchlist = "w"\nstate = "s"\n[[camera]]\nname = "gate"\nsource = "0"\n')
    command = [sys.executable, "-m", "appliance.cli", "status", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("NOT ARMED") == 1

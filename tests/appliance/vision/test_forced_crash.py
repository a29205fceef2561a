"""Vision is killed in the middle of a street, as a fault in a library would: nothing of its memory is left behind."""

from __future__ import annotations

import base64
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance import config
from appliance.attest import control as attest_control
from appliance.attest import places
from appliance.attest.kit import Canary, Needle
from appliance.attest.needles import targets
from appliance.attest.places import Hunt
from appliance.attest.stage import vision_of
from appliance.attest.tap import Tap
from appliance.courier import server as courier
from appliance.courier.settings import courier_settings
from appliance.deployment import layout
from demo import rehearsal
from demo.run import ASSETS


def writes_cores(folder: Path) -> bool:
    """Whether a process that crashes on this machine leaves a core file, and it is found; else nothing is shown."""
    noise = base64.b64encode(random.Random(1).randbytes(96)).decode()
    needles = (Needle(kind="jpeg", data=noise),)
    hunt = Hunt.of(targets([Canary(name="one", role="track", matched=False, needles=needles)]))
    _, core = attest_control.in_processes(hunt, attest_control.sample(hunt.targets), folder / "other", time.time())
    return bool(core.planted) and core.good


def unit_toml(prepared: rehearsal.Rehearsal, run: str) -> Path:
    """The demo's street at its own pace; sockets in the folder `run`."""
    path = prepared.folder / "unit" / f"{run}.toml"
    path.write_text(f"""
[unit]
keys = "keys"
watchlist = "watchlist.blw"
state = "state"
run = "{run}"
[[camera]]
name = "street"
source = "{ASSETS / "street.mp4"}"
pace = "real"
[broker]
host = "127.0.0.1"
port = 9
""")
    return path


def test_a_crashed_vision_leaves_no_core_file_and_no_face(tmp_path: Path) -> None:
    """The limit on core files is lifted first, so that it is vision itself that leaves none."""
    if not writes_cores(tmp_path):
        pytest.skip("this machine writes no core files, so their absence shows nothing")
    prepared = rehearsal.prepare(tmp_path / "site")
    rehearsal.enrol(prepared, ASSETS / "watchlist.csv")
    rehearsal.seal_list(prepared, "CRASH-1", fpir=1e-3)
    back = config.load(unit_toml(prepared, "back"))
    layout.prepare_state(back)
    post = courier.spawn(courier_settings(back))
    while not layout.socket_path(back).exists():
        assert post.poll() is None
        time.sleep(0.02)
    front = unit_toml(prepared, "run")
    tap = Tap(layout.socket_path(config.load(front)), layout.socket_path(back))
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    command = [sys.executable, "-m", "appliance.cli", "run", "--no-courier", "--config", str(front)]
    try:
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
            attest_control.allow_cores(run.pid)
            assert tap.scanning.wait(40)
            since = time.time()
            os.kill(vision_of(run.pid), signal.SIGSEGV)
            said = run.communicate(timeout=40)[1]
    finally:
        tap.close()
        post.terminate()
        post.wait(20)
    assert run.returncode != 0
    assert "vision was ended by SIGSEGV" in said
    assert places.core_files(tmp_path, since) == []
    after = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()} - {
        p.relative_to(tmp_path) for p in before
    }
    assert {p.parts[:3] for p in after} <= {("site", "unit", "state")}, "only the courier's outbox was written"

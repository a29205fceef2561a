"""From keys to receipt as technicians and field team do it: the commands, a real broker, a real unit, its courier."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from appliance.cli import app as unit_app
from appliance.errors import BluelampError
from appliance.formats import order
from control.broker.broker import BrokerFiles, running_broker
from control.cli import app as control_app
from control.receive.inbox import Opened
from control.receive.tail import Tail, Until
from provisioning.cli import app as provision_app
from provisioning.orders import ordering
from tests.support import workbench
from tests.support.paths import ROOT

CLIP = ROOT / "demo" / "assets" / "street.mp4"
LIST = ROOT / "demo" / "assets" / "watchlist.csv"
pytestmark = [pytest.mark.usefixtures("mosquitto"), pytest.mark.timeout(400)]


APPS = {"provision": provision_app, "unit": unit_app, "control": control_app}


def command(program: str, *arguments: object, code: int = 0) -> str:
    """Run a command as an operator does; its exit code must be `code`. Returns what it printed."""
    done = CliRunner().invoke(APPS[program], [str(a) for a in arguments])
    failed = done.exception if isinstance(done.exception, BluelampError) else None
    text = done.output + (f"\n{failed}" if failed else "")
    found = failed.exit_code if failed else done.exit_code
    assert found == code, f"{program} {arguments}: {text} {done.exception!r}"
    return text


def packs_with_calibration(folder: Path) -> tuple[Path, Path]:
    """Copies of the built-in packs with a made-up calibration: their digests stay the same."""
    packs = workbench.built_in()
    copies = folder / "detector", folder / "embedder"
    for pack, copy in zip((packs.detector, packs.embedder), copies, strict=True):
        shutil.copytree(pack.folder, copy)
    workbench.write_calibration(packs.detector, type(packs.embedder)(copies[1], packs.embedder.manifest,
                                                                     packs.embedder.digest), 0.4)  # fmt: skip
    return copies


@dataclass
class Scene:
    """Folders of a base, an officer, a unit and a control room, as step by step commands left them."""

    root: Path
    packs: tuple[Path, Path]
    received: list[Opened] = field(default_factory=list)

    def options(self) -> list[object]:
        return ["--detector", self.packs[0], "--embedder", self.packs[1]]

    def admit(self) -> None:
        """Everybody gets keys and is admitted."""
        base = self.root / "base"
        command("provision", "keys", "init", base)
        command("provision", "keys", "authority", self.root / "officer", "--name", "officer")
        command("unit", "keys", "request", self.root / "unit", "--name", "van-1")
        command("control", "keys", "request", self.root / "room", "--name", "control-1")
        for name in ("officer", "unit", "room"):
            answer = self.root / f"{name}.json"
            command("provision", "keys", "admit", base, self.root / name / "request.json", "--out", answer)
            program = {"officer": "provision", "unit": "unit", "room": "control"}[name]
            verb = ["keys", "install"] if name == "officer" else ["keys", "admit"]
            command(program, *verb, self.root / name, answer, *([] if name == "officer" else ["--yes"]))
        command("provision", "keys", "quorum", base, 2)
        command("unit", "keys", "roster", self.root / "unit", base / "roster.json")
        command("provision", "keys", "broker", base, "--host", "127.0.0.1", "--out", self.root / "broker")

    def order(self, deployment: str) -> None:
        """Enrol, look over, issue, draft, and two authorities sign."""
        base, van = self.root / "base", self.root / "van"
        command("provision", "enrol", base, LIST, *self.options())
        np.save(
            self.root / "strangers.npy", workbench.vectors(50, length=workbench.built_in().embedder.embedder.length)
        )
        command("provision", "preflight", base, "--footfall", 1000, "--threshold", 0.55, "--out", van,
                "--cohort", self.root / "strangers.npy", *self.options())  # fmt: skip
        command("provision", "issue", base, "--unit", "van-1", "--deployment", deployment, "--from", "now", "--until",
                "+1h", "--preflight", van / "preflight.json", "--out", van, *self.options())  # fmt: skip
        (self.root / "order.toml").write_text(ordering.TEMPLATE)
        packs = workbench.built_in()
        figures = {"models": packs.models.model_dump(), "made": time.time(),
                   "groups": [{"group": g, "tpir": 0.9, "fpir": 0.0} for g in "ab"]}  # fmt: skip
        (self.root / "report.json").write_text(json.dumps(figures))
        command("provision", "order", "draft", base, "--deployment", deployment, "--details", self.root / "order.toml",
                "--preflight", van / "preflight.json", "--report", self.root / "report.json", "--out", van)  # fmt: skip
        for signer in ("base", "officer"):
            command("provision", "order", "sign", van / "order.json", "--keys", self.root / signer, "--yes")
        command("provision", "order", "verify", van / "order.json", "--keys", self.root / "unit")

    def config(self, port: int, deployment: str) -> Path:
        """unit.toml for the clip at a camera's pace, so that the run lasts until it is ended."""
        path = self.root / "unit.toml"
        path.write_text(f"""[unit]
keys = "{self.root}/unit"
watchlist = "{self.root}/van/{deployment}.van-1.watchlist"
order = "{self.root}/van/order.json"
state = "{self.root}/state"
[models]
detector = "{self.packs[0]}"
embedder = "{self.packs[1]}"
[[camera]]
name = "clip"
source = "{CLIP}"
pace = "real"
[broker]
host = "127.0.0.1"
port = {port}
""")
        (self.root / "signage.json").write_text(json.dumps(dict.fromkeys(order.SIGNAGE, "PC 1234")))
        return path

    def receipts(self) -> list[Opened]:
        return [o for o in self.received if o.header.kind == "receipt"]


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    """Until it is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    if not CLIP.exists():
        pytest.skip("no demo clip in this tree: python -m demo.make")
    return Scene(tmp_path, packs_with_calibration(tmp_path / "packs"))


@pytest.fixture
def room(scene: Scene) -> Iterator[int]:
    """A broker and a control room that listens; gives the port."""
    scene.admit()
    with running_broker(BrokerFiles.of(scene.root / "broker"), ["control-1"], host="127.0.0.1") as broker:
        tail = Tail(scene.root / "room", broker.address, Until())
        thread = threading.Thread(target=tail.run, args=(scene.received.append, lambda line: None), daemon=True)
        thread.start()
        wait_for(lambda: tail.subscriber.connected)
        yield broker.address.port
        tail.subscriber.stop()
        thread.join(10)


def test_from_keys_to_receipt(scene: Scene, room: int) -> None:
    """The whole of a deployment: keys, enrolment, pre-flight, issue, order, arming, scanning, disarming, receipt."""
    scene.order("D-1")
    config = scene.config(room, "D-1")
    assert "not armed; run: bluelamp-unit arm" in command("unit", "run", "--config", config, "--no-courier", code=5)
    (scene.root / "partly.json").write_text("{}")
    assert "step 14" in command("unit", "arm", "--config", config, "--yes", scene.root / "partly.json", code=5)
    command("unit", "arm", "--config", config, "--yes", scene.root / "signage.json")
    assert "superintendent" in command("unit", "order", "--config", config).lower()
    run = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config), "--json"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as unit:
        wait_for(lambda: any(o.header.kind == "alert" for o in scene.received), 120)
        command("unit", "disarm", "--config", config)
        printed, _ = unit.communicate(timeout=60)
    assert "disarmed by the field team" in json.loads(printed)["stopped"]
    wait_for(scene.receipts)
    assert not (scene.root / "van" / "D-1.van-1.watchlist").exists()
    assert not (scene.root / "state" / "armed.json").exists()

    assert '"running"' in command("provision", "receipts", "verify", scene.root / "base", "--json")
    (scene.root / "receipt.json").write_bytes(scene.receipts()[0].content)
    command("provision", "receipts", "take", scene.root / "base", scene.root / "receipt.json")
    assert '"gone"' in command("provision", "receipts", "verify", scene.root / "base", "--json")
    command("provision", "audit", "verify", scene.root / "base")
    command("provision", "audit", "verify", scene.root / "base", "--log", scene.root / "state" / "audit.log",
            "--unit", "van-1")  # fmt: skip
    assert "D-1 version 1 on van-1" in command("provision", "audit", "member", scene.root / "base", "REF-0009")
    kept = command("unit", "run", "--config", config, "--no-courier", code=5)
    assert "bring the list that the base issued" in kept


def test_a_recall_over_mqtt_ends_the_deployment(scene: Scene, room: int) -> None:
    """One authority signs, the control room passes it on, the unit verifies, stops, erases, and sends the receipt.

    Before that, something that no authority signed is published in its place, by hand: the unit goes on.
    """
    scene.order("D-2")
    config = scene.config(room, "D-2")
    command("unit", "arm", "--config", config, "--yes", scene.root / "signage.json")
    run = [sys.executable, "-m", "appliance.cli", "run", "--config", str(config), "--json"]
    broker, room_keys, signed = f"127.0.0.1:{room}", scene.root / "room", scene.root / "recall.json"
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as unit:
        wait_for(lambda: any(o.header.kind == "health" for o in scene.received), 120)
        signed.write_bytes(b"stop")
        command("control", "recall", signed, "--keys", room_keys, "--broker", broker, code=5)
        (scene.root / "state" / "recall.json").write_bytes(b"stop")
        time.sleep(2.5)
        assert unit.poll() is None
        command("provision", "order", "recall", scene.root / "base", "--unit", "van-1", "--deployment", "D-2",
                "--reason", "new information", "--out", signed)  # fmt: skip
        command("control", "recall", signed, "--keys", room_keys, "--broker", broker)
        printed, _ = unit.communicate(timeout=60)
    assert "recalled by an authority: new information" in json.loads(printed)["stopped"]
    wait_for(scene.receipts)
    assert b"recalled" in json.loads(b64decode(json.loads(scene.receipts()[0].content)["payload"]))["reason"].encode()

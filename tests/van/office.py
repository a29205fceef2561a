"""Everything outside the van: base, officer, control room, broker, and the sticks that people carry between them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.transport.mqtt import BrokerAddress
from control.receive.inbox import Opened
from control.receive.tail import Tail, Until

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "demo/assets"
UNIT, DEPLOYMENT = "van-07", "VAN-1"
HOST = "10.0.2.2"  # this machine, as QEMU's own network shows it to the guest
SITE = """\
name = "{unit}"
authority = "{authority}"
smallest_face = 36
threads = 1

[broker]
host = "{host}"
port = {port}

[[camera]]
name = "street"
source = "/dev/video0"
"""


def command(program: str, *arguments: object) -> str:
    """Run one of the project's commands as its people do. Raises CalledProcessError with its output shown."""
    module = {"provision": "provisioning.cli", "unit": "appliance.cli", "control": "control.cli"}[program]
    done = subprocess.run(
        [sys.executable, "-m", module, *(str(a) for a in arguments)], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@dataclass
class Office:
    """Folders of base, officer and control room. `received`: what the control room has verified and opened."""

    folder: Path
    port: int
    received: list[Opened] = field(default_factory=list)
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    tail: Tail | None = None
    answer: list[Path] = field(default_factory=list)

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def open(self) -> None:
        """Keys of base, officer and control room; references are enrolled."""
        command("provision", "keys", "init", self.base)
        command("provision", "keys", "authority", self.folder / "officer", "--name", "officer")
        command("control", "keys", "request", self.folder / "room", "--name", "control-1")
        for name in ("officer", "room"):
            command(
                "provision",
                "keys",
                "admit",
                self.base,
                self.folder / name / "request.json",
                "--out",
                self.folder / f"{name}.json",
            )
        command("provision", "keys", "install", self.folder / "officer", self.folder / "officer.json")
        command("control", "keys", "admit", self.folder / "room", self.folder / "room.json", "--yes")
        command("provision", "keys", "quorum", self.base, 2)
        command(
            "provision",
            "keys",
            "broker",
            self.base,
            "--host",
            HOST,
            "--host",
            "127.0.0.1",
            "--out",
            self.folder / "broker",
        )
        command("provision", "enrol", self.base, ASSETS / "watchlist.csv")

    def authority(self) -> str:
        """The base's fingerprint, as it goes into site.toml."""
        rows = json.loads(command("provision", "keys", "fingerprint", self.base, "--json"))
        return str(next(r["fingerprint"] for r in rows if r["role"] == "authority"))

    def site(self, extra: str = "") -> str:
        return SITE.format(unit=UNIT, authority=self.authority(), host=HOST, port=self.port) + extra

    def admit(self, request: Path) -> list[Path]:
        """The unit joins, and the control room learns of it. Returns what goes onto the second stick."""
        answer = self.folder / f"{UNIT}.admission.json"
        command("provision", "keys", "admit", self.base, request, "--out", answer)
        command("control", "keys", "roster", self.folder / "room", self.base / "roster.json")
        return [answer]

    def order(self, deployment: str = DEPLOYMENT, until: str = "+2h") -> list[Path]:
        """List and order for the unit, signed by both authorities. Returns the files for a stick."""
        out = self.folder / deployment
        command("provision", "preflight", self.base, "--footfall", 1000, "--fpir", "1/1200", "--out", out)
        command(
            "provision",
            "issue",
            self.base,
            "--unit",
            UNIT,
            "--deployment",
            deployment,
            "--from",
            "now",
            "--until",
            until,
            "--preflight",
            out / "preflight.json",
            "--out",
            out,
        )
        (out / "order.toml").write_text(command("provision", "order", "template"))
        (out / "report.json").write_text(json.dumps(self._report()))
        command(
            "provision",
            "order",
            "draft",
            self.base,
            "--deployment",
            deployment,
            "--details",
            out / "order.toml",
            "--preflight",
            out / "preflight.json",
            "--report",
            out / "report.json",
            "--out",
            out,
        )
        for signer in (self.base, self.folder / "officer"):
            command("provision", "order", "sign", out / "order.json", "--keys", signer, "--yes")
        return [
            *out.glob("*.watchlist"),
            *(out / name for name in ("order.json", "preflight.json", "report.json")),
            self.base / "roster.json",
        ]

    def _report(self) -> dict[str, object]:
        """A report by group, made up: the rehearsal proves the path, not the recogniser."""
        rows = {
            row["role"]: row["digest"]
            for row in json.loads(command("unit", "models", "list", "--json"))
            if row["name"] in ("lamp-detector", "lamp-embedder")
        }
        groups = [{"group": g, "tpir": 0.9, "fpir": 0.0} for g in "ab"]
        return {"detector": rows["detector"], "embedder": rows["embedder"], "made": time.time(), "groups": groups}

    def start_broker(self) -> None:
        """Start the broker as a process."""
        log = (self.folder / "broker.log").open("a")
        broker = [
            sys.executable,
            "-m",
            "control.cli",
            "broker",
            "run",
            "--files",
            self.folder / "broker",
            "--control",
            "control-1",
            "--port",
            self.port,
        ]
        self.children.append(subprocess.Popen([str(a) for a in broker], cwd=ROOT, stdout=log, stderr=log, text=True))
        time.sleep(2)

    def listen(self) -> None:
        """Start the control room as a thread: its own subscriber, which verifies and opens."""
        self.tail = Tail(self.folder / "room", BrokerAddress(host="127.0.0.1", port=self.port), Until())
        threading.Thread(target=self.tail.run, args=(self.received.append, self._say), daemon=True).start()

    def _say(self, line: str) -> None:
        with (self.folder / "room.log").open("a") as log:
            log.write(line + "\n")

    def of(self, kind: str) -> list[Opened]:
        """What the control room has verified and opened of a kind: alert, receipt, health."""
        return [o for o in self.received if o.header.kind == kind]

    def close(self) -> None:
        if self.tail is not None:
            self.tail.subscriber.stop()
        for child in reversed(self.children):
            child.terminate()
            child.wait(20)
        self.children.clear()


def stick(path: Path, files: Sequence[Path], text: dict[str, str] | None = None, megabytes: int = 64) -> Path:
    """A FAT file system in a file, with these files on it: what QEMU plugs in as a USB stick."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.vfat", "-n", "STICK", str(path)], check=True, capture_output=True)
    for name, content in (text or {}).items():
        source = path.parent / name
        source.write_text(content)
        files = [*files, source]
    if files:
        subprocess.run(["mcopy", "-i", str(path), *(str(f) for f in files), "::/"], check=True)
    return path


def read_stick(path: Path, name: str, out: Path) -> Path | None:
    """Copy a file from a stick that was pulled out. None where it is not there."""
    done = subprocess.run(["mcopy", "-n", "-i", str(path), f"::/{name}", str(out)], capture_output=True)
    return out if done.returncode == 0 else None

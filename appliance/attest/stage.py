"""The deployment with the canaries: the unit's own commands as processes, with a tap between vision and courier."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.attest import control as attest_control
from appliance.attest.kit import OpenKit, Settings
from appliance.attest.record import AttestError
from appliance.attest.tap import Tap
from appliance.config import UnitConfig

_START = 120.0  # seconds until a process must be there; a small board under load is slow
_END = 180.0  # seconds until it must have ended by itself
_HEALTH = 600  # seconds between reports: one at the start, and the one at the end that the tap holds back


@dataclass
class Stage:
    """Courier, tap and vision, in a folder of their own inside the unit's state folder."""

    config: UnitConfig
    kit: OpenKit
    folder: Path
    tap: Tap
    courier: subprocess.Popen[bytes]
    _run: subprocess.Popen[bytes] | None = None
    _runs: int = field(default=0)

    @property
    def running(self) -> bool:
        """Whether the run goes on."""
        return self._run is not None and self._run.poll() is None

    @property
    def logs(self) -> Path:
        """Where the processes' own words are kept."""
        return self.folder / "said"

    def start(self, *, hold: bool) -> None:
        """Begin to scan the clip; `hold`: the last report is kept back until the tap is released."""
        self.tap.expect(hold=hold)
        self._runs += 1
        with (self.logs / f"run-{self._runs}.log").open("wb") as said:
            self._run = _spawn(["run", "--no-courier", "--json"], self.folder / "vision.toml", said, said)
        attest_control.allow_cores(self._run.pid)

    def vision(self) -> int:
        """The process that holds cameras and models. Raises AttestError where it is not there."""
        assert self._run is not None
        return vision_of(self._run.pid)

    def wait(self) -> int:
        """Until the run has ended; its exit status."""
        assert self._run is not None
        try:
            return self._run.wait(_END)
        except subprocess.TimeoutExpired as error:
            self._run.kill()
            raise AttestError(f"the run did not end within {_END:.0f} s; look at its messages") from error

    def stop(self) -> None:
        """End a run that still goes on, as after an error."""
        if self._run is not None and self._run.poll() is None:
            self.tap.release()
            self._run.terminate()
            self.wait()

    def summary(self) -> dict[str, Any]:
        """What the finished run printed. Raises AttestError with its own words where it failed."""
        status, said = self.wait(), (self.logs / f"run-{self._runs}.log").read_text(errors="replace")
        lines = [line for line in said.splitlines() if line.startswith('{"frames"')]
        if status != 0 or not lines:
            last = said.strip().splitlines()[-1:]
            raise AttestError(f"the run with the canaries ended with {status}: {' '.join(last)[:300]}")
        done: dict[str, Any] = json.loads(lines[-1])
        return done

    def until_scanning(self) -> None:
        """Wait for the first report. Raises AttestError where the run ends before."""
        deadline = time.monotonic() + _START
        while not self.tap.scanning.wait(0.1):
            if not self.running:
                self.summary()
            if time.monotonic() > deadline:
                raise AttestError("vision did not begin to scan; run: bluelamp-unit check")


@contextmanager
def staged(config: UnitConfig, kit: OpenKit, folder: Path) -> Iterator[Stage]:
    """The courier and the tap, ready for runs; all is ended at the end."""
    (folder / "said").mkdir()
    for name, text in (("courier", _toml(config, kit, folder, "back")), ("vision", _toml(config, kit, folder, "run"))):
        (folder / f"{name}.toml").write_text(text)
    with (folder / "said" / "courier.log").open("wb") as said:
        courier = _spawn(["courier"], folder / "courier.toml", said, said)
    tap: Tap | None = None
    try:
        back = folder / "back" / "courier.sock"
        deadline = time.monotonic() + _START
        while not back.exists():
            if courier.poll() is not None or time.monotonic() > deadline:
                words = (folder / "said" / "courier.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise AttestError(f"the courier did not start: {' '.join(words)[:300]}")
            time.sleep(0.02)
        tap = Tap(folder / "run" / "courier.sock", back)
        stage = Stage(config, kit, folder, tap, courier)
        try:
            yield stage
        finally:
            stage.stop()
    finally:
        if tap is not None:
            tap.close()
        courier.terminate()
        courier.wait(_END)


def vision_of(run: int) -> int:
    """The vision process below a `run`. Raises AttestError where there is none."""
    for pid in _descendants(run):
        with suppress(OSError):  # it may have ended in between
            if b"vision" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    raise AttestError("no vision process runs; look at the run's messages")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process stands still, so that its memory is read as of one moment."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _spawn(command: list[str], config: Path, out: Any, err: Any) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "appliance.cli", *command, "--config", str(config)]
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def _descendants(pid: int) -> list[int]:
    """All processes below one, by the kernel's own list of parents."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):  # processes come and go
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found, wave = [], [pid]
    while wave:
        wave = [child for child, parent in parents.items() if parent in wave]
        found += wave
    return found


def _toml(config: UnitConfig, kit: OpenKit, folder: Path, sockets: str) -> str:
    """The unit's own keys, models and broker; the kit's clip, list and settings; all is written to `folder`."""
    unit = {
        "keys": config.unit.keys, "watchlist": kit.watchlist, "state": folder / "state", "run": folder / sockets,
        "courier": folder / "outbox",
    }  # fmt: skip
    lines = ["[unit]", *(f"{key} = {json.dumps(str(path.resolve()))}" for key, path in unit.items())]
    lines += ["[models]", *(f"{key} = {json.dumps(value)}" for key, value in config.models.model_dump().items())]
    lines += ["[[camera]]", 'name = "canary"', f"source = {json.dumps(str(kit.clip.resolve()))}", 'pace = "fast"']
    lines += ["[broker]", f"host = {json.dumps(config.broker.host)}", f"port = {config.broker.port}"]
    lines += ["[health]", f"seconds = {_HEALTH}", *_parts(kit.record.settings)]
    return "\n".join(lines) + "\n"


def _parts(settings: Settings) -> Iterator[str]:
    for name, part in settings.model_dump().items():
        yield f"[{name}]"
        yield from (f"{key} = {json.dumps(value)}" for key, value in part.items())

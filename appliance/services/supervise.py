"""`bluelamp-unit run`: courier, keeper and vision under one command, for a machine without a service manager.

The supervisor has neither network nor camera. Courier and vision are children; the keeper's socket is served by a
thread here. Every minute, and once more when vision has ended however it ended, the keeper judges by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.config import UnitConfig
from appliance.confine import sandbox
from appliance.confine.beacon import BeaconError, open_beacon
from appliance.courier import server as courier
from appliance.courier.settings import CourierSettings, courier_settings
from appliance.deployment import layout
from appliance.errors import BluelampError
from appliance.keeper.keeper import Desk, Keeper, keeper_of
from appliance.sockets.listen import Gate
from appliance.trust import locker

RESTARTS = 5  # a courier that crashes oftener than so in RESTART_SECONDS is left alone
RESTART_SECONDS = 120.0
_STEP_SECONDS = 0.2
_JUDGE_SECONDS = 60.0
_KEEPER_SECONDS = 60.0  # to erase on a slow card, and hand over the receipt
_COURIER_SECONDS = 30.0  # to flush its outbox and leave
Say = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """How vision ended: its exit code (negative: a signal's number) and what it printed on stdout."""

    code: int
    printed: str


@dataclass
class CourierChild:
    """A courier that is started again when it crashes, but not for ever."""

    settings: CourierSettings
    say: Say
    _process: subprocess.Popen[bytes] | None = None
    _started: list[float] = field(default_factory=list)
    _given_up: bool = False

    def tend(self) -> None:
        """Start it, or start it again where it crashed; called again and again."""
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None and not self._again(self._process.returncode):
            return
        self._started.append(time.monotonic())
        self._process = courier.spawn(self.settings)

    def stop(self) -> None:
        """Let it flush and leave."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_COURIER_SECONDS)
        except subprocess.TimeoutExpired:
            self.say("the courier did not leave in time and is killed; its outbox keeps what it has")
            self._process.kill()
            self._process.wait()

    def _again(self, code: int) -> bool:
        if self._given_up:
            return False
        recent = [t for t in self._started if time.monotonic() - t < RESTART_SECONDS]
        self._given_up = len(recent) > RESTARTS
        self.say(f"the courier crashed {len(recent)} times (code {code}) and is not started again; alerts wait in "
                 "memory: see what it said, then start anew" if self._given_up
                 else f"the courier crashed (code {code}); starting it again")  # fmt: skip
        return not self._given_up


class Supervisor:
    """One run. `stop` may be called from a signal handler."""

    def __init__(self, config: UnitConfig, path: Path, say: Say, *, with_courier: bool = True) -> None:
        self._config, self._path, self._say = config, path, say
        self._courier = CourierChild(courier_settings(config), say) if with_courier else None
        self._keeper = keeper_of(config, say) if config.unit.order is not None else None
        self._vision: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()

    def run(self) -> Ended:
        """Until vision has ended, and what it left is done. Raises BluelampError where a part cannot start."""
        secret = _passphrase(self._config.unit.keys)
        if self._courier is not None:
            self._courier.tend()
        try:
            with self._desk():
                ended = self._watch(secret)
        finally:
            if self._keeper is not None:
                self._judge(self._keeper, 0.0)
            layout.figures_path(self._config).unlink(missing_ok=True)
            self._darken()
            if self._courier is not None:
                self._courier.stop()
        return ended

    def stop(self) -> None:
        """Ask vision to end; the rest follows."""
        self._stopping.set()
        if self._vision is not None and self._vision.poll() is None:
            self._vision.send_signal(signal.SIGTERM)

    @contextmanager
    def _desk(self) -> Iterator[None]:
        """The keeper serves its socket from a thread; what it is at is finished before anything else happens."""
        if self._keeper is None:
            yield
            return
        desk = Desk(self._keeper, Gate(layout.keeper_path(self._config), layout.socket_mode(self._config)))
        thread = threading.Thread(target=desk.serve, name="keeper", daemon=True)
        thread.start()
        try:
            yield
        finally:
            desk.stop()
            thread.join(_KEEPER_SECONDS)

    def _watch(self, secret: tuple[int, ...]) -> Ended:
        process = self._vision = _spawn(self._path, secret)
        if self._stopping.is_set():
            self.stop()
        printed: list[str] = []
        threads = [
            threading.Thread(target=lambda: printed.append(_all(process)), name="vision-out"),
            threading.Thread(target=_pass_on, args=(process,), name="vision-err"),
        ]
        for thread in threads:
            thread.start()
        judged = time.monotonic()
        while process.poll() is None:
            if self._courier is not None:
                self._courier.tend()
            if self._keeper is not None and time.monotonic() - judged > _JUDGE_SECONDS:
                judged = time.monotonic()
                self._judge(self._keeper)
            try:
                process.wait(_STEP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        for thread in threads:
            thread.join()
        return Ended(process.returncode, "".join(printed))

    def _darken(self) -> None:
        """A vision process that was killed left its lamp burning."""
        try:
            open_beacon(self._config.beacon, self._say)
        except BeaconError as error:
            self._say(str(error))

    def _judge(self, keeper: Keeper, grace: float | None = None) -> None:
        try:
            keeper.judge() if grace is None else keeper.judge(grace)
            keeper.hand_over()
        except (OSError, BluelampError) as error:
            self._say(f"keeper: {error}")


def summary_of(ended: Ended) -> dict[str, object]:
    """The summary vision printed. Raises BluelampError where it was killed before it could."""
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        raise BluelampError(f"vision was ended by {name}; nothing of it was kept: start again, and report what it said")
    found: dict[str, object] = json.loads(ended.printed) if ended.printed.strip() else {}
    return found


def _spawn(path: Path, secret: tuple[int, ...]) -> subprocess.Popen[str]:
    """Vision as a child. Its standard input stays open as long as we live (leash.py)."""
    command = [sys.executable, "-m", "appliance.cli", "vision", "--config", str(path), "--json", "--leash"]
    more = dict(sandbox.ALONE)
    if sys.stderr.isatty():
        more["FORCE_COLOR"] = "1"
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=secret,
        env={**os.environ, **more}, start_new_session=True,
    )  # fmt: skip


def _all(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read()


def _pass_on(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
        sys.stderr.flush()


def _passphrase(folder: Path) -> tuple[int, ...]:
    """Asked once at the terminal, where nothing else delivers it: an anonymous file for vision and keeper to read."""
    if not locker.locks(folder) or locker.is_delivered():
        return ()
    descriptor = os.memfd_create("passphrase", 0)
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, locker.passphrase().encode())
    os.environ["BLUELAMP_PASSPHRASE_FILE"] = f"/proc/self/fd/{descriptor}"
    return (descriptor,)

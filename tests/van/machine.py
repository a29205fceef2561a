"""A virtual van computer: QEMU with UEFI firmware, driven from outside by QMP and the serial console."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OVMF = Path("/usr/share/OVMF")
PROMPT = "bluelamp> "
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


class VanError(Exception):
    """The van did not do what was waited for; the text shows the end of its console."""


def accelerator(seconds: float = 12) -> str:
    """`kvm` where a machine with it shows its firmware's first line within `seconds`, else `tcg`."""
    if not Path("/dev/kvm").exists() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    command = [
        "qemu-system-x86_64",
        "-machine",
        "q35,accel=kvm",
        "-cpu",
        "host",
        "-m",
        "256",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-drive",
        f"if=pflash,unit=0,readonly=on,format=raw,file={OVMF / 'OVMF_CODE_4M.fd'}",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as trial:
        assert trial.stdout is not None
        os.set_blocking(trial.stdout.fileno(), False)
        deadline, seen = time.monotonic() + seconds, b""
        while time.monotonic() < deadline and trial.poll() is None and len(seen) < 40:
            seen += trial.stdout.read() or b""
            time.sleep(0.1)
        trial.kill()
    return "kvm" if len(seen) >= 40 else "tcg"


@dataclass
class Machine:
    """One van. Its folder holds the disk (an overlay over the image), firmware variables, TPM state and sockets."""

    folder: Path
    image: Path
    accel: str
    memory: int = 2048
    tpm: bool = True
    extra: tuple[str, ...] = ()
    rtc: str = "base=utc"
    cameras: tuple[Path, ...] = ()
    variables_from: Path = OVMF / "OVMF_VARS_4M.fd"
    process: subprocess.Popen[bytes] | None = None
    text: bytes = b""
    log: list[str] = field(default_factory=list)
    _swtpm: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """A fresh disk, and firmware with the variables of `variables_from`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.disk.exists():
            subprocess.run(
                [
                    "qemu-img",
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-F",
                    "raw",
                    "-b",
                    str(self.image.resolve()),
                    str(self.disk),
                    "8G",
                ],
                check=True,
            )
            shutil.copyfile(self.variables_from, self.variables)

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def variables(self) -> Path:
        return self.folder / "variables.fd"

    def start(self) -> None:
        """Switch on. The console's text so far is forgotten."""
        self.prepare()
        if self.tpm:
            self._start_tpm()
        self.text = b""
        with (self.folder / "qemu.log").open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.serial = _connected(self.folder / "serial.sock")
        self.serial.setblocking(False)
        self.qmp = Monitor(_connected(self.folder / "qmp.sock"))

    def _start_tpm(self) -> None:
        state = self.folder / "tpm"
        state.mkdir(exist_ok=True)
        self._swtpm = subprocess.Popen(
            [
                "swtpm",
                "socket",
                "--tpm2",
                "--tpmstate",
                f"dir={state}",
                "--ctrl",
                f"type=unixio,path={self.folder}/tpm.sock",
                "--flags",
                "not-need-init,startup-clear",
                "--terminate",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait(lambda: (self.folder / "tpm.sock").exists(), 10, "the software TPM")

    def _command(self) -> list[str]:
        folder = self.folder
        cpu = "host" if self.accel == "kvm" else "max"
        command = [
            "qemu-system-x86_64",
            "-machine",
            f"q35,accel={self.accel},smm=on",
            "-cpu",
            cpu,
            "-smp",
            "2",
            "-m",
            str(self.memory),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-rtc",
            self.rtc,
            "-global",
            "driver=cfi.pflash01,property=secure,value=on",
            "-global",
            "ICH9-LPC.disable_s3=1",
            "-drive",
            f"if=pflash,unit=0,readonly=on,format=raw,file={OVMF / 'OVMF_CODE_4M.secboot.fd'}",
            "-drive",
            f"if=pflash,unit=1,format=raw,file={self.variables}",
            "-drive",
            f"if=none,id=disk,format=qcow2,cache=writeback,file={self.disk}",
            "-device",
            "virtio-blk-pci,drive=disk",
            "-netdev",
            "user,id=net,restrict=off",
            "-device",
            "virtio-net-pci,netdev=net,id=nic,romfile=",
            "-device",
            "qemu-xhci,id=usb,p2=8,p3=8",
            "-device",
            "usb-kbd,bus=usb.0,id=keyboard",
            "-vga",
            "std",
            "-chardev",
            f"socket,id=console,path={folder}/serial.sock,server=on,wait=off",
            "-serial",
            "chardev:console",
            "-qmp",
            f"unix:{folder}/qmp.sock,server=on,wait=off",
        ]
        if self.tpm:
            command += [
                "-chardev",
                f"socket,id=tpm,path={folder}/tpm.sock",
                "-tpmdev",
                "emulator,id=tpm0,chardev=tpm",
                "-device",
                "tpm-crb,tpmdev=tpm0",
            ]
        return [*command, *self.extra]

    def plug_camera(self, number: int = 0) -> None:
        """Plug in one of `cameras`. QEMU gives a camera's line up when it is pulled out, so it is made anew each
        time.
        """
        line = f"line{number}-{time.monotonic_ns()}"
        address = {"type": "unix", "data": {"path": str(self.cameras[number])}}
        self.qmp("chardev-add", id=line, backend={"type": "socket", "data": {"addr": address, "server": False}})
        self.qmp("device_add", driver="usb-redir", chardev=line, bus="usb.0", id=f"eye{number}")

    def pull_camera(self, number: int = 0) -> None:
        """Pull it out."""
        self.qmp("device_del", id=f"eye{number}")

    def plug_stick(self, image: Path, name: str = "stick") -> None:
        """A USB stick with this file as its content."""
        self.qmp(
            "blockdev-add",
            **{"node-name": f"{name}-file", "driver": "raw", "file": {"driver": "file", "filename": str(image)}},
        )
        self.qmp("device_add", driver="usb-storage", bus="usb.0", id=name, drive=f"{name}-file", removable=True)

    def pull_stick(self, name: str = "stick") -> None:
        self.qmp("device_del", id=name)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(VanError):
                self.qmp("blockdev-del", **{"node-name": f"{name}-file"})
                return
            time.sleep(0.2)
        raise VanError(f"{name} was not released")

    def picture(self, out: Path) -> None:
        """The screen, as a PNG."""
        self.qmp("screendump", filename=str(out), format="png")

    def read(self) -> None:
        """Take what the console has said since."""
        with contextlib.suppress(BlockingIOError):
            while part := self.serial.recv(65536):
                self.text += ESCAPES.sub(b"", part)
                with (self.folder / "console.log").open("ab") as log:
                    log.write(part)

    def expect(self, pattern: str, seconds: float, since: int = 0) -> re.Match[str]:
        """Wait until the console's text from `since` on matches. Raises VanError."""
        deadline = time.monotonic() + seconds
        while True:
            self.read()
            text = self.text[since:].decode("utf-8", "replace")
            if found := re.search(pattern, text):
                return found
            if self.process is not None and self.process.poll() is not None:
                raise VanError(f"the machine is off while waiting for {pattern!r}\n{text[-1500:]}")
            if time.monotonic() > deadline:
                raise VanError(f"no {pattern!r} within {seconds:.0f} s\n{text[-3000:]}")
            time.sleep(0.05)

    def type(self, line: str) -> int:
        """Type a line. Returns where the console's text stands before the answer."""
        self.read()
        here = len(self.text)
        self.serial.sendall(line.encode() + b"\r")
        return here

    def command(self, word: str, seconds: float = 120, done: str = r"\(done, (-?\d+)\)") -> str:
        """A command of the field console; returns what it printed."""
        here = self.type(word)
        self.expect(done + r"[\s\S]*bluelamp> ", seconds, here)
        return self.text[here:].decode("utf-8", "replace")

    def off(self) -> None:
        """Pull the plug."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.read()
            self.process = None
        if self._swtpm is not None:
            self._swtpm.terminate()
            self._swtpm.wait(10)
            self._swtpm = None
        for name in ("serial.sock", "qmp.sock", "tpm.sock"):
            (self.folder / name).unlink(missing_ok=True)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.off()


class Monitor:
    """QMP: one command, one answer; events are kept."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.file = connection.makefile("rw")
        self.events: list[dict[str, Any]] = []
        self.file.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> Any:
        """Raises VanError with QEMU's own words."""
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while line := self.file.readline():
            answer = json.loads(line)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise VanError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]
        raise VanError(f"{command}: the machine is off")


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[Machine]:
    """A machine that is switched on, and off at the end."""
    machine.start()
    try:
        yield machine
    finally:
        machine.off()


def _connected(path: Path, seconds: float = 20) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise VanError(f"{path.name}: QEMU does not open it; see qemu.log") from None
            time.sleep(0.1)


def _wait(what: Any, seconds: float, name: str) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise VanError(f"{name} did not start")
        time.sleep(0.05)

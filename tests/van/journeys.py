"""What is done with a virtual van: the steps that several journeys share, and the longer journeys themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from machine import Machine, VanError
from office import UNIT, Office, read_stick, stick

Step = Callable[[str], None]
CONSOLE = r"Type help for the list of commands[\s\S]*bluelamp> "


def commission(machine: Machine, office: Office, step: Step) -> None:
    """A new disk becomes an admitted unit: site.toml in, request out, the base's answer in."""
    office.open()
    step("base, officer and control room have keys")
    office.listen()
    first = stick(office.folder / "first.img", (), {"site.toml": office.site()})
    machine.expect(CONSOLE, 600)
    step("field console")
    machine.plug_stick(first)
    machine.expect(r"read them this fingerprint:[\s\S]*?(\d{5} ){5}\d{5}", 300)
    step("request on the stick")
    time.sleep(2)
    machine.pull_stick()
    request = read_stick(first, f"{UNIT}.request.json", office.folder / "request.json")
    if request is None:
        raise VanError("the first stick came back without a request")
    office.answer = office.admit(request)


def deploy(machine: Machine, office: Office, step: Step, deployment: str = "VAN-1") -> None:
    """Admission, list and order on one stick; then the signs are confirmed, and vision scans."""
    files = office.order(deployment)
    step("list and order are signed")
    second = stick(office.folder / "second.img", [*office.answer, *files])
    machine.plug_stick(second)
    if office.answer:
        machine.expect(r"setup: admitted; roster version", 240)
        office.answer = []
        step("admitted")
    machine.expect(r"order\.json[^\n]*taken|taken[^\n]*order\.json", 240)
    machine.expect(
        r"Finished bluelamp-stick|bluelamp-stick@\w+\.service: Deactivated|watchlist[^\n]*taken|taken[^\n]*watchlist",
        120,
    )
    step("list and order taken from the stick")
    machine.pull_stick()
    arm(machine)
    step("armed")
    wait_scanning(machine)
    step("scanning")


def arm(machine: Machine, seconds: float = 240) -> None:
    """The checklist, sign by sign, as the field team answers it."""
    here = machine.type("arm")
    machine.expect("Your name", 60, here)
    here = machine.type("PC 1234")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = machine.expect(r"\[y/N\]: $|\(done, (-?\d+)\)", seconds, here)
        if found.group(1) is not None:
            if found.group(1) != "0":
                raise VanError("not armed:\n" + machine.text[here:].decode("utf-8", "replace")[-2500:])
            return
        here = machine.type("y")
    raise VanError("the checklist did not end")


def wait_scanning(machine: Machine, seconds: float = 240) -> None:
    """Until `status` says that the unit scans."""
    deadline = time.monotonic() + seconds
    while True:
        text = machine.command("status", 120)
        if "SCANNING" in text:
            return
        if time.monotonic() > deadline:
            raise VanError(f"it does not scan:\n{text[-1500:]}\n{machine.command('messages', 60)[-3000:]}")
        time.sleep(3)


def wait_for(machine: Machine, what: Callable[[], object], seconds: float, name: str) -> None:
    """Until something is true outside, while the console is read on."""
    deadline = time.monotonic() + seconds
    while not what():
        machine.read()
        if time.monotonic() > deadline:
            raise VanError(f"no {name} within {seconds:.0f} s\n{machine.command('messages', 60)[-3000:]}")
        time.sleep(0.2)


def run(name: str, folder: Path, image: Path, accel: str, say: Callable[[str], None]) -> int:
    """A longer journey by name, or all of them. Returns how many failed."""
    say("no longer journey is there yet")
    return 1

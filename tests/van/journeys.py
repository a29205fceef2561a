"""What is done with a virtual van: the steps that several journeys share, and the longer journeys themselves."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import bundles
from firmware import enrolled
from machine import Machine, VanError, running
from office import UNIT, Office, read_stick, stick

Step = Callable[[str], None]
CONSOLE = r"Type help for the list of commands[\s\S]*bluelamp> "


def commission(machine: Machine, office: Office, step: Step) -> None:
    """A new disk becomes an admitted unit: site.toml in, request out, the base's answer in."""
    office.open()
    step("base, officer and control room have keys")
    office.start_broker()
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
    office.listen()


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


@dataclass
class Journey:
    """What a longer journey works with. `rows`: step, seconds, tries, lost, as the table in docs/figures has them."""

    folder: Path
    image: Path
    accel: str
    say: Callable[[str], None]
    rows: list[tuple[str, float, int, int]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def step(self, name: str, tries: int = 1, lost: int = 0) -> None:
        """Note that a step was done, with the seconds since the journey began."""
        self.rows.append((name, round(time.monotonic() - self.began, 1), tries, lost))
        self.say(f"{self.rows[-1][1]:6.1f} s  {name}; tries {tries}, lost {lost}")

    def machine(self, **more: object) -> Machine:
        return Machine(self.folder / "van", self.image, self.accel, variables_from=enrolled(self.image), **more)  # type: ignore[arg-type]


def updates(journey: Journey) -> None:
    """A to B; before it a downgrade and a foreign signer; after it a version that cannot start."""
    others = list(journey.image.parent.glob("bundle*.raucb")) or [
        p for p in journey.image.parent.glob("bluelamp-unit-*-amd64.raucb") if p.stem != journey.image.stem
    ]
    if not others:
        raise VanError("no bundle of another version: make image ARGS='--version 0.2.0'")
    good = max(others)
    newer = bundles.version_of(good)
    sticks = {
        "downgrade": bundles.renamed(good, "0.0.9", journey.folder / "downgrade.raucb"),
        "foreign": bundles.foreign(good, journey.folder / "foreign.raucb"),
        "good": good,
        "broken": bundles.broken(good, "9.0.0", journey.folder / "broken.raucb"),
    }
    machine = journey.machine()
    with running(machine):
        machine.expect(CONSOLE, 600)
        machine.expect("healthy: this version stays", 300)
        journey.step("version A runs and is healthy")
        refused(machine, journey, sticks["downgrade"], r"U2: version 0\.0\.9 is older")
        journey.step("a downgrade is refused")
        refused(machine, journey, sticks["foreign"], r"signature|verif|self.signed|certificate")
        journey.step("a foreign signer is refused")
        text = install(machine, journey, sticks["good"])
        if "installed; it starts at the next restart" not in text:
            raise VanError(f"the update was not installed\n{text[-2000:]}")
        journey.step("version B is installed")
        restart(machine)
        expect_version(machine, newer)
        journey.step("version B runs and is healthy")
        text = install(machine, journey, sticks["broken"])
        if "installed; it starts at the next restart" not in text:
            raise VanError(f"the bad update was not installed\n{text[-2000:]}")
        journey.step("a version that cannot start is installed")
        restart(machine, 1500)
        expect_version(machine, newer)
        journey.step("version B runs again by itself", tries=3)


def install(machine: Machine, journey: Journey, bundle: Path) -> str:
    """Bring a bundle on a stick and type `update`. Returns what the console printed."""
    image = stick(journey.folder / "update.img", [bundle], megabytes=(bundle.stat().st_size >> 20) + 64)
    machine.plug_stick(image, "update")
    time.sleep(20 if machine.accel == "tcg" else 5)
    text = machine.command("update", 600)
    machine.pull_stick("update")
    image.unlink()
    return text


def refused(machine: Machine, journey: Journey, bundle: Path, why: str) -> None:
    """The bundle is not installed, and the console says why."""
    text = install(machine, journey, bundle)
    if "not installed; the running version stays" not in text or not re.search(why, text):
        raise VanError(f"{bundle.name} was not refused as it must be\n{text[-2000:]}")


def restart(machine: Machine, seconds: float = 600) -> None:
    """Type `restart`, wait for the next console."""
    here = machine.type("restart")
    machine.expect("y or n", 30, here)
    here = machine.type("y")
    machine.expect(CONSOLE, seconds, here)
    machine.expect("healthy: this version stays", 300, here)


def expect_version(machine: Machine, version: str) -> None:
    text = machine.command("version", 60)
    if f"version {version}" not in text:
        raise VanError(f"version {version} does not run\n{text}")


def cuts(journey: Journey, times: int = 4) -> None:
    """Pull the plug while the unit starts, at random moments; then it starts whole, and its state opens."""
    dice = random.Random(16)
    machine = journey.machine()
    for number in range(times):
        machine.start()
        time.sleep(dice.uniform(5, 110 if machine.accel == "tcg" else 25))
        machine.off()
        journey.step(f"power cut {number + 1}", tries=number + 1)
    with running(machine):
        machine.expect(CONSOLE, 600)
        machine.expect("healthy: this version stays", 300)
        journey.step("started whole after the power cuts", tries=times)


def passphrase(journey: Journey) -> None:
    """A machine without a TPM: the passphrase is typed twice at the first start, and once at the next."""
    machine = journey.machine(tpm=False)
    secret = "four blue lamps at night"
    with running(machine):
        for prompt in (r"New passphrase for its state[^\n]*: ?$", r"The same again: ?$"):
            machine.expect(prompt, 400)
            machine.type(secret)
        machine.expect(CONSOLE, 600)
        journey.step("first start with a passphrase")
        restart_asking(machine, secret)
        journey.step("next start with the passphrase")


def restart_asking(machine: Machine, secret: str) -> None:
    here = machine.type("restart")
    machine.expect("y or n", 30, here)
    here = machine.type("y")
    machine.expect(r"passphrase for disk[^\n]*$|Please enter passphrase[^\n]*$", 600, here)
    machine.type(secret)
    machine.expect(CONSOLE, 600, here)


JOURNEYS: dict[str, Callable[[Journey], None]] = {"updates": updates, "cuts": cuts, "passphrase": passphrase}


def run(name: str, folder: Path, image: Path, accel: str, say: Callable[[str], None]) -> int:
    """A longer journey by name, or all of them. Returns how many failed."""
    if name not in (*JOURNEYS, "all"):
        say(f"journeys: {', '.join(JOURNEYS)}, all")
        return 1
    failed = 0
    for one in JOURNEYS if name == "all" else [name]:
        part = folder / one
        part.mkdir(parents=True, exist_ok=True)
        journey = Journey(part, image, accel, say)
        try:
            JOURNEYS[one](journey)
        except VanError as error:
            say(f"{one}: {error}")
            failed += 1
        for row in journey.rows:
            print("{:50} {:8.1f} s  tries {}  lost {}".format(f"{one}: {row[0]}", *row[1:]), flush=True)
    return failed

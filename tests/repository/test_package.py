"""The Debian package on a bare Debian 12: installed, booted, armed, crashed, disarmed, removed; with its real systemd.

The machine is a minimal Debian (debootstrap, kept in .cache/) under an overlay in memory, run by systemd-nspawn without
a network. The units run as they are shipped: what is seen here is what their sandbox really allows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.formats import order
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
CACHE = ROOT / ".cache"
INCLUDE = "systemd,systemd-sysv,dbus,udev,python3,libseccomp2,libstdc++6,ca-certificates"
# Landlock is newer than what nspawn of Debian 12 lets through by itself; a real machine has no such bound.
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--rlimit=MEMLOCK=infinity",
          "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self")  # fmt: skip
CONFIG = """
[unit]
keys = "/var/lib/bluelamp/keys"
watchlist = "/var/lib/bluelamp/deployment/watchlist.blw"
order = "/var/lib/bluelamp/deployment/order.json"
state = "/var/lib/bluelamp/state"
courier = "/var/lib/bluelamp/courier"
run = "/run/bluelamp"
users = ["bluelamp-vision", "bluelamp-courier", "bluelamp-keeper"]
[[camera]]
name = "gate"
source = "/var/lib/bluelamp/street.mp4"
pace = "real"
[detect]
smallest_face = 36
[broker]
host = "127.0.0.1"
port = 8883
[sandbox]
require = ["no-new-privs", "limits", "no-dump", "landlock", "seccomp"]
"""


def sh(*command: object, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command on this machine."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, input=text, timeout=900)
    assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def debian() -> Path:
    """A minimal Debian 12; made once. Skips where it cannot be made or run."""
    if os.geteuid() != 0:
        pytest.skip("debootstrap and systemd-nspawn need root")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("Debian 12 has Python 3.11, and the package is built for the Python that builds it")
    for tool in ("debootstrap", "systemd-nspawn", "dpkg-deb", "strip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt install debootstrap systemd-container dpkg binutils")
    folder = CACHE / "debian-12"
    if not (folder / "etc" / "os-release").exists():
        CACHE.mkdir(exist_ok=True)
        fresh = CACHE / "debian-12.new"
        shutil.rmtree(fresh, ignore_errors=True)
        command = ("debootstrap", "--variant=minbase", f"--include={INCLUDE}", "bookworm", fresh)
        done = sh(*command, check=False)
        if done.returncode != 0:
            pytest.skip(f"debootstrap cannot run here: {(done.stdout + done.stderr).splitlines()[-1]}")
        fresh.rename(folder)
    return folder


def build(out: Path) -> Path:
    """The package of this tree, as of one moment."""
    done = sh("env", "SOURCE_DATE_EPOCH=1790000000", sys.executable, ROOT / "packaging" / "build.py", "--out", out)
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def package(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from this tree."""
    out = tmp_path_factory.mktemp("dist")
    return build(out)


class Machine:
    """A Debian of its own, on which commands run one by one, or which boots."""

    def __init__(self, root: Path, package: Path) -> None:
        self.root, self.package = root, package
        self._leader: str | None = None

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on it: in the booted machine, else with nothing else running."""
        if self._leader is not None:
            return sh(
                "nsenter", "-t", self._leader, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", *command, check=check
            )
        settings = (f"--setenv={name}={value}" for name, value in environment.items())
        bound = f"--bind-ro={self.package}:/package.deb"
        return sh(*NSPAWN, "--pipe", bound, *settings, "-D", self.root, *command, check=check)

    def install(self) -> None:
        """Install the package."""
        self.run("dpkg", "--force-unsafe-io", "--install", "/package.deb")

    def files(self) -> set[str]:
        """Every path on it, but for what running programs makes by itself."""
        found = self.run("find", "/", "-xdev", "-not", "-path", "/proc/*", "-not", "-path", "/run/*").stdout
        return set(found.splitlines())

    @contextmanager
    def booted(self, log: Path) -> Iterator[None]:
        """Boot it, and switch it off at the end."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*NSPAWN, "--boot", "-D", self.root], stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
            try:
                self._leader = self._wait_for_leader(process)
                self.wait("multi-user.target", "active", 60)
                yield
            finally:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                self._leader = None

    def _wait_for_leader(self, process: subprocess.Popen[bytes]) -> str:
        def child() -> str:
            return sh("pgrep", "-P", process.pid, check=False).stdout.strip()

        eventually(lambda: child() != "" or process.poll() is not None, 30)
        if process.poll() is not None:
            pytest.skip("systemd-nspawn cannot boot a machine here")
        return child().splitlines()[0]

    def state(self, unit: str) -> str:
        """active, inactive, activating, failed."""
        return self.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def wait(self, unit: str, state: str, seconds: float = 60) -> None:
        """Wait until a unit is in a state; what it said is told where it does not get there."""
        try:
            eventually(lambda: self.state(unit) == state, seconds)
        except AssertionError as error:
            raise AssertionError(f"{unit} is {self.state(unit)}, not {state}:\n{self.log(unit)}") from error

    def restarts(self, unit: str) -> int:
        """How often systemd started a unit again."""
        return int(self.run("systemctl", "show", "--property=NRestarts", "--value", unit).stdout)

    def log(self, unit: str) -> str:
        """What a unit said."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit, check=False).stdout


def eventually(what: Callable[[], object], seconds: float) -> None:
    """Wait until `what` is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


@pytest.fixture
def machine(debian: Path, package: Path, tmp_path: Path) -> Iterator[Machine]:
    """A bare Debian, whose changes live in memory and die with the test."""
    memory, root = tmp_path / "memory", tmp_path / "machine"
    memory.mkdir()
    root.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=3g,mode=755", "tmpfs", memory)
    try:
        (memory / "upper").mkdir(mode=0o755)
        (memory / "work").mkdir()
        layers = f"lowerdir={debian},upperdir={memory / 'upper'},workdir={memory / 'work'}"
        sh("mount", "-t", "overlay", "-o", layers, "overlay", root)
        yield Machine(root, package)
        sh("umount", "-l", root)
    finally:
        sh("umount", "-l", memory)


def test_the_package_installs_verifies_and_goes_without_a_trace(machine: Machine) -> None:
    before = machine.files()
    machine.install()
    assert "disarm" in machine.run("bluelamp-unit", "--help").stdout
    assert machine.run("bluelamp-unit", "models", "verify").stdout.count("whole; golden check") == 3
    # The two commands that look through cameras run with other groups than the rest; nothing is admitted here yet.
    assert "STOP" in machine.run("bluelamp-unit", "check", check=False).stdout
    assert "--minutes" in machine.run("bluelamp-unit", "view", "--help").stdout
    units = [p.name for p in (ROOT / "systemd" / "units").iterdir() if "@" not in p.name]
    assert machine.run("sh", "-c", f"systemd-analyze verify {' '.join(units)} 2>&1").stdout == ""
    enabled = machine.run("find", "/etc/systemd", "-name", "bluelamp*").stdout
    assert enabled == ""  # whoever installs it decides when the unit starts with power
    owners = machine.run("stat", "--format=%n %U:%G %a", *sorted(OWNERS)).stdout.splitlines()
    assert dict(line.split(" ", 1) for line in owners) == OWNERS
    (machine.root / "var/lib/bluelamp/state/armed.json").touch()
    refused = machine.run("dpkg", "--remove", "bluelamp-unit", check=False)
    assert refused.returncode != 0
    assert "a deployment is armed; first run: bluelamp-unit disarm" in refused.stderr
    (machine.root / "var/lib/bluelamp/state/armed.json").unlink()
    machine.run("dpkg", "--remove", "bluelamp-unit")
    assert not (machine.root / "opt").exists() or not list((machine.root / "opt").iterdir())
    machine.run("dpkg", "--purge", "bluelamp-unit")
    left = {p for p in machine.files() - before if not re.match(KEPT, p)}
    assert left == set()


# Debian keeps a removed package's users: files of theirs could otherwise become somebody else's.
KEPT = (
    r"/etc/(passwd|group|shadow|gshadow)-?$|/etc/\.pwd\.lock$|/var/(lib/dpkg|log)/|/root(/|$)|/(package\.deb|etc/mtab)$"
)
OWNERS = {
    "/etc/bluelamp/unit.toml": "root:bluelamp 640",
    "/etc/sudoers.d/bluelamp": "root:root 440",
    "/opt/bluelamp/lib/appliance/cli.py": "root:root 644",
    "/usr/bin/bluelamp-unit": "root:root 755",
    "/var/lib/bluelamp/courier": "bluelamp-courier:bluelamp 2750",
    "/var/lib/bluelamp/deployment": "bluelamp-keeper:bluelamp 2750",
    "/var/lib/bluelamp/keys": "bluelamp-keeper:bluelamp 2750",
    "/var/lib/bluelamp/state": "bluelamp-keeper:bluelamp 2750",
    "/var/lib/bluelamp/upload": "root:bluelamp-upload 3770",
}


def test_purging_never_takes_the_keys_and_the_log_along_silently(machine: Machine) -> None:
    """Who the unit is, and the proof of what it erased, stay until somebody says otherwise."""
    machine.install()
    keys = "/var/lib/bluelamp/keys"
    machine.run("bluelamp-unit", "keys", "request", keys, "--name", "van-07")
    signing = machine.run("stat", "--format=%U:%G %a", f"{keys}/signing.pem").stdout.strip()
    assert signing == "bluelamp-keeper:bluelamp 640"  # vision reads it, the keeper alone destroys it
    purged = machine.run("dpkg", "--purge", "bluelamp-unit")
    assert "kept: /var/lib/bluelamp/keys (the unit's identity)" in purged.stderr
    assert (machine.root / "var/lib/bluelamp/keys/signing.pem").exists()
    assert not (machine.root / "var/lib/bluelamp/deployment").exists()
    machine.install()
    machine.run("dpkg", "--purge", "bluelamp-unit", BLUELAMP_PURGE_KEYS="yes")
    assert not (machine.root / "var/lib/bluelamp").exists()


def test_the_same_tree_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (package, build(tmp_path))]
    assert digests[0] == digests[1]


@pytest.fixture
def issued(tmp_path: Path) -> Path:
    """A base with the demo's people enrolled, and two authorities."""
    base = tmp_path / "base"
    provision("keys", "init", base)
    sh(sys.executable, "-m", "control.cli", "keys", "request", tmp_path / "room", "--name", "control-1")
    provision("keys", "admit", base, tmp_path / "room" / "request.json", "--out", tmp_path / "room.json")
    provision("keys", "authority", tmp_path / "officer", "--name", "officer")
    answered = tmp_path / "officer.json"
    provision("keys", "admit", base, tmp_path / "officer" / "request.json", "--out", answered)
    provision("keys", "install", tmp_path / "officer", answered)
    provision("keys", "quorum", base, 2)
    said = {
        "category": "wanted-on-warrant", "source": "portrait", "lawful_basis": "a warrant", "rationale": "rehearsal",
        "image_date": "2026-01-01", "reviewer": "you", "expiry": "2099-12-31",
    }  # fmt: skip
    options = (word for name, value in said.items() for word in ("--set", f"{name}={value}"))
    provision("enrol", base, ROOT / "demo" / "assets" / "watchlist.csv", *options)
    return tmp_path


def provision(*command: object) -> None:
    """A technician's command, at the base."""
    done = subprocess.run([sys.executable, "-m", "provisioning.cli", *map(str, command)], cwd=ROOT, input="y\n" * 9,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def deliver(machine: Machine, base: Path, out: Path) -> None:
    """Admit the unit, issue list and order, and put all of it into its upload folder."""
    upload = machine.root / "var/lib/bluelamp/upload"
    keys = "/var/lib/bluelamp/keys"
    machine.run("bluelamp-unit", "keys", "request", keys, "--name", "van-07")
    provision("keys", "admit", base, machine.root / f"{keys[1:]}/request.json", "--out", upload / "admission.json")
    (upload / "admission.json").chmod(0o644)
    machine.run("bluelamp-unit", "keys", "admit", keys, "/var/lib/bluelamp/upload/admission.json", "--yes")
    provision("preflight", base, "--footfall", 500, "--fpir", "1/2000", "--out", out / "looked")
    looked = out / "looked" / "preflight.json"
    provision("issue", base, "--unit", "van-07", "--deployment", "D-1", "--from", "now", "--until", "+1h",
              "--preflight", looked, "--out", out / "issued")  # fmt: skip
    template = sh(sys.executable, "-m", "provisioning.cli", "order", "template").stdout
    (out / "order.toml").write_text(template)
    provision("order", "draft", base, "--deployment", "D-1", "--details", out / "order.toml", "--preflight", looked,
              "--report", ROOT / "models/lamp-embedder/report/report.json", "--out", out / "order")  # fmt: skip
    for signer in ("base", "officer"):
        provision("order", "sign", out / "order" / "order.json", "--keys", out / signer)
    for path in [base / "roster.json", *sorted((out / "order").glob("*.json")), *(out / "issued").iterdir()]:
        shutil.copyfile(path, upload / path.name)


def test_a_booted_unit_arms_scans_survives_a_crash_and_forgets(machine: Machine, issued: Path) -> None:
    """From power on to erasure, through the services alone: nothing but `arm` and `disarm` is typed."""
    machine.install()
    (machine.root / "etc/bluelamp/unit.toml").write_text(CONFIG)
    shutil.copyfile(ROOT / "demo" / "assets" / "street.mp4", machine.root / "var/lib/bluelamp/street.mp4")
    machine.run("systemctl", "enable", "bluelamp.target")
    with machine.booted(issued / "boot.log"):
        assert (machine.state("bluelamp.target"), machine.state("bluelamp-vision")) == ("active", "inactive")
        assert machine.state("bluelamp-courier") == "inactive"  # no certificate yet: skipped, not failed
        deliver(machine, issued / "base", issued)
        machine.run("systemctl", "restart", "bluelamp.target")  # the certificate is there now
        listed = machine.root / "var/lib/bluelamp/deployment/watchlist.blw"
        eventually(listed.exists, 90)  # the path unit saw the upload
        machine.wait("bluelamp-courier", "active", 30)
        confirmations = dict.fromkeys(order.SIGNAGE, "PC 1")
        (machine.root / "var/lib/bluelamp/confirmed.json").write_text(json.dumps(confirmations))
        machine.run("bluelamp-unit", "arm", "--yes", "/var/lib/bluelamp/confirmed.json")
        machine.wait("bluelamp-vision", "active", 60)
        check_confinement(machine)
        machine.run("systemctl", "kill", "--signal=KILL", "bluelamp-vision")
        eventually(lambda: machine.state("bluelamp-vision") != "active", 10)
        machine.wait("bluelamp-vision", "active", 60)
        eventually(lambda: alerts(machine) > 0, 60)
        restarts = machine.restarts("bluelamp-vision")
        machine.run("systemctl", "kill", "--signal=STOP", "bluelamp-vision")  # it turns no more, as with a stuck camera
        eventually(lambda: machine.restarts("bluelamp-vision") > restarts, 60)
        assert "Watchdog timeout" in machine.log("bluelamp-vision")
        machine.wait("bluelamp-vision", "active", 60)
        machine.run("bluelamp-unit", "disarm")
        machine.wait("bluelamp-vision", "inactive", 30)
        assert not listed.exists()
        state = machine.root / "var/lib/bluelamp/state"
        assert (state / "receipts" / "D-1.json").exists()
        assert not (state / "armed.json").exists()
        assert len(list((machine.root / "var/lib/bluelamp/keys/sealing").iterdir())) == 31
        assert machine.run("find", "/var/lib/systemd/coredump", "/var/crash", check=False).stdout in (
            "",
            "/var/lib/systemd/coredump\n",
        )
        machine.run("systemctl", "restart", "bluelamp.target")
        assert machine.state("bluelamp-vision") == "inactive"  # nothing is armed, nothing scans


def check_confinement(machine: Machine) -> None:
    """What the running vision process really has, as the kernel tells it."""
    process = machine.run("systemctl", "show", "--property=MainPID", "--value", "bluelamp-vision").stdout.strip()
    status = machine.run("cat", f"/proc/{process}/status").stdout
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
        assert line in status, line
    assert "VmSwap:\t       0 kB" in status
    limits = machine.run("cat", f"/proc/{process}/limits").stdout
    assert re.search(r"Max core file size +0 +0 ", limits)
    assert re.search(r"Max file size +0 +0 ", limits)
    inside = ("nsenter", "-t", process, "-m", "-n", "--")
    assert [
        line.split(":")[0].strip() for line in machine.run(*inside, "cat", "/proc/net/dev").stdout.splitlines()[2:]
    ] == ["lo"]
    for folder in ("/var/lib/bluelamp/state", "/var/lib/bluelamp/keys", "/run/bluelamp", "/etc", "/opt/bluelamp"):
        assert "Read-only file system" in machine.run(*inside, "touch", f"{folder}/x", check=False).stderr, folder
    if sh("prlimit", "--memlock=unlimited", "true", check=False).returncode == 0:
        assert "no memory-lock" not in machine.log("bluelamp-vision")  # else nobody here may raise that limit


def alerts(machine: Machine) -> int:
    """Sealed containers that wait with the courier, as it tells the keeper's user; there is no broker here."""
    ask = (
        "from pathlib import Path; from appliance.sockets.running import ask_courier; "
        "answer = ask_courier(Path('/run/bluelamp/courier.sock')); print(answer.queued if answer else 0)"
    )
    keeper = ("setpriv", "--reuid=bluelamp-keeper", "--regid=bluelamp-keeper", "--init-groups")
    python = ("env", "PYTHONPATH=/opt/bluelamp/lib", "python3", "-B", "-c", ask)
    return int(machine.run(*keeper, *python).stdout)

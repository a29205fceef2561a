"""Finding, fetching and running mosquitto with the configuration the project ships (`control/broker/mosquitto/`)."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from appliance.command_line import run_app
from appliance.errors import BluelampError
from appliance.transport.mqtt import ROOT, BrokerAddress

_HERE = Path(__file__).parent / "mosquitto"
_START_SECONDS = 15.0


class BrokerError(BluelampError):
    """mosquitto cannot be found, fetched or started."""

    exit_code = 10


@dataclass(frozen=True)
class BrokerFiles:
    """What a broker needs: the clients' authority, and its own certificate and key."""

    ca: Path
    certificate: Path
    key: Path
    crl: Path | None = None

    @classmethod
    def of(cls, folder: Path) -> BrokerFiles:
        """`ca.crt`, `server.crt`, `server.key` and, where there is one, `crl.pem` of a folder. Raises BrokerError.

        `bluelamp-provision keys broker` makes such a folder.
        """
        files = cls(*(folder / name for name in ("ca.crt", "server.crt", "server.key")))
        for path in (files.ca, files.certificate, files.key):
            if not path.exists():
                raise BrokerError(
                    f"{path}: missing; make the broker's files at the base: bluelamp-provision keys broker"
                )
        return cls(files.ca, files.certificate, files.key, crl if (crl := folder / "crl.pem").exists() else None)


@dataclass(frozen=True)
class Mosquitto:
    """The program, and the folders of its libraries where it was unpacked instead of installed."""

    program: Path
    libraries: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """The environment to start it in."""
        paths = [str(p) for p in self.libraries] + [p for p in [os.environ.get("LD_LIBRARY_PATH", "")] if p]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)} if paths else dict(os.environ)


def find_mosquitto(cache: Path | None = None, *, fetch: bool = True) -> Mosquitto:
    """mosquitto from the system, else from the cache, else by apt. Raises BrokerError."""
    cache = cache or _cache() / "mosquitto"
    found = _installed() or _unpacked(cache)
    if found is None and fetch:
        found = (_install() if os.geteuid() == 0 else None) or _unpack(cache)
    if found is None:
        raise BrokerError("mosquitto is not here; install it: apt-get install mosquitto")
    return found


def render_acl(controls: Iterable[str]) -> str:
    """The access list for these control rooms (names of their certificates)."""
    shipped = (_HERE / "acl").read_text().split("user control\n")[0]
    return shipped + "\n".join(
        f"user {name}\ntopic read {ROOT}/#\ntopic write {ROOT}/+/recall\n" for name in sorted(set(controls))
    )


def render_config(files: BrokerFiles, address: BrokerAddress, folder: Path) -> str:
    """The shipped configuration with this broker's own paths and port; `folder` keeps its access list and queue."""
    own = {
        "listener": f"{address.port} {address.host}",
        "cafile": files.ca.absolute(),
        "certfile": files.certificate.absolute(),
        "keyfile": files.key.absolute(),
        "acl_file": folder / "acl",
        "persistence_location": f"{folder}/",
    }
    if files.crl is not None:
        own["crlfile"] = files.crl.absolute()
    shipped = (_HERE / "mosquitto.conf").read_text().splitlines()
    lines = [_own_line(line, own) for line in shipped if files.crl is not None or not line.startswith("crlfile")]
    return "\n".join([*lines, f"user {getpass.getuser()}", ""])


def _own_line(line: str, own: dict[str, object]) -> str:
    key = line.partition(" ")[0]
    return f"{key} {own[key]}" if key in own else line


class Broker:
    """A running mosquitto. Its queue and sessions live in `folder` and survive `kill` and `start`."""

    def __init__(self, files: BrokerFiles, controls: Iterable[str], folder: Path, address: BrokerAddress) -> None:
        self.address = address
        self._mosquitto = find_mosquitto()
        self._files, self._folder = files, folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.allow(controls)

    @property
    def log(self) -> str:
        """What mosquitto said so far."""
        path = self._folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def allow(self, controls: Iterable[str], acl: str | None = None) -> None:
        """Write the access list; a running broker reads it after `reload`."""
        path = self._folder / "acl"
        path.write_text(render_acl(controls) if acl is None else acl)
        path.chmod(0o600)

    def start(self) -> None:
        """Start and wait until it listens. Raises BrokerError with mosquitto's own words."""
        config = self._folder / "mosquitto.conf"
        config.write_text(render_config(self._files, self.address, self._folder))
        command = [str(self._mosquitto.program), "-c", str(config)]
        said = len(self.log)
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._mosquitto.environment(), start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        # It listens before it has its signal handlers; a signal in between would end it. "running" comes after both.
        while " running" not in self.log[said:] or not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = " | ".join(self.log[said:].splitlines()[-3:])
                self.stop()
                raise BrokerError(f"mosquitto did not start on {self.address}: {words or 'no message'}")
            time.sleep(0.02)

    def reload(self) -> None:
        """Read the access list again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill -9, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address.host, self.address.port), 1).close()
        except OSError:
            return False
        return True


@contextmanager
def running_broker(
    files: BrokerFiles, controls: Iterable[str], *, host: str = "127.0.0.1", port: int = 0, folder: Path | None = None
) -> Iterator[Broker]:
    """A broker for the length of a `with`. Port 0 takes a free one; without `folder` its queue is thrown away."""
    with tempfile.TemporaryDirectory(prefix="bluelamp-broker-") as temporary:
        address = BrokerAddress(host=host, port=port or free_port(host))
        broker = Broker(files, controls, folder or Path(temporary), address)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _installed() -> Mosquitto | None:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/sbin")
    return Mosquitto(Path(found)) if found else None


def _unpacked(cache: Path) -> Mosquitto | None:
    program = cache / "root/usr/sbin/mosquitto"
    if not program.exists():
        return None
    libraries = {p.parent for p in (cache / "root").rglob("*.so*")}
    return Mosquitto(program, tuple(sorted(libraries)))


def _cache() -> Path:
    """The project's cache in a checkout, the user's where the project is installed."""
    checkout = Path(__file__).resolve().parents[2]
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bluelamp"
    return checkout / ".cache" if (checkout / "pyproject.toml").exists() else home


def _install() -> Mosquitto | None:
    """As root: apt."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "mosquitto"]
    for command in (install, ["apt-get", "update", "-q"], install):
        if shutil.which("apt-get") is None or _installed():
            break
        subprocess.run(command, env=environment, capture_output=True, check=False)
    return _installed()


def _unpack(cache: Path) -> Mosquitto | None:
    """Without root: Debian's packages, unpacked where we may write."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return None
    cache.mkdir(parents=True, exist_ok=True)
    plan = _apt(["install", "-s", "--no-install-recommends", "mosquitto"], cache)
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    # Nothing to install: it is on the system already, and so are its libraries.
    _apt(["download", *(names or ["mosquitto"])], cache)
    for package in sorted(cache.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(cache / "root")], check=True, capture_output=True)
    return _unpacked(cache)


def _apt(arguments: list[str], cache: Path) -> str:
    # As root apt drops to a user of its own, who may not write here.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *arguments]
    done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BrokerError(f"mosquitto cannot be fetched ({said}); ask an administrator for: apt-get install mosquitto")
    return done.stdout


app = typer.Typer(help="mosquitto with the project's configuration.", no_args_is_help=True, add_completion=False)


@app.command()
def run(
    files: Path = typer.Option(..., help="Folder that 'bluelamp-provision keys broker' made."),
    control: list[str] = typer.Option(..., help="Name of a control room that may read; repeat for several."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(8883, help="Port to listen on."),
    state: Path | None = typer.Option(None, help="Folder that keeps queues over restarts; else they are thrown away."),
) -> None:
    """Run a broker in the foreground until Ctrl-C. Fetches mosquitto where it is not installed."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with running_broker(BrokerFiles.of(files), control, host=host, port=port, folder=state) as broker:
        typer.echo(f"broker listens on {broker.address}; Ctrl-C ends it")
        while not stopped.wait(0.5):
            if not broker.running:
                raise BrokerError(f"mosquitto ended by itself: {' | '.join(broker.log.splitlines()[-3:])}")


@app.command()
def acl(control: list[str] = typer.Option(..., help="Name of a control room; repeat for several.")) -> None:
    """Print the access list for these control rooms."""
    typer.echo(render_acl(control), nl=False)


@app.command()
def find() -> None:
    """Find or fetch mosquitto and print where it is."""
    typer.echo(str(find_mosquitto().program))


if __name__ == "__main__":
    run_app(app)

"""Shared fixtures: machines with real keys and certificates, a real broker, and a maker of sealed alerts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from securesystemslib.signer import CryptoSigner

from appliance.courier.settings import CourierSettings
from appliance.identifiers import uuid7
from appliance.records import Alert, Header, Health, Models, StageTimes
from appliance.storage.files import write_private
from appliance.transport.mqtt import BrokerAddress
from appliance.transport.tls import TlsFiles
from appliance.trust import keys, seal
from control.broker.broker import Broker, BrokerError, BrokerFiles, find_mosquitto, free_port, running_broker

UNIT, CONTROL, DEPLOYMENT = "van-1", "control-1", "d-1"


def tls_of(folder: Path) -> TlsFiles:
    """The three TLS files of a folder."""
    return TlsFiles(ca=folder / "ca.crt", certificate=folder / "tls.crt", key=folder / "tls.key")


@dataclass
class Machines:
    """One authority, units, a control room and a broker's certificate, all of one base."""

    root: Path
    ca: trustme.CA = field(default_factory=trustme.CA)
    folders: dict[str, Path] = field(default_factory=dict)

    def certify(self, folder: Path, name: str, *hosts: str, not_after: datetime | None = None) -> None:
        """TLS files for `name` in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        issued = self.ca.issue_cert(*(hosts or (name,)), common_name=name, not_after=not_after)
        self.ca.cert_pem.write_to_path(folder / "ca.crt")
        issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        write_private(folder / "tls.key", issued.private_key_pem.bytes())

    @property
    def broker(self) -> BrokerFiles:
        """The broker's files."""
        return BrokerFiles.of(self.folders["broker"])

    def tls(self, name: str) -> TlsFiles:
        """A machine's TLS files."""
        return tls_of(self.folders[name])

    def keys(self, name: str) -> keys.KeyFolder:
        """A machine's opened key folder."""
        return keys.load(self.folders[name])


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Machines:
    """Two units, one stranger who is not on the roster, one control room, one broker."""
    made = Machines(tmp_path_factory.mktemp("machines"))
    identities: dict[str, keys.Identity] = {}
    for role, name in (
        ("authority", "base"),
        ("unit", UNIT),
        ("unit", "van-2"),
        ("unit", "van-x"),
        ("control", CONTROL),
    ):
        made.folders[name] = folder = made.root / name
        identities[name] = keys.create(folder, role, name)  # type: ignore[arg-type]
        made.certify(folder, name)
    made.folders["broker"] = folder = made.root / "broker"
    made.certify(folder, "broker", "127.0.0.1", "localhost")
    (folder / "tls.crt").rename(folder / "server.crt")
    (folder / "tls.key").rename(folder / "server.key")
    authority = CryptoSigner(keys.load_signing(made.folders["base"] / "signing.pem"))
    roster = keys.Roster(
        version=1, made=time.time(), authorities=(identities["base"],), units=(identities[UNIT], identities["van-2"]),
        controls=(identities[CONTROL],),
    )  # fmt: skip
    for folder in made.folders.values():
        (folder / "roster.json").write_bytes(keys.sign_roster(roster, authority))
        (folder / "authorities.json").write_text(json.dumps([identities["base"].signing]))
    return made


class AlertMaker:
    """Seals alerts of one unit as its sealer would, chained."""

    def __init__(self, machines: Machines, unit: str = UNIT, deployment: str = DEPLOYMENT) -> None:
        self.folder = machines.keys(unit)
        self.recipient, _ = machines.keys(CONTROL).control()
        self.unit, self.deployment = unit, deployment
        self.chain, self.sequence, self.previous = uuid7(), 0, "0" * 64

    def alert(self, *, lifetime: float = 86400.0, size: int = 0, **changes: object) -> bytes:
        """The next alert; `changes` replace fields of the record, `size` pads it with a pretended chip."""
        now = time.time()
        fields: dict[str, object] = {
            "alert_id": uuid7(now), "unit": self.unit, "deployment": self.deployment, "camera": "front",
            "captured": now, "decided": now, "observed": now, "frame": 1, "reference_identifier": "R-1",
            "category": "test", "score": 0.7, "threshold": 0.5, "quality": 0.8, "interocular": 40.0, "frames": 9,
            "track_seconds": 1.0,
            "models": Models(detector="0" * 64, embedder="1" * 64), "watchlist": "2" * 64, "chain": self.chain,
            "sequence": self.sequence + 1, "previous": self.previous, "chip": "A" * size if size else None,
        }  # fmt: skip
        fields = {name: value for name, value in {**fields, **changes}.items() if name in Alert.model_fields}
        alert = Alert.model_validate(fields)
        blob = self.seal("alert", alert.alert_id, alert.model_dump_json().encode(), now, lifetime, alert)
        self.sequence, self.previous = alert.sequence, hashlib.sha256(blob).hexdigest()
        return blob

    def health(self, **changes: object) -> bytes:
        """A health report."""
        now = time.time()
        health = Health(
            unit=self.unit, deployment=self.deployment, time=now, uptime=1.0, state="armed", cameras=(), faces=0,
            tracks=0, probes=0, alerts=0, queued=0, stages=StageTimes(), resident_bytes=1, watchlist_entries=1,
            watchlist_recall=1.0,
        ).model_copy(update=changes)  # fmt: skip
        return self.seal("health", uuid7(now), health.model_dump_json().encode(), now, 60.0)

    def seal(
        self, kind: str, identifier: str, plaintext: bytes, now: float, lifetime: float, alert: Alert | None = None
    ) -> bytes:
        """Seal anything in this unit's name."""
        header = Header.model_validate(
            {
                "kind": kind, "id": identifier, "unit": self.unit, "deployment": self.deployment, "created": now,
                "expires": now + lifetime, "sender": self.folder.signer.public_key.keyid,
                "recipient": self.recipient.id,
                "chain": alert.chain if alert else "", "sequence": alert.sequence if alert else 0,
            }
        )  # fmt: skip
        return seal.seal(header, plaintext, self.recipient.public(), [self.folder.signer])


@pytest.fixture
def maker(machines: Machines) -> AlertMaker:
    """Seals alerts of the first unit."""
    return AlertMaker(machines)


@pytest.fixture(scope="session")
def mosquitto() -> None:
    """mosquitto is here, or can be fetched; else the test is skipped."""
    try:
        find_mosquitto()
    except BrokerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_broker(machines: Machines, mosquitto: None) -> Iterator[Broker]:
    """One broker for all tests that leave it alone."""
    with running_broker(machines.broker, [CONTROL]) as broker:
        yield broker


@pytest.fixture
def broker(machines: Machines, mosquitto: None, tmp_path: Path) -> Iterator[Broker]:
    """A broker for tests that kill it, or whose queue must be empty."""
    own = Broker(machines.broker, [CONTROL], tmp_path / "broker", BrokerAddress(host="127.0.0.1", port=free_port()))
    own.start()
    yield own
    own.stop()


@pytest.fixture
def settings(machines: Machines, tmp_path: Path) -> Callable[[BrokerAddress], CourierSettings]:
    """Settings of a courier of the first unit, its files in the test's own folder."""

    def make(address: BrokerAddress, **changes: object) -> CourierSettings:
        return CourierSettings(
            unit=UNIT, broker=address, tls=machines.tls(UNIT), socket=tmp_path / "run" / "courier.sock",
            outbox=tmp_path / "outbox" / "outbox.sqlite", flush_seconds=6.0, settle_seconds=0.3,
        ).model_copy(update=changes)  # fmt: skip

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def eventually(what: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until `what` is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def in_past() -> datetime:
    """A moment that is over."""
    return datetime.now(timezone.utc) - timedelta(days=1)

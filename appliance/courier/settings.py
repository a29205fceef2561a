"""What the courier needs to know: paths, the broker, and no key that opens or signs anything but TLS."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from appliance.config import UnitConfig
from appliance.courier.forward import SETTLE
from appliance.deployment.layout import socket_mode, socket_path, uids
from appliance.limits import LIMITS
from appliance.records import Record
from appliance.transport import tls
from appliance.transport.mqtt import BrokerAddress
from appliance.transport.tls import TlsFiles, common_name


class CourierSettings(Record):
    """Everything the courier needs to know. It takes the three TLS files, not the key folder."""

    unit: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    broker: BrokerAddress
    tls: tls.TlsFiles
    socket: Path
    outbox: Path
    recall: Path | None = None  # where a recall that arrives is laid down for vision to judge
    outbox_rows: int = Field(default=LIMITS.outbox_rows, ge=1, le=LIMITS.outbox_rows)
    vision_uids: tuple[int, ...] = ()  # besides our own; where vision and courier are two system users
    socket_mode: int = Field(default=0o600, ge=0o600, le=0o660)
    flush_seconds: float = Field(default=6.0, ge=0, le=300)
    settle_seconds: float = Field(default=SETTLE, ge=0, le=300)


def courier_settings(config: UnitConfig) -> CourierSettings:
    """What the courier needs: paths and the broker, no key that opens or signs anything but TLS."""
    files = _tls_files(config.unit.keys)
    return CourierSettings(
        unit=common_name(files), tls=files, broker=BrokerAddress(host=config.broker.host, port=config.broker.port),
        socket=socket_path(config), outbox=config.unit.courier_folder / "outbox.sqlite",
        recall=config.unit.courier_folder / "recall.json", vision_uids=tuple(uids(config.unit.users)),
        socket_mode=socket_mode(config),
    )  # fmt: skip


def _tls_files(folder: Path) -> TlsFiles:
    """The courier's three TLS files: from its systemd credentials where all are delivered, else the key folder."""
    delivered = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    names = ("ca.crt", "tls.crt", "tls.key")
    source = delivered if all((delivered / name).is_file() for name in names) else folder
    return TlsFiles(ca=source / names[0], certificate=source / names[1], key=source / names[2])

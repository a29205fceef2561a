"""`python -m demo.attest`: the privacy test of the demo deployment, with a real broker and a control room.

The base makes a canary kit of the demo's street, the unit attests with it, and the control room's opened alerts are
searched as well. Run it as root, and on an idle machine: it looks through every file that changes meanwhile.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from appliance import config as configs
from appliance.attest import cli as attest_cli
from appliance.attest import kit as attest_kit
from appliance.attest import run as attest
from appliance.attest.record import Attestation, short_digest
from appliance.command_line import complain
from appliance.errors import BluelampError
from appliance.recognition import packs
from appliance.storage.files import write_public
from appliance.trust import keys
from control.broker.broker import BrokerFiles, running_broker
from demo import rehearsal
from demo.rehearsal import CONTROL, HOST, UNIT, Inbox, Rehearsal
from demo.run import ASSETS
from provisioning.lists import canary
from provisioning.lists.canary import Wanted

_ARRIVAL_SECONDS = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write attestation.json, attestation.html and roster.json; 0 where nothing was found that must not be there."""
    parser = argparse.ArgumentParser(prog="python -m demo.attest", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("attestation"), help="folder for the three files")
    out = parser.parse_args(arguments).out
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="bluelamp-attest-") as temporary:
            record, blob, roster = made(Path(temporary), out, console)
        write_public(out / "roster.json", roster)
        console.print(f"{out / 'attestation.html'}: {short_digest(blob)}, {record.ended - record.started:.0f} s")
        attest_cli.judge(record)
    except BluelampError as error:
        complain(str(error))
        return error.exit_code
    return 0


def made(folder: Path, out: Path, console: Console) -> tuple[Attestation, bytes, bytes]:
    """The attestation of a fresh unit in `folder`, its signed bytes, and the roster that names the unit."""
    console.print("the base makes keys and a canary kit")
    prepared = rehearsal.prepare(folder)
    make_kit(prepared, folder / "kit")
    record = run(prepared, folder / "kit", lambda step, words: console.print(f"[b]{step}[/] {words}"))
    unit = keys.load(prepared.unit_keys)
    blob = attest_cli.write(record, unit, out / "attestation.json")
    return record, blob, (prepared.base.folder / "roster.json").read_bytes()


def make_kit(prepared: Rehearsal, out: Path, clip: Path = ASSETS / "street.mp4") -> attest_kit.Kit:
    """A kit of the demo's portraits for the rehearsal's unit."""
    detector, embedder = packs.load(prepared.detector), packs.load(prepared.embedder)
    return canary.make(prepared.base, UNIT, Wanted(clip, ASSETS / "watchlist.csv", detector, embedder), out)


def run(prepared: Rehearsal, kit: Path, say: attest.Say, more: Sequence[Path] = ()) -> Attestation:
    """Attest with a broker and a control room around the unit."""
    files = BrokerFiles.of(prepared.folder / "broker")
    with (
        running_broker(files, [CONTROL], host=HOST) as broker,
        rehearsal.listening(prepared, broker.address, lambda one: None) as inbox,
    ):
        config = prepared.folder / "unit" / "unit.toml"
        config.write_text(rehearsal.unit_toml(prepared, Path("/dev/video0"), broker.address.port, "fast"))
        opened = attest_kit.open_kit(kit, keys.load(prepared.unit_keys), time.time())
        return attest.attest(configs.load(config), opened, say, more=more, witness=lambda: _opened(inbox))


def _opened(inbox: Inbox) -> list[bytes]:
    """Everything in the alerts that the control room opened: the records, and their pictures."""
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while not inbox.opened and time.monotonic() < deadline:
        time.sleep(0.05)
    alerts = [one.alert for one in inbox.opened if one.alert is not None]
    pictures = [base64.b64decode(alert.chip or "") for alert in alerts]
    return [*(alert.model_dump_json().encode() for alert in alerts), *pictures]


if __name__ == "__main__":
    sys.exit(main())

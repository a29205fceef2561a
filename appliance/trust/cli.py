"""`keys` of unit and control room: make keys, ask to belong, install the answer. The base has its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance.errors import KeyFileError
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded, read_record
from appliance.trust import admission, keys, locker

Folder = Annotated[Path, typer.Argument(help="The key folder of this machine.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_out = Console(soft_wrap=True, highlight=False)


def keys_app(role: keys.MachineRole) -> typer.Typer:
    """The sub-commands for machines of this role, to be mounted as `keys`."""
    app = typer.Typer(no_args_is_help=True, help=f"Make this {role}'s keys, ask the base for admission, install it.")

    @app.command()
    def request(
        folder: Folder,
        name: Annotated[str, typer.Option(help="This machine's name: a-z, 0-9 and -. Its MQTT topics are under it.")],
        out: Annotated[Path | None, typer.Option(help="Where to write the request.")] = None,
        passphrase: Annotated[bool, typer.Option(help="Lock new private keys under a passphrase.")] = False,
    ) -> None:
        """Make the keys (once), top up deployment keys, and write the request for the base. Private keys stay here."""
        secret = locker.passphrase() if passphrase else None
        path = admission.make_request(folder, role, name, out, secret=secret)
        identity = read_record(folder / "identity.json", keys.Identity)
        _out.print(f"{path}: bring it to the base, and read this fingerprint to them:")
        _out.print(f"  {keys.fingerprint(identity.signing_key().keyid)}", style="bold")

    @app.command()
    def admit(
        folder: Folder,
        answer: Annotated[Path, typer.Argument(help="admission.json, as the base wrote it.")],
        fingerprint: Annotated[str | None, typer.Option(help="The base's fingerprint, as it was read aloud.")] = None,
        yes: Annotated[bool, typer.Option(help="The fingerprint was compared already.")] = False,
    ) -> None:
        """Check and install the base's answer: certificate, CA, authorities, roster."""
        blob = read_bounded(answer, LIMITS.config_bytes)
        first = not (folder / "authorities.json").exists()
        if first and fingerprint is None and not yes:
            _ask(blob)
        roster = admission.admit(folder, blob, fingerprint)
        _out.print(f"admitted; roster version {roster.version}, {len(roster.authority_keys())} authorities")

    @app.command()
    def roster(folder: Folder, file: Annotated[Path, typer.Argument(help="A newer roster.json.")]) -> None:
        """Install a newer roster: new machines, new authorities, revoked keys."""
        installed = admission.update_roster(folder, read_bounded(file, LIMITS.config_bytes))
        _out.print(f"roster version {installed.version} installed")

    app.command("fingerprint")(show_fingerprints)
    app.command("lock")(lock_folder)
    return app


def show_fingerprints(folder: Folder, as_json: Json = False) -> None:
    """The fingerprints of this machine and of the authorities it trusts, to read aloud."""
    identity = read_record(folder / "identity.json", keys.Identity)
    rows = [(identity.role, identity.name, keys.fingerprint(identity.signing_key().keyid))]
    if (folder / "roster.json").exists():
        roster = keys.load_roster(folder)
        known = {a.signing_key().keyid: a.name for a in roster.authorities}
        rows += [("authority", known.get(k.keyid, "?"), keys.fingerprint(k.keyid)) for k in roster.authority_keys()]
    if as_json:
        print(json.dumps([{"role": r, "name": n, "fingerprint": f} for r, n, f in dict.fromkeys(rows)]))
        return
    table = Table("role", "name", "fingerprint")
    for row in dict.fromkeys(rows):
        table.add_row(*row)
    _out.print(table)


def lock_folder(folder: Folder) -> None:
    """Put the private keys under a passphrase (Argon2id); commands then ask for it, or take a systemd credential."""
    count = admission.lock(folder, locker.passphrase("New passphrase: "))
    _out.print(f"{count} private keys locked")


def _ask(blob: bytes) -> None:
    _out.print("This file pins the following authorities. Ask the base to read theirs aloud and compare every digit:")
    for text in admission.authority_fingerprints(blob):
        _out.print(f"  {text}", style="bold")
    if not typer.confirm("Are they the same?", default=False):
        raise KeyFileError("not admitted: the fingerprints differ, or were not compared")

"""`bluelamp-provision keys`: the authority, its certificate authority, who belongs to the system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance.limits import LIMITS
from appliance.storage.files import read_bounded, write_public
from appliance.trust import admission, keys, locker
from appliance.trust.cli import lock_folder, show_fingerprints
from provisioning.authority import authority
from provisioning.base import open_base

app = typer.Typer(no_args_is_help=True, help="Authority, certificates, and who belongs to the system.")
BaseFolder = Annotated[Path, typer.Argument(help="The base folder.", metavar="BASE")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_out = Console(soft_wrap=True, highlight=False)


@app.command()
def init(
    folder: BaseFolder,
    name: Annotated[str, typer.Option(help="Name of this authority.")] = "base",
    passphrase: Annotated[bool, typer.Option(help="Lock the private keys under a passphrase (Argon2id).")] = False,
) -> None:
    """Make the base: issuing authority, certificate authority, policy, encrypted store."""
    base = authority.init(folder, name, secret=locker.passphrase() if passphrase else None)
    _out.print(f"{folder}: ready. Read policy.toml there. Fingerprint, to read to every machine you admit:")
    _out.print(f"  {keys.fingerprint(base.keys.identity.signing_key().keyid)}", style="bold")


@app.command("authority")
def second_authority(
    folder: Annotated[Path, typer.Argument(help="A new folder, on the officer's own medium.")],
    name: Annotated[str, typer.Option(help="Name of the authorising officer's key.")],
    passphrase: Annotated[bool, typer.Option(help="Lock the private key under a passphrase.")] = False,
) -> None:
    """Make the key of another authority, who signs orders beside the base; then admit its request."""
    path = admission.make_request(folder, "authority", name, secret=locker.passphrase() if passphrase else None)
    _out.print(f"{path}: bring it to the base: bluelamp-provision keys admit BASE {path}")


@app.command()
def admit(
    folder: BaseFolder,
    request: Annotated[Path, typer.Argument(help="request.json of a unit, control room or authority.")],
    out: Annotated[Path, typer.Option(help="The answer, to bring back to the machine.")] = Path("admission.json"),
    replace: Annotated[bool, typer.Option(help="The name's present key is replaced and revoked.")] = False,
) -> None:
    """Let a machine or an authority belong: certificate signed, roster raised."""
    blob = read_bounded(request, LIMITS.config_bytes)
    asked = admission.read_request(blob).identity
    write_public(out, authority.admit(open_base(folder), blob, replace=replace))
    _out.print(f"{asked.role} {asked.name} admitted: bring {out} to it. Compare its fingerprint:")
    _out.print(f"  {keys.fingerprint(asked.signing_key().keyid)}", style="bold")


@app.command("install")
def install(
    folder: Annotated[Path, typer.Argument(help="The folder of another authority.")],
    answer: Annotated[Path, typer.Argument(help="admission.json.")],
) -> None:
    """Install the base's answer in another authority's folder."""
    roster = admission.admit(folder, answer)
    _out.print(f"installed; roster version {roster.version}")


@app.command()
def broker(
    folder: BaseFolder,
    host: Annotated[list[str], typer.Option(help="Host name or address of the broker; repeat for several.")],
    out: Annotated[Path, typer.Option(help="Folder for server.crt, server.key, ca.crt, crl.pem.")],
) -> None:
    """The broker's server certificate."""
    authority.broker_certificate(open_base(folder), host, out)
    _out.print(f"{out}: server.crt, server.key, ca.crt, crl.pem")


@app.command()
def revoke(folder: BaseFolder, name: Annotated[str, typer.Argument(help="Machine or authority.")]) -> None:
    """Trust a key no more: new roster for everybody, new revocation list for the broker."""
    roster = authority.revoke(open_base(folder), name)
    _out.print(f"{name} revoked. Bring {folder}/roster.json (version {roster.version}) to every machine, and "
               f"{folder}/crl.pem to the broker")  # fmt: skip


@app.command()
def rotate(folder: BaseFolder) -> None:
    """Replace this base's signing key; every machine needs the new roster next."""
    base = authority.rotate(open_base(folder))
    _out.print(
        f"new key; bring {folder}/roster.json (version {base.keys.roster.version}) to every machine. Fingerprint:"
    )
    _out.print(f"  {keys.fingerprint(base.keys.identity.signing_key().keyid)}", style="bold")


@app.command()
def quorum(folder: BaseFolder, signatures: Annotated[int, typer.Argument(help="Signatures an order needs.")]) -> None:
    """How many authorities must sign a deployment order."""
    roster = authority.set_quorum(open_base(folder), signatures)
    _out.print(f"orders need {signatures} signature(s) from roster version {roster.version} on")


@app.command()
def show(folder: BaseFolder, as_json: Json = False) -> None:
    """Everybody on the roster, with fingerprints."""
    roster = keys.load(folder).roster
    everybody = (*roster.authorities, *roster.units, *roster.controls)
    rows = [(i.role, i.name, keys.fingerprint(i.signing_key().keyid), len(i.sealing),
             "revoked" if i.signing_key().keyid in roster.revoked else "") for i in everybody]  # fmt: skip
    if as_json:
        names = ("role", "name", "fingerprint", "sealing_keys", "state")
        print(json.dumps({"version": roster.version, "quorum": roster.quorum,
                          "machines": [dict(zip(names, r, strict=True)) for r in rows]}))  # fmt: skip
        return
    table = Table(
        "role", "name", "fingerprint", "sealing keys", "", title=f"roster {roster.version}, quorum {roster.quorum}"
    )
    for row in rows:
        table.add_row(*(str(c) for c in row))
    _out.print(table)


app.command("fingerprint")(show_fingerprints)
app.command("lock")(lock_folder)

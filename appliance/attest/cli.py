"""`bluelamp-unit attest`: prove that this unit keeps nothing, and check such a proof."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from securesystemslib.dsse import Envelope as DsseEnvelope

from appliance import config as configs
from appliance.attest import kit as attest_kit
from appliance.attest import page as attest_page
from appliance.attest import record as attest_record
from appliance.attest.record import Attestation, AttestError, short_digest
from appliance.errors import SealError
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded, write_public
from appliance.times import utc
from appliance.trust import envelope, keys

_out, _err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)
Config = Annotated[Path, typer.Option("--config", "-c", help="The unit's configuration (TOML).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class _RunFirst(typer.core.TyperGroup):
    """`attest KIT` is `attest run KIT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command's name where there is one."""
        named = not args or args[0] in (*self.commands, "--help")
        return list(super().parse_args(ctx, args if named else ["run", *args]))


def run(
    kit: Annotated[Path, typer.Argument(help="The kit's folder, made by: bluelamp-provision canary", metavar="KIT")],
    config: Config = Path("unit.toml"),
    out: Annotated[Path, typer.Option(help="The signed record; the page goes beside it, .html.")] = Path(
        "attestation.json"
    ),
    also: Annotated[list[Path] | None, typer.Option(help="One more folder to search; repeat.")] = None,
    derive: Annotated[bool, typer.Option(help="Make the kit's needles again on this machine first.")] = False,
    as_json: Json = False,
) -> None:
    """Run the kit's recording through this unit and search everything for the faces in it. Takes about two minutes.

    Searched: files that changed, outbox, messages, journal, local socket, network, memory of the courier, swap, core
    files after a forced crash, and, told apart, vision's own memory. Run it as root, disarmed, on an idle unit. Exit
    code 13 where something was found that must not be there, or the search could not be shown to work.
    """
    from appliance.attest import run as attest  # heavy, and nobody else's: the models' runtimes
    from appliance.attest.rederive import rederived

    settings = configs.load(config)
    folder = keys.load(settings.unit.keys)
    opened = attest_kit.open_kit(kit, folder, time.time())
    with _bar() as bar:
        task = bar.add_task("", total=attest.STEPS)
        if derive:
            bar.update(task, description="needles are made on this machine")
            opened = rederived(opened, settings, folder)
        record = attest.attest(
            settings, opened, lambda step, words: bar.update(task, completed=step, description=words), more=also or ()
        )
        bar.update(task, completed=attest.STEPS, description="done")
    blob = write(record, folder, out)
    if as_json:
        print(json.dumps({"passed": record.passed, "digest": short_digest(blob), "faults": record.faults}))
    else:
        _out.print(f"{out} and {out.with_suffix('.html')}: for the sign on the van: {short_digest(blob)}", markup=False)
    judge(record)


def verify(
    file: Annotated[Path, typer.Argument(help="attestation.json")],
    roster: Annotated[Path, typer.Option(help="The base's roster.json.")],
    authority: Annotated[
        str | None, typer.Option(help="The base's fingerprint as it published it; else it is shown, to compare.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that the unit itself signed an attestation, and show what it says."""
    known, fingerprints = trusted_roster(read_bounded(roster, LIMITS.config_bytes), authority)
    blob = read_bounded(file, LIMITS.config_bytes)
    record = attest_record.read(blob, known)
    if as_json:
        print(json.dumps({"passed": record.passed, "digest": short_digest(blob), "authority": fingerprints,
                          **record.model_dump()}))  # fmt: skip
    else:
        words = "the unit kept nothing" if record.passed else "it did not pass"
        _out.print(f"{short_digest(blob)}: signed by unit {record.unit}, {utc(record.ended)}: {words}", markup=False)
        if authority is None:
            shown = "; ".join(fingerprints)
            _out.print(f"the roster is by the authority {shown}: compare it with what the base published", markup=False)
    judge(record)


def trusted_roster(blob: bytes, authority: str | None) -> tuple[keys.Roster, list[str]]:
    """A roster signed by an authority that it names, and those authorities' fingerprints. Raises SealError.

    Without a published fingerprint this only shows that the roster is whole; who made it is for the reader to compare.
    """
    try:
        named = keys.Roster.model_validate_json(DsseEnvelope.from_dict(json.loads(blob)).payload)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SealError("not a roster of a base; get roster.json from it") from error
    by = [a.signing_key() for a in named.authorities]
    if authority is not None:
        by = [k for k in by if keys.fingerprint(k.keyid).split() == authority.split()]
        if not by:
            raise SealError("the roster is of another authority than the fingerprint given")
    return keys.verify_roster(blob, by), [keys.fingerprint(k.keyid) for k in by]


def write(record: Attestation, folder: keys.KeyFolder, out: Path) -> bytes:
    """Sign a record with the unit's key, write it and its page; returns the signed bytes."""
    blob = envelope.sign(record, attest_record.KIND, folder.signer)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_public(out, blob)
    write_public(out.with_suffix(".html"), attest_page.page(record, blob).encode())
    return blob


def judge(record: Attestation) -> None:
    """Raises AttestError where the attestation does not show non-retention."""
    if record.faults:
        raise AttestError("this attestation does not show that nothing is kept: " + "; ".join(record.faults))


def _bar() -> Progress:
    columns: Sequence[TextColumn | BarColumn | TimeElapsedColumn] = (
        TextColumn("{task.completed:.0f}/{task.total:.0f}"), BarColumn(), TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    return Progress(*columns, console=_err)


def mount(app: typer.Typer) -> None:
    """Add `attest` to the unit's command line."""
    group = typer.Typer(cls=_RunFirst, no_args_is_help=True, help="Prove that this unit keeps nothing.")
    group.command("run")(run)
    group.command("verify")(verify)
    app.add_typer(group, name="attest")

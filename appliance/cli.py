"""`bluelamp-unit`: the commands of the field team's machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from appliance import config as configs
from appliance.attest import cli as attest_cli
from appliance.check import cli as check_cli
from appliance.command_line import run_app
from appliance.confine import sandbox
from appliance.deployment import cli as field_cli
from appliance.intake import cli as intake_cli
from appliance.recognition import adopt as adopting
from appliance.recognition import fetch, golden, packs
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.services import cli as processes_cli
from appliance.status import cli as status_cli
from appliance.transport.mqtt import BrokerAddress
from appliance.trust.cli import keys_app
from appliance.view import cli as view_cli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="""
The unit on the van: cameras in, sealed alerts out, nothing else.

First use: `keys` makes this unit's keys and a request; the base answers with an admission, which `admit` installs;
the base issues a watchlist sealed to this unit; `config` writes a commented configuration; `run` scans.

Exit codes: 0 done, 1 failed, 2 config or usage, 3 camera, clip or beacon, 4 model pack, 5 seal, order or watchlist,
6 keys, 7 courier or keeper, 13 attestation.
""",
)
models_app = typer.Typer(no_args_is_help=True, help="Model packs: which are here, are they whole, get larger ones.")
app.add_typer(keys_app("unit"), name="keys")
app.add_typer(models_app, name="models")
field_cli.mount(app)
intake_cli.mount(app)
processes_cli.mount(app)
check_cli.mount(app)
view_cli.mount(app)
status_cli.mount(app)
attest_cli.mount(app)
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The unit's configuration (TOML).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
_out, _err = Console(), Console(stderr=True, soft_wrap=True, highlight=False)


@app.command("config")
def config_command(
    camera: Annotated[str, typer.Option(help="The first camera's source.")] = "/dev/video0",
    smallest_face: Annotated[int, typer.Option(help="Width in camera pixels of the smallest face to compare.")] = 40,
    broker: Annotated[str, typer.Option(help="HOST:PORT of the broker.")] = "control.example:8883",
) -> None:
    """Print a commented configuration to start from: bluelamp-unit config > unit.toml"""
    address = BrokerAddress.parse(broker)
    sys.stdout.write(configs.example(camera, smallest_face, address.host, address.port))


@models_app.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """The built-in packs, and those that can be fetched."""
    rows = [_described(packs.load(p.parent)) for p in sorted(packs.BUILT_IN.glob("*/pack.toml"))]
    rows += [
        {"name": p.name, "role": "", "version": "", "runtime": "", "megabytes": round(p.size / 1e6, 2), "here": "fetch"}
        for p in fetch.pins().values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("pack", "role", "version", "runtime", "MB", "")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "role", "version", "runtime", "megabytes", "here")))
    _out.print(table)


@models_app.command("verify")
def models_verify(
    pack: Annotated[list[str] | None, typer.Argument(help="Names or folders; all built-in packs if none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file's digest, and that this machine computes the golden output."""
    names = pack or [p.parent.name for p in sorted(packs.BUILT_IN.glob("*/pack.toml"))]
    results = {name: _verified(packs.load(name)) for name in names}
    if as_json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        _out.print(f"{name}: whole; golden check {value:.4f}")


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="A pinned pack: yunet or sface.")],
    into: Annotated[Path, typer.Option(help="Folder for the pack.")] = Path("packs"),
    url: Annotated[str | None, typer.Option(help="A mirror to use instead; the digest stays the pinned one.")] = None,
) -> None:
    """Download a larger pack from its origin. Goes on where it stopped; refuses all but the pinned bytes."""
    pins = fetch.pins()
    if name not in pins:
        raise typer.BadParameter(f"no pinned pack {name!r}; there are: {', '.join(pins)}")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_err) as progress:
        task = progress.add_task(name, total=pins[name].size)
        pack = fetch.fetch(pins[name], into / name, lambda done, size: progress.update(task, completed=done), url)
    _out.print(f"{pack.folder}: installed; name this folder in the config under [models]", soft_wrap=True)


@models_app.command("adopt")
def models_adopt(
    model: Annotated[Path, typer.Argument(help="An ONNX embedder: one square colour picture in, one vector out.")],
    landmarks: Annotated[str, typer.Option(help="How its chips are aligned: arcface or dlib.")],
    pixels: Annotated[str, typer.Option(help="What it reads: 0..255, 0..1 or -1..1.")],
    licence: Annotated[str, typer.Option(help="Of the weights.")],
    origin: Annotated[str, typer.Option(help="Where the file is from.")],
    terms: Annotated[str, typer.Option(help="What it may be used for.")],
    into: Annotated[Path, typer.Option(help="New folder for the pack.")],
    colour: Annotated[str, typer.Option(help="rgb or bgr.")] = "rgb",
) -> None:
    """Make a pack of any ONNX embedder, with its golden output. Then calibrate it: no order arms it before."""
    for value, known, option in (
        (landmarks, ("arcface", "dlib"), "--landmarks"),
        (pixels, ("0..255", "0..1", "-1..1"), "--pixels"),
        (colour, ("rgb", "bgr"), "--colour"),
    ):
        if value not in known:
            raise typer.BadParameter(f"{value}: not one of {', '.join(known)}", param_hint=option)
    words = adopting.Words(into.name.lower(), licence, origin, terms)
    pack = adopting.adopt(model, into, words, cast(Any, landmarks), cast(Any, pixels), cast(Any, colour))
    _out.print(f"{pack.folder}: a pack of {pack.embedder.length} numbers. Next: bluelamp-provision evaluate "
               f"--embedder {pack.folder} calibrate, then install", soft_wrap=True)  # fmt: skip


def _described(pack: packs.Pack) -> dict[str, object]:
    size = sum((pack.folder / f.path).stat().st_size for f in pack.manifest.files)
    manifest = pack.manifest
    return {
        "name": manifest.name, "role": manifest.role, "version": manifest.version, "runtime": manifest.runtime,
        "megabytes": round(size / 1e6, 2), "here": "built in", "digest": pack.digest, "terms": manifest.terms,
    }  # fmt: skip


def _verified(pack: packs.Pack) -> float:
    packs.verify(pack)
    if pack.manifest.role == "embedder":
        return golden.check_embedder(pack, Embedder(pack))
    return golden.check_detector(pack, Detector(pack))


def main() -> None:
    """Entry point: an expected failure is one red line and its own exit code."""
    if sys.argv[1:2] in (["vision"], ["view"]):
        sandbox.start_alone()
    run_app(app)


if __name__ == "__main__":
    main()

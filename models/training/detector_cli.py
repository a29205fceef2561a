"""``python -m models.training detector``: train, export, measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from models.training.sources import REPOSITORY, cache_folder

app = typer.Typer(help="The face detector with five landmarks.", no_args_is_help=True, add_completion=False)
Folder = Annotated[Path | None, typer.Option("--folder", help="Where shards, checkpoint and curves are kept.")]


def _folder(folder: Path | None) -> Path:
    return folder or cache_folder() / "detector"


@app.command()
def train(
    folder: Folder = None,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 1,
    shards: Annotated[int, typer.Option(help="How many shards of 256 scenes to make and learn from.")] = 150,
    replay: Annotated[int, typer.Option(help="How often each scene is seen, degraded anew.")] = 3,
    scenes: Annotated[int, typer.Option(help="Scenes a shard.")] = 256,
    makers: Annotated[int, typer.Option(help="Processes that compose scenes; 0: the training does it itself.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads that torch may use.")] = 2,
    start: Annotated[
        Path | None, typer.Option(help="An int8 file of the detector to start from, in place of random weights.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Greatest learning rate.")] = 2e-3,
) -> None:
    """Train, or go on with, the detector; a GPU is used where there is one."""
    from models.training.detector_train import Plan
    from models.training.detector_train import train as run

    plan = Plan(seed=seed, shards=shards, replay=replay, scenes=scenes, makers=makers, threads=threads,
                start=None if start is None else str(start), rate=rate)  # fmt: skip
    typer.echo(f"checkpoint: {run(plan, _folder(folder))}")


@app.command()
def export(
    folder: Folder = None,
    pack: Annotated[Path, typer.Option(help="The pack's folder.")] = REPOSITORY / "models" / "lamp-detector",
    kind: Annotated[str, typer.Option(help="int8, float16 or float32.")] = "int8",
) -> None:
    """Write the pack from the checkpoint: a TFLite file for each size, manifest, golden input and output."""
    from models.training.detector_export import export as run

    run(_folder(folder) / "checkpoint.pt", pack, kind)
    typer.echo(f"pack: {pack}")


@app.command()
def measure(
    source: Annotated[Path, typer.Option(help="A pack's folder, or a checkpoint (.pt): that is run in float.")] = (
        REPOSITORY / "models" / "lamp-detector"
    ),
    share: Annotated[int, typer.Option(help="Take every n-th held-out picture.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure against YuNet on held-out photographs, scenes and clips: recall, false faces, landmarks."""
    from models.training.detector_measure import measure as run

    figures = run(source, share)
    typer.echo(json.dumps(figures, indent=1) if as_json else as_table(figures))


@app.command()
def turns(
    source: Annotated[Path, typer.Option(help="A pack's folder, or a checkpoint (.pt): that is run in float.")] = (
        REPOSITORY / "models" / "lamp-detector"
    ),
    embedder: Annotated[str, typer.Option(help="Embedder pack, calibrated.")] = "lamp-embedder",
    yunet: Annotated[bool, typer.Option("--yunet", help="Measure YuNet itself instead.")] = False,
    photographs: Annotated[int, typer.Option(help="Held-out photographs, one an identity.")] = 140,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what is left of a face when the head tilts by up to 60 degrees: found, landmarks, template."""
    from models.training.detector_labels import YuNet
    from models.training.detector_measure import finder, yunet_faces
    from models.training.detector_turns import measure_turns, unit_template

    teacher = YuNet() if yunet else None
    find = finder(source) if teacher is None else (lambda picture: yunet_faces(teacher, picture))
    template, threshold = unit_template(embedder)
    found = measure_turns(find, template, threshold, photographs)
    figures: dict[str, Any] = {"threshold": threshold, **{f"{angle:g}": row for angle, row in found.items()}}
    typer.echo(json.dumps(figures, indent=1) if as_json else as_table(figures))


def as_table(figures: dict[str, Any]) -> str:
    """The figures as text, one line each, nested names joined by dots."""
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += [f"{name}.{line}" for line in as_table(value).splitlines()]
        else:
            lines.append(f"{name} = {value:.4f}" if isinstance(value, float) else f"{name} = {value}")
    return "\n".join(lines)


@app.command()
def card(
    figures: Annotated[Path, typer.Option(help="Of the pack, from `detector measure --json`.")],
    floats: Annotated[Path, typer.Option(help="Of the checkpoint, from `detector measure --source ... --json`.")],
    times: Annotated[Path, typer.Option(help="From `python -m benchmarks.detector --json`.")],
    turned: Annotated[Path, typer.Option(help="From `detector turns --json`.")],
    yunet: Annotated[Path, typer.Option(help="From `detector turns --yunet --json`.")],
    folder: Folder = None,
    pack: Annotated[Path, typer.Option(help="The pack's folder.")] = REPOSITORY / "models" / "lamp-detector",
) -> None:
    """Write the pack's card and plots from measured figures."""
    from models.training.detector_card import Measured, write_card

    measured = Measured(*(json.loads(file.read_text()) for file in (figures, times, floats, turned, yunet)))
    write_card(measured, _folder(folder) / "curves.csv", pack)

"""``python -m models.training detector``: train, export, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.training.sources import cache_folder

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
) -> None:
    """Train, or go on with, the detector; a GPU is used where there is one."""
    from models.training.detector_train import Plan
    from models.training.detector_train import train as run

    plan = Plan(seed=seed, shards=shards, replay=replay, scenes=scenes, makers=makers, threads=threads)
    typer.echo(f"checkpoint: {run(plan, _folder(folder))}")

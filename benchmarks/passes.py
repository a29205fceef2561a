"""TPIR for each pass at 1 in 6,000 with 10,000 references: composed walkers, with one reference photograph and three.

    python -m benchmarks.passes --embedder mobilefacenet-arcface --detector yunet
    python -m benchmarks.passes --json > passes.json        what `evaluate --passes` puts into a report

Stills of held-out identities walk over a 1080p street (benchmarks/composer.py); detection, tracking, extraction and the
rules of an alert are the unit's own. Thresholds are those of the pack's calibration record. The clip and all templates
stay in `.cache/evaluation`: they are of the photographs, and are deleted with them.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from appliance.command_line import run_app
from benchmarks.composer import Deployment, Plan, compose
from provisioning.evaluation import cli, figures, table
from provisioning.evaluation.dataset import Dataset, Still
from provisioning.evaluation.embeddings import CACHE, embed
from provisioning.evaluation.passes import frames_of, lists, run

BORDER = 0.3  # replicated around a distractor's photograph, which its face fills
NOTE = (
    "Composed: each pass is one photograph of a held-out identity, growing from 30 to 140 pixels over a drawn street "
    "at 1080p, with blur, dimming, compression, people crossing in front, and some heads tilted by up to 45 degrees. "
    "Frames of one photograph: easier than a street."
)


def main(
    embedder: Annotated[str, typer.Option(help="Embedder pack, as `evaluate` takes it.")] = "lamp-embedder",
    detector: Annotated[str, typer.Option(help="Detector pack, likewise.")] = "lamp-detector",
    passes: Annotated[int, typer.Option(help="People who walk by.")] = 240,
    mated: Annotated[float, typer.Option(help="Share of them that is on the list.")] = 0.4,
    references: Annotated[int, typer.Option(help="Length of the list.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 5,
    tilted: Annotated[float, typer.Option(help="Share of heads tilted by up to 45 degrees.")] = 0.3,
    threads: Annotated[int, typer.Option(help="Threads of the models.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON.")] = False,
) -> None:
    """Compose, search, count; prints a table, or JSON."""
    plan = Plan(passes, mated, references, seed, at_once=8, references_each=3, tilted_share=tilted)
    deployment = compose(plan)
    clip = CACHE / f"street-{passes}-{mated:g}-{seed}-{tilted:g}" / "street.mp4"
    if not clip.is_file():
        part = clip.with_name("part.mp4")
        deployment.write_clip(part)
        part.replace(clip)
    pair = cli.pack(detector), cli.pack(embedder)
    enrolled = listed(deployment)
    wanted = lists(enrolled, embed(enrolled, *pair, CACHE, threads), cli.raised_by(pair[1]))
    results = run(frames_of(clip), deployment.truth(clip.name), *pair, wanted, plan.smallest_face)
    found = figures.by_pass(list(zip(wanted, results, strict=True)), cli.thresholds_for(pair[1]))
    found |= {"models": {"detector": pair[0].digest, "embedder": pair[1].digest}, "clip": clip.name, "note": NOTE}
    print(json.dumps(found) if as_json else table.of_passes(found))


def listed(deployment: Deployment) -> Dataset:
    """The composed watchlist as stills: several of a walking identity, one of everybody else."""
    walking = [Still(path, name) for name in deployment.enrolled for path in deployment.photographs(name)]
    others = [Still(path, name, border=BORDER) for name, path in deployment.distractors.items()]
    return Dataset("composed watchlist", "", (*walking, *others))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_app(app)

"""``python -m models.training embedder ...``: the embedder's recipe, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import cv2
import typer

from models.training.sources import REPOSITORY

app = typer.Typer(help="The embedder: from public-domain weights to a measured pack.", no_args_is_help=True)

Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Threads = Annotated[int, typer.Option(help="Processor threads to use at most.")]


@app.command()
def morphs(
    shards: Annotated[int, typer.Option(help="How many shards of 2,000 mixed faces the cache should hold.")] = 20,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Mix training faces and have the teacher label them; resumes at the first missing shard."""
    from models.training.dataset import training_faces
    from models.training.morphs import make_shard, save_shard, shard_file
    from models.training.sources import cache_folder
    from models.training.teacher import Teacher

    cv2.setNumThreads(1)
    faces, teacher = training_faces(), Teacher(threads=threads)
    for index in range(shards):
        file = shard_file(cache_folder(), seed, index)
        if not file.is_file():
            save_shard(make_shard(faces, teacher, seed, index), file)


@app.command()
def train(
    run: Annotated[str, typer.Option(help="Name of the run; the same name resumes it.")] = "lamp",
    chips: Annotated[int, typer.Option(help="Chips to learn from.")] = 800_000,
    minutes: Annotated[float, typer.Option(help="Stop by the clock too; 0: never.")] = 0.0,
    shards: Annotated[int, typer.Option(help="Shards of mixed faces to use.")] = 20,
    rate: Annotated[float, typer.Option(help="Greatest learning rate.")] = 2.5e-4,
    clean_share: float = 0.7,
    mixed_share: float = 0.4,
    label_share: Annotated[float, typer.Option(help="How far a target goes towards its identity's mean.")] = 0.3,
    bank: float = 0.15,
    tail: float = 8.0,
    keep: Annotated[float, typer.Option(help="How much forgetting dlib's own template costs.")] = 2.0,
    measure_every: Annotated[int, typer.Option(help="Steps between two lines of the curve.")] = 1000,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Fine-tune the public-domain network on the teacher's templates; a GPU is used where there is one."""
    from models.training.dataset import load_lessons
    from models.training.dlib_weights import read_weights
    from models.training.embedder_net import from_dlib
    from models.training.embedder_train import Plan, Training, raw_templates
    from models.training.faces import load_faces
    from models.training.losses import LossWeights
    from models.training.sources import cache_folder, dlib_weights_file

    cv2.setNumThreads(1)
    plan = Plan(
        chips=chips,
        minutes=minutes,
        rate=rate,
        clean_share=clean_share,
        mixed_share=mixed_share,
        seed=seed,
        threads=threads,
        measure_every=measure_every,
        weights=LossWeights(bank=bank, tail=tail, keep=keep),
    )
    weights = read_weights(dlib_weights_file())
    lessons = load_lessons(cache_folder(), shards, seed, label_share, raw_templates(from_dlib(weights), threads))
    faces = load_faces("lfw")
    net = from_dlib(weights, spatial=True, twin=True)
    Training(net, lessons, faces.part(faces.held_out), plan, cache_folder() / run).run()


@app.command()
def public(
    pack: Annotated[Path, typer.Option(help="Folder of the pack to write.")] = REPOSITORY / "models" / "open-embedder",
    samples: Annotated[int, typer.Option(help="Training faces that set the int8 ranges.")] = 400,
    seed: Seed = 0,
) -> None:
    """Convert the public-domain network, quantise it to int8 and write its pack."""
    from models.training.embedder_export import export_public

    export_public(pack, samples, seed)


@app.command()
def blend(
    run: Annotated[str, typer.Option(help="Run whose averaged network is one end.")] = "lamp",
    into: Annotated[str, typer.Option(help="Name of the run to write.")] = "blend",
    share: Annotated[float, typer.Option(help="How far from dlib's weights (0) to the run's (1).")] = 0.5,
    label_share: Annotated[float, typer.Option(help="As in train.")] = 0.3,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Average a run's weights with dlib's and solve the heads again: it learns less and forgets less."""
    from models.training import blend as blending
    from models.training.dataset import load_lessons
    from models.training.dlib_weights import read_weights
    from models.training.embedder_export import averaged_net
    from models.training.embedder_net import from_dlib
    from models.training.embedder_train import raw_templates
    from models.training.sources import cache_folder, dlib_weights_file

    weights = read_weights(dlib_weights_file())
    lessons = load_lessons(cache_folder(), 0, seed, label_share, raw_templates(from_dlib(weights), threads))
    start = from_dlib(weights, spatial=True, twin=True)
    net = blending.blended(start, averaged_net(cache_folder() / run / "checkpoint.pt"), share)
    blending.solve_heads(net, lessons, lessons.real_origins, 12_000, seed)
    blending.save(net, cache_folder() / into)


@app.command()
def export(
    run: Annotated[str, typer.Option(help="Name of the training run to export.")] = "lamp",
    pack: Annotated[Path, typer.Option(help="Folder of the pack to write.")] = REPOSITORY / "models" / "lamp-embedder",
    version: Annotated[str, typer.Option(help="The pack's version.")] = "1.0.0",
    share: Annotated[float, typer.Option(help="Weight of dlib's own template in the cosine.")] = 0.85,
    small: Annotated[bool, typer.Option("--small", help="One network for both halves: half the size.")] = False,
    samples: Annotated[int, typer.Option(help="Training faces that set the int8 ranges.")] = 400,
    seed: Seed = 0,
) -> None:
    """Quantise a run's averaged network to int8 and write its pack."""
    from models.training.embedder_export import export_tuned

    export_tuned(run, pack, version, samples, seed, share, small)


@app.command()
def matched(
    state: Annotated[Path, typer.Option(help="Weights of dlib's network as function matching tuned it (.pt).")],
    pack: Annotated[Path, typer.Option(help="Folder of the pack to add to.")] = REPOSITORY / "models" / "lamp-embedder",
    version: Annotated[str, typer.Option(help="The pack's version.")] = "1.1.0",
    share: Annotated[float, typer.Option(help="As in export.")] = 0.85,
    weight: Annotated[float, typer.Option(help="Weight of the added network in the cosine.")] = 0.1,
    samples: Annotated[int, typer.Option(help="Training faces that set the int8 ranges.")] = 400,
    seed: Seed = 0,
) -> None:
    """Add a second network, which looks at the mirror image, to the exported pack."""
    from models.training.embedder_export import export_matched

    export_matched(state, pack, version, samples, seed, share, weight)


@app.command()
def match(
    out: Annotated[Path, typer.Option(help="Folder for student.pt, stable.pt and curve.csv.")],
    seconds: Annotated[float, typer.Option(help="Of training; compiling does not count.")] = 480.0,
    steps: Annotated[int, typer.Option(help="Stop after so many steps where they come first.")] = 10_000_000,
    batch: Annotated[int, typer.Option(help="Faces a step.")] = 1024,
    rate: Annotated[float, typer.Option(help="Greatest learning rate.")] = 2e-3,
    resume: Annotated[Path | None, typer.Option(help="The stable.pt of an earlier run, to go on from.")] = None,
    most: Annotated[int | None, typer.Option(help="Faces of each set to load; for a smoke run.")] = None,
    seed: Seed = 1,
) -> None:
    """Train the student of function matching, on a GPU where there is one."""
    from models.training.match_train import Matching, MatchPlan

    cv2.setNumThreads(1)
    plan = MatchPlan(seconds=seconds, steps=steps, batch=batch, rate=rate, resume=resume, most=most, seed=seed)
    typer.echo(f"student: {Matching(plan, out).run()}")


@app.command()
def student(
    state: Annotated[Path, typer.Option(help="student.pt of a run of `match`.")],
    pack: Annotated[Path, typer.Option(help="Folder of the pack to write.")],
    samples: Annotated[int, typer.Option(help="Training faces that set the int8 ranges.")] = 400,
    seed: Seed = 0,
) -> None:
    """Quantise a student of function matching to int8 and write a pack of it."""
    from models.training.match_export import export_student

    export_student(state, pack, samples, seed)


@app.command()
def cohort(
    pack: Annotated[Path, typer.Option(help="Pack to make it for.")] = REPOSITORY / "models" / "lamp-embedder",
    groups: Annotated[int, typer.Option(help="Groups to sort the faces into, at most.")] = 384,
    fairface: Annotated[int, typer.Option(help="Take every n-th training face of FairFace.")] = 8,
    utk: Annotated[int, typer.Option(help="Take every n-th training adult of UTKFace.")] = 3,
    seed: Seed = 1,
) -> None:
    """Write the fixed cohort of cohort normalisation beside a pack: means of many people's templates."""
    from appliance.recognition.packs import load
    from models.training.cohort import write_cohort

    typer.echo(f"rows: {write_cohort(load(pack), groups, (fairface, utk), seed)}")


@app.command()
def shares(run: Annotated[str, typer.Option(help="Name of the training run.")] = "lamp") -> None:
    """Print TAR on training faces of LFW for several weights of dlib's own template, to choose one by."""
    from models.training.embedder_export import share_figures

    for share, accept in share_figures(run, (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)).items():
        typer.echo(f"{share:.2f}  " + "  ".join(f"{rate:.0e} {value:.4f}" for rate, value in accept.items()))


@app.command()
def measure(
    pack: Annotated[Path, typer.Option(help="Pack to measure.")] = REPOSITORY / "models" / "lamp-embedder",
    dlib: Annotated[bool, typer.Option("--dlib", help="Measure dlib-bin itself on the pack's chips.")] = False,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="Add each chip's mirror image.")] = False,
    identify: Annotated[bool, typer.Option(help="Open-set identification too.")] = True,
    everyone: Annotated[bool, typer.Option("--everyone", help="All of LFW: for packs not trained here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the README's figures of an embedder pack, on identities that no training saw."""
    from appliance.recognition.packs import load
    from models.training import measure as measuring

    opened = load(pack)
    embed = measuring.dlib_embedder() if dlib else measuring.pack_embedder(opened, mirrored)
    table = measuring.write_table(measuring.measure(embed, opened, identify, everyone))
    if as_json:
        typer.echo(json.dumps(table))
        return
    for name, value in table.items():
        typer.echo(f"{name:28} {value}")


@app.command()
def groups(
    pack: Annotated[Path, typer.Option(help="Pack to measure.")] = REPOSITORY / "models" / "lamp-embedder",
    rate: Annotated[float, typer.Option(help="False accept rate over all held-out pairs of LFW.")] = 1e-3,
) -> None:
    """Print false match rates within each group of held-out faces, as a table in Markdown."""
    from appliance.recognition.packs import load
    from models.training.groups import group_rates
    from models.training.measure import pack_embedder

    opened = load(pack)
    typer.echo("| group | faces | pairs | false match rate |\n|---|---|---|---|")
    for row in group_rates(pack_embedder(opened), opened, rate):
        typer.echo(f"| {row.group} | {row.faces:,} | {row.pairs:,} | {row.rate:.5f} |")


@app.command()
def curve(
    run: Annotated[str, typer.Option(help="Training run.")] = "lamp",
    folder: Annotated[Path, typer.Option(help="Where curve.csv and curve.svg go.")] = REPOSITORY
    / "models"
    / "lamp-embedder",
) -> None:
    """Put a run's learning curve, as a table and drawn, beside its pack."""
    import shutil

    from models.training.curve import draw_curve
    from models.training.sources import cache_folder

    shutil.copyfile(cache_folder() / run / "curve.csv", folder / "curve.csv")
    draw_curve(folder / "curve.csv", folder / "curve.svg")

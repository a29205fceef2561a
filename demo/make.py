"""`python -m demo.make`: learn the face model and make everything in demo/assets from one seed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import cv2
import numpy as np
import typer
from rich.progress import track

from demo import faces, scene
from demo.arrays import Bytes, Floats
from demo.population import candidates, choose, contact_sheet, keep, kept, make_figure, portrait
from demo.scene import Figure
from demo.street import HEIGHT, WIDTH, draw_street
from demo.templates import ROOT, teacher, trial
from demo.walk import RATE, Route, plan
from provisioning.truth import Pass, Truth, write_truth

SEED = 7
SECONDS = 44.0
PASSERS, MATED, ABSENT = 36, 4, 14
CANDIDATES = 260
_COLUMNS = (
    "reference_identifier", "image", "category", "source", "lawful_basis",
    "rationale", "image_date", "reviewer", "expiry",
)  # fmt: skip
_CATEGORIES = {
    "wanted-on-warrant": (
        "custody image (fictional)",
        "arrest warrant (fictional)",
        "wanted on warrant, not yet found",
    ),
    "missing-at-risk": ("family photograph (fictional)", "duty to protect life (fictional)", "missing, at risk"),
    "court-order-breach": (
        "custody image (fictional)",
        "court order (fictional)",
        "order forbids being in this street",
    ),
}


@dataclass(frozen=True)
class Someone:
    """A chosen synthetic identity and how it is drawn."""

    number: int
    figure: Figure


@dataclass(frozen=True)
class Reference:
    """A reference of the demo's watchlist: identifier, category, portraits."""

    identifier: str
    category: str
    portraits: tuple[Bytes, ...]


def main(
    out: Annotated[Path, typer.Option(help="Folder for clip, portraits, enrolment list and truth.")] = ROOT
    / "demo"
    / "assets",
    cache: Annotated[Path, typer.Option(help="Folder that keeps the learnt face model; never shipped.")] = ROOT
    / ".cache"
    / "demo",
    seed: Annotated[int, typer.Option(help="The same seed makes the same street.")] = SEED,
) -> None:
    """Make the demo's clip, watchlist portraits and ground truth. Needs ../shared (or $BLUELAMP_SHARED)."""
    people = _people(cache, seed)
    rng = np.random.default_rng([seed, 1])
    passing, absent = people[:PASSERS], people[PASSERS : PASSERS + ABSENT]
    routes = plan([c.figure for c in passing], SECONDS, rng)
    # Mated passes are spread over the clip; the first comes early, so that nobody waits long for the first alert.
    mated = [int(i) for i in np.linspace(3, PASSERS - 5, MATED)]
    wanted = [passing[i] for i in mated] + absent
    references = _references(wanted, seed)
    out.mkdir(parents=True, exist_ok=True)
    _write_references(references, out)
    identifiers = {candidate.number: ref.identifier for candidate, ref in zip(wanted, references, strict=True)}
    truth = _truth(passing, routes, identifiers)
    _write_clip([c.figure for c in passing], routes, out, seed)
    write_truth(truth, out / "truth.json")
    cv2.imwrite(str(cache / "people.png"), contact_sheet([_plain(c.figure) for c in people], 10, 150))
    typer.echo(f"{len(truth.passes)} passes, {MATED} mated, {len(references)} references: {out}")


def _plain(shape: Figure) -> Bytes:
    return portrait(shape, np.random.default_rng(0), plain=True)


def _people(cache: Path, seed: int) -> list[Someone]:
    """The chosen identities in random order; learnt model and drawn candidates are kept in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    learnt, drawn = cache / "face-model.npz", cache / f"candidates-{seed}.npz"
    if not learnt.is_file():
        faces.save(faces.learn(track(faces.training_paths(), "learning faces")), learnt)
    model = faces.load(learnt)
    if not drawn.is_file():
        numbers = track(range(CANDIDATES), "drawing identities")
        keep(candidates(model, seed, numbers, {"teacher": teacher(), "trial": trial()}), drawn)
    chosen = choose(kept(drawn), PASSERS + ABSENT)
    order = np.random.default_rng([seed, 2]).permutation(len(chosen))
    numbers_in_order = [chosen[i].number for i in order]
    return [Someone(number, make_figure(model, seed, number)) for number in numbers_in_order]


def _references(wanted: list[Someone], seed: int) -> list[Reference]:
    rng = np.random.default_rng([seed, 3])
    numbers = rng.permutation(np.arange(1, 90))[: len(wanted)]
    categories = list(_CATEGORIES)
    made = []
    for order, (candidate, number) in enumerate(zip(wanted, numbers, strict=True)):
        shots = 2 if order % 4 == 3 else 1
        pictures = tuple(portrait(candidate.figure, rng) for _ in range(shots))
        made.append(Reference(f"REF-{number:04d}", categories[order % 3], pictures))
    return made


def _write_references(references: list[Reference], out: Path) -> None:
    folder = out / "portraits"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("REF-*.jpg"):
        old.unlink()
    with (out / "watchlist.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for number, reference in enumerate(sorted(references, key=lambda r: r.identifier)):
            source, basis, rationale = _CATEGORIES[reference.category]
            taken = date(2025, 3, 1) + timedelta(days=23 * number)
            names = [f"portraits/{reference.identifier}-{shot + 1}.jpg" for shot in range(len(reference.portraits))]
            for name, picture in zip(names, reference.portraits, strict=True):
                cv2.imwrite(str(out / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
            rows.writerow([reference.identifier, ";".join(names), reference.category, source, basis,
                           rationale, taken.isoformat(), "Reviewer 12 (fictional)", "2036-12-31"])  # fmt: skip


def _truth(passing: list[Someone], routes: list[Route], identifiers: dict[int, str]) -> Truth:
    entries = []
    for number, (candidate, way) in enumerate(zip(passing, routes, strict=True), start=1):
        last = len(way.boxes) - 1
        boxes = tuple(box for i, box in enumerate(way.boxes) if i % 5 == 0 or i == last)
        first_frame, last_frame = way.boxes[0].frame, way.boxes[-1].frame
        reference = identifiers.get(candidate.number)
        entries.append(
            Pass(f"pass-{number:02d}", f"synthetic-{candidate.number:03d}", reference, first_frame, last_frame, boxes)
        )
    return Truth("street.mp4", WIDTH, HEIGHT, RATE, int(SECONDS * RATE), tuple(entries))


def _write_clip(figures: list[Figure], routes: list[Route], out: Path, seed: int) -> None:
    background = draw_street(np.random.default_rng([seed, 4])).astype(np.float32)
    best, crowd = -1.0, background
    with av.open(str(out / "street.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(int(RATE)))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        # One thread: the encoder's frame threads would make the file differ from run to run.
        stream.options = {"crf": "24", "preset": "medium", "threads": "1"}
        for number in track(range(int(SECONDS * RATE)), "drawing the street"):
            picture, liveliness = _frame(background, figures, routes, number)
            if liveliness > best:
                best, crowd = liveliness, picture
            pixels = np.clip(picture, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        container.mux(stream.encode(None))
    poster = cv2.resize(crowd, (960, 540), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(out / "poster.jpg"), poster, [cv2.IMWRITE_JPEG_QUALITY, 82])


def _frame(background: Floats, figures: list[Figure], routes: list[Route], number: int) -> tuple[Floats, float]:
    """One frame, the far figures drawn first, and how many faces of good size it shows."""
    picture = background.copy()
    poses = [(way.walk.pose(number / RATE), shape) for way, shape in zip(routes, figures, strict=True)]
    present = [(pose, shape) for pose, shape in poses if pose is not None]
    for pose, shape in sorted(present, key=lambda item: -item[0].distance):
        scene.draw_figure(picture, shape, pose)
    widths = [box.width for way in routes for box in way.boxes if box.frame == number]
    return picture, sum(min(width, 90) ** 0.5 for width in widths) + 0.004 * number % 1


if __name__ == "__main__":
    typer.run(main)

"""`python -m demo.measure`: how well the demo's faces are found, and how far mated and non-mated scores lie apart."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from demo.arrays import Bytes, Floats
from demo.templates import ROOT, Detector, Template, available
from provisioning.truth import Box, Pass, read_truth

_SIZES = (35, 50, 70, 90, 200)
"""Edges of the bins of face width, in pixels."""
_COMPARED = 50.0
"""Probes from this width on are compared."""


@dataclass(frozen=True)
class Probe:
    """A truth box whose face was found: its pass, its width (pixels), and a template per embedder."""

    entry: Pass
    width: float
    templates: dict[str, Floats]


def main(
    assets: Annotated[Path, typer.Argument(help="Folder that demo.make wrote.")] = ROOT / "demo" / "assets",
    widest_only: Annotated[
        float, typer.Option("--from-width", help="Look only at frames with a face this wide (pixels); 0 looks at all.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure the demo's clip with YuNet and every embedder there is. Needs ../shared (or $BLUELAMP_SHARED)."""
    embedders = available()
    references = _references(assets, embedders)
    found: dict[int, list[bool]] = defaultdict(list)
    probes = []
    for box, entry, row, picture in _looked_at(assets, widest_only):
        found[int(np.searchsorted(_SIZES, box.width))].append(row is not None)
        if row is not None and box.width >= _COMPARED:
            points = row[4:14].reshape(5, 2)
            probes.append(Probe(entry, box.width, {name: e(picture, points) for name, e in embedders.items()}))
    figures: dict[str, object] = {
        f"found_{_SIZES[i - 1] if i else 0}_to_{_SIZES[i]}": [sum(flags), len(flags)]
        for i, flags in sorted(found.items())
    }
    for name in embedders:
        figures[name] = separation(probes, references, name)
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        _show(figures)


def _looked_at(assets: Path, least: float) -> Iterator[tuple[Box, Pass, Floats | None, Bytes]]:
    """Every truth box of at least a width, with its pass, the detector's row for it or None, and the frame."""
    truth, detector = read_truth(assets / "truth.json"), Detector()
    wanted: dict[int, list[tuple[Box, Pass]]] = defaultdict(list)
    for entry in truth.passes:
        for box in entry.boxes:
            if box.width >= least:
                wanted[box.frame].append((box, entry))
    video = cv2.VideoCapture(str(assets / truth.clip))
    for number in track(range(truth.frames), "measuring"):
        if not video.grab():
            raise ValueError(f"{truth.clip} ends at frame {number}, truth says {truth.frames}: run demo.make again")
        if number in wanted:
            picture = np.asarray(video.retrieve()[1], np.uint8)
            rows = _attributed(detector.find(picture), [(entry, entry.at(number)) for entry in truth.passes])
            for box, entry in wanted[number]:
                yield box, entry, rows.get(entry.pass_id), picture


def _attributed(rows: Floats, standing: list[tuple[Pass, Box | None]]) -> dict[str, Floats]:
    """Each detector row to one pass, the nearest face first: who hides another leaves no row to the hidden one."""
    present = [(entry, box) for entry, box in standing if box is not None]
    owners: dict[str, Floats] = {}
    for entry, box in sorted(present, key=lambda pair: -pair[1].width):
        row = _matching(box, rows)
        if row is not None:
            owners[entry.pass_id] = row
            rows = rows[(rows != row).any(axis=1)]
    return owners


def _matching(box: Box, rows: Floats) -> Floats | None:
    """The row whose box overlaps most, where the overlap (intersection over union) is at least 0.4."""
    best, chosen = 0.4, None
    for row in rows:
        wide = min(box.x + box.width, row[0] + row[2]) - max(box.x, row[0])
        tall = min(box.y + box.height, row[1] + row[3]) - max(box.y, row[1])
        both = max(float(wide), 0.0) * max(float(tall), 0.0)
        overlap = both / (box.width * box.height + float(row[2] * row[3]) - both)
        if overlap > best:
            best, chosen = overlap, row
    return chosen


def _references(assets: Path, embedders: dict[str, Template]) -> dict[str, dict[str, list[Floats]]]:
    """Templates by embedder, then by reference identifier."""
    detector = Detector()
    made: dict[str, dict[str, list[Floats]]] = {name: defaultdict(list) for name in embedders}
    with (assets / "watchlist.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for image in row["image"].split(";"):
                picture = np.asarray(cv2.imread(str(assets / image)), np.uint8)
                faces = detector.find(picture)
                if len(faces) != 1:
                    raise ValueError(f"{image}: {len(faces)} faces found, one wanted: run demo.make again")
                for name, embedder in embedders.items():
                    template = embedder(picture, faces[0, 4:14].reshape(5, 2))
                    made[name][row["reference_identifier"]].append(template)
    return made


def separation(
    probes: list[Probe], references: dict[str, dict[str, list[Floats]]], name: str
) -> dict[str, float | int]:
    """Scores of single probes, and of passes (weighted mean template, as the unit forms it), against references."""
    mated, other = _scores([(p.entry, p.templates[name]) for p in probes], references[name])
    passes: dict[str, list[Probe]] = defaultdict(list)
    for probe in probes:
        passes[probe.entry.pass_id].append(probe)
    fused = [(group[0].entry, _fused(group, name)) for group in passes.values()]
    pass_mated, pass_other = _scores(fused, references[name])
    return {
        "mated_probes": len(mated),
        "mated_median": round(float(np.median(mated)), 3),
        "mated_p5": round(float(np.percentile(mated, 5)), 3),
        "mated_least": round(float(mated.min()), 3),
        "non_mated_comparisons": len(other),
        "non_mated_p999": round(float(np.percentile(other, 99.9)), 3),
        "non_mated_greatest": round(float(other.max()), 3),
        "pass_mated_least": round(float(pass_mated.min()), 3),
        "pass_non_mated_greatest": round(float(pass_other.max()), 3),
    }


def _fused(group: list[Probe], name: str) -> Floats:
    """The mean template of a pass's five largest faces, unit length."""
    best = sorted(group, key=lambda probe: -probe.width)[:5]
    mean = np.mean([probe.templates[name] for probe in best], axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _scores(
    probes: list[tuple[Pass, Floats]], references: dict[str, list[Floats]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mated scores (best portrait of the right reference) and non-mated scores (best portrait of each other one)."""
    mated: list[float] = []
    other: list[float] = []
    for entry, template in probes:
        for identifier, templates in references.items():
            score = max(float(template @ reference) for reference in templates)
            (mated if identifier == entry.reference_identifier else other).append(score)
    return np.array(mated), np.array(other)


def _show(figures: dict[str, object]) -> None:
    table = Table("what", "figure")
    for name, value in figures.items():
        table.add_row(name, " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

"""Enrolment's throughput against the bare time of its two networks, side by side on the same images.

    python -m benchmarks.enrolment --images 10000

Images are the demo's synthetic portraits, each changed a little so that no two are the same file; `--folder` takes
others. The bare time is detector plus embedder alone, on decoded images and cut chips, with as many threads.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from appliance.recognition import align, packs
from appliance.recognition.detect import Detector
from appliance.recognition.embed import Embedder
from appliance.recognition.packs import Pack
from appliance.records import Image
from provisioning.authority import authority
from provisioning.enrolment.enrolment import Summary, enrol_images

PORTRAITS = Path(__file__).parent.parent / "demo" / "assets" / "portraits"
_SAMPLE = 400  # images the bare time is measured on
_FIELDS = {
    "category": "wanted-on-warrant", "source": "benchmark", "lawful_basis": "benchmark", "rationale": "benchmark",
    "image_date": "2025-01-01", "reviewer": "benchmark", "expiry": "2099-12-31", "under_18": "no",
}  # fmt: skip
_err = Console(stderr=True)
Pair = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def main(
    images: Annotated[int, typer.Option(help="How many images to enrol.")] = 10_000,
    folder: Annotated[Path, typer.Option(help="Face images to make them from.")] = PORTRAITS,
    detector: Annotated[str, typer.Option(help="Detector pack.")] = "lamp-detector",
    embedder: Annotated[str, typer.Option(help="Embedder pack.")] = "lamp-embedder",
    threads: Annotated[int, typer.Option(help="Images worked on at once.")] = os.cpu_count() or 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print images per second of enrolment and of the bare networks, and what share of the time is ours."""
    cv2.setNumThreads(1)
    loaded = packs.load(detector), packs.load(embedder)
    with tempfile.TemporaryDirectory() as scratch, Progress(console=_err, transient=True) as bar:
        source = make_list(Path(scratch), folder, images, bar)
        before = bare(source.parent, *loaded, threads)
        base = authority.init(Path(scratch) / "base")
        task, begun = bar.add_task("enrolling", total=images), time.process_time()
        summary = enrol_images(
            base, source, *loaded, threads=threads, progress=lambda done, of: bar.update(task, completed=done)
        )
        spent = time.process_time() - begun
        # Measured before and after, because a shared machine is not equally fast at both ends of a long run.
        after = bare(source.parent, *loaded, threads)
    report(summary, spent, (before + after) / 2, threads, as_json)


def make_list(scratch: Path, folder: Path, count: int, bar: Progress) -> Path:
    """A CSV of `count` different images made from those of a folder."""
    sources = [np.asarray(cv2.imread(str(p)), np.uint8) for p in sorted(folder.glob("*.jpg"))[:1000]]
    if not sources:
        raise typer.BadParameter(f"{folder}: holds no .jpg; python -m demo.make makes portraits")
    rng, task = np.random.default_rng(7), bar.add_task("making images", total=count)
    path = scratch / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["reference_identifier", "image", *_FIELDS])
        writer.writeheader()
        for number in range(count):
            picture = sources[number % len(sources)]
            noise = rng.normal(0, 2, (*picture.shape[:2], 1)) + rng.integers(-8, 9)
            changed = np.asarray(np.clip(picture + noise, 0, 255), np.uint8)
            cv2.imwrite(str(scratch / f"{number}.jpg"), changed, [cv2.IMWRITE_JPEG_QUALITY, 92])
            writer.writerow({"reference_identifier": f"R-{number:06d}", "image": f"{number}.jpg", **_FIELDS})
            bar.update(task, completed=number + 1)
    return path


def bare(scratch: Path, detector: Pack, embedder: Pack, threads: int) -> Pair:
    """Wall and processor seconds an image costs in the two networks alone, on `threads` threads."""
    pictures = [np.asarray(cv2.imread(str(p)), np.uint8) for p in sorted(scratch.glob("*.jpg"))[:_SAMPLE]]
    work = _worker(detector, embedder)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, pictures[: 2 * threads]))  # opens the networks in each thread
        wall, processor = time.perf_counter(), time.process_time()
        list(pool.map(work, pictures))
        both = time.perf_counter() - wall, time.process_time() - processor
        return np.asarray(both) / len(pictures)


def _worker(detector: Pack, embedder: Pack) -> Callable[[Image], None]:
    mine = threading.local()

    def work(picture: Image) -> None:
        if not hasattr(mine, "networks"):
            mine.networks = Detector(detector, smallest_face=24.0), Embedder(embedder)
        find, describe = mine.networks
        faces = find.detect(picture)
        points = faces[0].landmarks if faces else np.asarray(describe.landmarks)
        describe.embed(align.chip(picture, points, describe.landmarks, describe.width, describe.height)[None])

    return work


def report(summary: Summary, spent: float, bare_seconds: Pair, threads: int, as_json: bool) -> None:
    """Throughput, and the share of the time that is not the networks'.

    `overhead` is of processor time: on a machine that others use too, wall-clock ratios say little.
    """
    wall, processor = (float(v) for v in bare_seconds)
    count = max(1, len(summary.outcomes))
    figures = {
        "images": len(summary.outcomes), "accepted": summary.accepted, "refused": len(summary.refused),
        "threads": threads, "seconds": round(summary.seconds, 1),
        "images_per_second": round(count / summary.seconds, 1), "bare_images_per_second": round(1 / wall, 1),
        "processor_ms": round(1000 * spent / count, 2), "bare_processor_ms": round(1000 * processor, 2),
        "overhead": round(spent / count / processor - 1, 3),
    }  # fmt: skip
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):24} {value}")


if __name__ == "__main__":
    typer.run(main)

"""The embedder in LiteRT beside dlib's own code, one face each, on one thread, in one run.

    python -m benchmarks.embedder                       models/lamp-embedder against dlib-bin
    python -m benchmarks.embedder --pack models/open-embedder

The two alternate, chip by chip, so that the machine's load falls on both; medians of each are compared. dlib gets its
150 x 150 chip and is asked for one descriptor without jitter; the pack gets its own chip, and its time includes all
that the unit does: subtracting the mean, quantising, the network, scaling to length one.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy and dlib start their threads

import typer  # noqa: E402

from appliance.recognition.embed import Embedder  # noqa: E402
from appliance.recognition.packs import load  # noqa: E402
from models.training.chips import DLIB_LANDMARKS, DLIB_WIDTH  # noqa: E402
from models.training.golden import drawn_face  # noqa: E402
from models.training.measure import dlib_embedder, size_of  # noqa: E402

_LAMP = Path(__file__).resolve().parents[1] / "models" / "lamp-embedder"


def milliseconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def main(
    pack: Annotated[Path, typer.Option(help="Embedder pack to time.")] = _LAMP,
    rounds: Annotated[int, typer.Option(help="Times that each embeds the face.")] = 60,
) -> None:
    """Print both medians, in milliseconds, and their ratio as JSON."""
    opened = load(pack)
    embedder, dlib = Embedder(opened, threads=1), dlib_embedder()
    face, _ = opened.golden()
    dlib_face = drawn_face(DLIB_WIDTH, DLIB_WIDTH, DLIB_LANDMARKS)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(milliseconds(lambda: embedder.embed(face[None])))
        theirs.append(milliseconds(lambda: dlib(dlib_face)))
    median, dlib_median = statistics.median(ours), statistics.median(theirs)
    result = {"pack": opened.manifest.name, "rounds": rounds, "bytes": size_of(opened.folder)}
    times = {"pack_ms": round(median, 2), "dlib_ms": round(dlib_median, 2), "ratio": round(median / dlib_median, 3)}
    fastest = {"pack_fastest_ms": round(min(ours), 2), "dlib_fastest_ms": round(min(theirs), 2)}
    print(json.dumps({**result, **times, **fastest}))


if __name__ == "__main__":
    typer.run(main)

"""Time of the detector pack against YuNet in ONNX Runtime: one thread each, the same picture, in turn.

    python -m benchmarks.detector [--json] [--rounds 60]

Only inference is timed, from the prepared tensor to the raw outputs; both then need the same decoding. The two take
turns and the ratio is the median of each round's quotient, so that a busy machine slows both alike. YuNet's input must
be a multiple of 32: where the size is not, it sees the picture padded with black, as OpenCV pads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from appliance.recognition.packs import load
from appliance.recognition.runtime import open_session, tensor_of
from models.training.detector_labels import YuNet
from models.training.drawn_face import drawn_face

_WARM_UP = 5


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def paired(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """Medians in milliseconds, and of the quotient round by round."""
    for _ in range(_WARM_UP):
        ours()
        theirs()
    times = np.array([(milliseconds(ours), milliseconds(theirs)) for _ in range(rounds)])
    quotients = times[:, 0] / times[:, 1]
    return {
        "detector_ms": float(np.median(times[:, 0])),
        "yunet_ms": float(np.median(times[:, 1])),
        "ratio": float(np.median(quotients)),
        "ratio_of_least": float(times[:, 0].min() / times[:, 1].min()),
    }


def compare(pack_folder: str, rounds: int) -> dict[str, dict[str, float]]:
    """The figures for every size of the pack."""
    pack, yunet = load(pack_folder), YuNet(threads=1)
    figures = {}
    for file in pack.manifest.files:
        picture = drawn_face(file.width, file.height, 80, (file.width / 2, file.height / 2))
        session, pixels, padded = open_session(pack, file), tensor_of(pack, picture[None]), yunet.prepare(picture)
        names = (file.width, file.height)
        figures[f"{file.width}x{file.height}"] = paired(
            lambda session=session, pixels=pixels: session.run(pixels),  # type: ignore[misc]
            lambda padded=padded, names=names: yunet.answer(padded, *names),  # type: ignore[misc]
            rounds,
        )
    return figures


def main(
    pack: Annotated[str, typer.Option(help="A pack's folder or built-in name.")] = "lamp-detector",
    rounds: Annotated[int, typer.Option(help="Rounds for each size.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time the detector pack against YuNet, size by size."""
    figures: dict[str, Any] = dict(compare(pack, rounds))
    figures["bytes"] = sum(f.stat().st_size for f in Path(load(pack).folder).iterdir() if f.suffix == ".tflite")
    if as_json:
        typer.echo(json.dumps(figures, indent=1))
        return
    for size, values in figures.items():
        if isinstance(values, dict):
            text = f"{values['detector_ms']:7.2f} ms, YuNet {values['yunet_ms']:7.2f} ms, ratio {values['ratio']:.2f}"
            typer.echo(f"{size:>10}: {text}")
    typer.echo(f"all files: {figures['bytes'] / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)

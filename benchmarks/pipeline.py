"""Time of each stage, latency from capture to the control room, and memory: the demo's clip at its own pace.

    python -m benchmarks.pipeline [--entries 10000] [--json]

The clip plays like a camera (1280 x 720 at 15 frames a second): a unit that cannot keep up drops frames and the figures
say so. Machines differ and are noisy; compare figures of one run with each other, not with another machine's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from appliance.command_line import complain
from appliance.errors import BluelampError
from appliance.formats import watchlist
from appliance.identifiers import uuid7
from appliance.recognition.embed import unit
from appliance.trust import keys
from appliance.trust.seal import open_sealed, take_apart
from demo import rehearsal
from demo.run import ASSETS, SETTINGS
from demo.score import score
from provisioning.truth import read_truth

DEPLOYMENT = "BENCH-1"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000, help="size of the watchlist, padded with noise")
    parser.add_argument("--pace", choices=("real", "fast"), default="real")
    parser.add_argument("--detector", default="lamp-detector")
    parser.add_argument("--embedder", default="lamp-embedder")
    parser.add_argument("--threshold", type=float, help="comparison score; else calibrated at a FPIR of 1 in 1,000")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="bluelamp-bench-") as temporary:
            result = _measure(Path(temporary), options)
    except BluelampError as error:
        complain(str(error))
        return error.exit_code
    print(json.dumps(result) if options.json else _text(result))
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    prepared = rehearsal.prepare(folder, options.detector, options.embedder)
    rehearsal.enrol(prepared, ASSETS / "watchlist.csv")
    fpir = None if options.threshold is not None else 1e-3
    rehearsal.seal_list(prepared, DEPLOYMENT, threshold=options.threshold, fpir=fpir)
    pad(prepared, options.entries)
    outcome = rehearsal.run(prepared, ASSETS / "street.mp4", lambda one: None, pace=options.pace, settings=SETTINGS)
    result = score(read_truth(ASSETS / "truth.json"), outcome.opened)
    frames, seconds = outcome.summary["frames"], outcome.summary["seconds"]
    return {
        "entries": options.entries, "frames": frames, "dropped": outcome.summary["dropped"],
        "frames_per_second": round(frames / seconds, 1), "faces_per_frame": round(outcome.summary["faces"] / frames, 2),
        "milliseconds": dict(outcome.stages), "latency_p50": result.latency_p50, "latency_p99": result.latency_p99,
        "alerts": result.alerts, "true": result.true, "false": result.false,
        "vision_megabytes": round(outcome.resident_bytes / 1e6, 1), "overhead_share": overhead(outcome.stages),
    }  # fmt: skip


def overhead(stages: Mapping[str, float]) -> float:
    """Share of the median frame's time that is not spent in the stages that run a network."""
    model = stages["detect"] + stages["extract"]
    rest = stages["capture"] + stages["track"] + stages["identify"]
    return round(rest / max(model + rest, 1e-9), 4)


def pad(prepared: rehearsal.Rehearsal, entries: int) -> None:
    """Re-seal the unit's watchlist with noise templates until it has `entries` of them."""
    path = prepared.folder / "unit" / "watchlist.blw"
    folder = keys.load(prepared.unit_keys)
    sealed = take_apart(path.read_bytes(), 1 << 30)
    manifest, templates, _ = watchlist.parse_plaintext(open_sealed(sealed, folder.sealing))
    count = max(entries - len(templates), 0)
    noise = unit(np.random.default_rng(1).normal(size=(count, manifest.length)).astype(np.float32))
    extra = tuple(watchlist.Entry(reference_identifier=f"PAD-{i}", category="padding") for i in range(count))
    bigger = manifest.model_copy(update={"entries": manifest.entries + extra, "created": time.time()})
    key = next(k for k in folder.identity.sealing if k.id == sealed.header.recipient)
    everything = np.concatenate([templates, noise])
    path.write_bytes(watchlist.make(bigger, everything, uuid7(), key.public(), key.id, [prepared.base.keys.signer]))


def _text(result: Mapping[str, object]) -> str:
    stages = result["milliseconds"]
    assert isinstance(stages, dict)
    rows = "\n".join(f"  {name:<9} {value:8.2f} ms" for name, value in stages.items())
    return (
        f"{result['frames']} frames, {result['dropped']} dropped, {result['frames_per_second']} a second, "
        f"{result['faces_per_frame']} faces a frame, watchlist of {result['entries']}\n"
        f"median time a frame spends in\n{rows}\n"
        f"capture to control room: p50 {result['latency_p50']} s, p99 {result['latency_p99']} s over "
        f"{result['alerts']} alerts\nvision process: {result['vision_megabytes']} MB resident\n"
        f"not model inference: {result['overhead_share']:.1%} of the time of a frame"
    )


if __name__ == "__main__":
    sys.exit(main())
